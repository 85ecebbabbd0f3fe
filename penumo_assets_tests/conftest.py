"""What holds for every test."""

import os

# Before torch is imported: threads that wait must not spin, or another busy process slows every test tenfold.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

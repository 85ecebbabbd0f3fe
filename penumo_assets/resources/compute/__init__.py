"""Job specifications and what runs them. The programs that run are in `jobs/`; which asset asks is not known here."""

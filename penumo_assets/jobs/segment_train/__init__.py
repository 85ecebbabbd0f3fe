"""Train the lung segmenter on X-rays with ground-truth masks. Applying it is `imaging/segment.py`."""

"""How good a classifier or a segmenter is, and how sure one can be: pure functions on arrays."""

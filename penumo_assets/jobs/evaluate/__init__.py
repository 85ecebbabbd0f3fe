"""Evaluate a model on a packed training set. The figures and the report's pages are made in `metrics/`."""

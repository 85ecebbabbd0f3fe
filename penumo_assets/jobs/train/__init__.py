"""Train a classifier on a packed training set.

The network itself is in `models/`, the figures' formulas in `metrics/`.
"""

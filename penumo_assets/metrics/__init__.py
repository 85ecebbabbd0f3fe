"""Metrics, their intervals, and the quality gates: pure functions of arrays. No files, no Dagster, no MLflow."""

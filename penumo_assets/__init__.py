"""Chest X-rays from a hospital's bucket to a pneumonia classifier, as Dagster assets.

`definitions.py` is the table of contents. Imports point downwards only, in the order that `pyproject.toml` lists.
"""

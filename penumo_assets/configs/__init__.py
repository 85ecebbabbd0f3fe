"""The settings: YAML files that a user edits, and the pydantic models that check and describe them.

Nothing here reads the environment or knows Dagster.
"""

"""One image from bytes to tensor: pure functions of arrays, bytes and settings.

No Dagster, no storage, no job. What parses bytes that may come from anywhere is in `formats/`.
"""

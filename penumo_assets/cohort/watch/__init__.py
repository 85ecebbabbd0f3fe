"""When a cohort that landed must run: pure functions of what was seen.

The sensors that call them are in `sensors/`.
"""

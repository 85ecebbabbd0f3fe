"""A cohort from what landed to what is published: list, plan, publish. Nothing here computes a pixel or starts a job.

`watch/` decides when a cohort runs by itself.
"""

"""The asset graph: one file for each step of the data's way, in the words that Dagster shows.

Assets are thin: they plan with `cohort`, run a job, and publish. No pixel and no network request is handled here.
"""

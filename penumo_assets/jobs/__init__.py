"""The programs that do the work, in a container or a subprocess: `python -m penumo_assets.jobs.{name}`.

One package for each program; files at this level serve several programs. A program knows SageMaker's container
contract (`contract.py`) and the pure packages, and nothing of Dagster, S3 or SageMaker's API.
"""

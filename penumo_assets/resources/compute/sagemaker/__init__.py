"""Jobs on Amazon SageMaker: requests, their outcome, their logs.

All of it is plain data but for `job.py` and `logs.py`.
"""

"""What the assets run on: storage, job runners, MLflow, alerts. `profile.py` chooses by the environment.

A resource knows nothing of the asset that uses it.
"""

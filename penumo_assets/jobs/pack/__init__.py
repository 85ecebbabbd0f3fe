"""Pack the tensors of all cohorts into one training set, split by patient.

Who reads the shards uses `jobs/shards.py`.
"""

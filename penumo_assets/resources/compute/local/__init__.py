"""Jobs as subprocesses of this machine that see SageMaker's container contract."""

"""SageMaker's job API on loopback, which runs jobs for real: as subprocesses under the container contract.

``Emulator`` is one HTTP endpoint. moto answers for S3, CloudWatch Logs, SQS and Secrets Manager; the job API, which
moto only pretends to have, is answered here: requests are checked against botocore's model and the service's own
rules, channels are downloaded from S3, programs run, outputs are uploaded and lines go to CloudWatch.
"""

from penumo_assets_tests.aws.emulator.faults import JobScript
from penumo_assets_tests.aws.emulator.server import Emulator

__all__ = ["Emulator", "JobScript"]

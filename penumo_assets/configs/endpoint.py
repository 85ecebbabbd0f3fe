"""How the champion is served on SageMaker (`endpoint`). The defaults stand in ``endpoint_config.yaml``."""

from enum import StrEnum

from pydantic import Field

from penumo_assets.configs.base import StrictModel, defaults_from

MB = 2**20


class Mode(StrEnum):
    """Ways of serving; ``current`` and ``off`` are instructions."""

    current = "current"
    off = "off"
    serverless = "serverless"
    realtime = "realtime"
    asynchronous = "async"
    batch = "batch"


# What a request may have, in MB, from the smallest to the largest.
# https://docs.aws.amazon.com/sagemaker/latest/dg/model-deploy-feature-matrix.html
LARGEST_MB = {Mode.serverless: 4, Mode.realtime: 25, Mode.batch: 100, Mode.asynchronous: 1024}


@defaults_from("endpoint_config.yaml")
class EndpointConfig(StrictModel):
    """Settings of the endpoint."""

    mode: Mode = Field(
        description="current: as it is served now, with the settings of then; at first that is not at all. off: take "
        "the endpoint down. serverless: by the request, films up to 4 MB. realtime: instances of its own, up to "
        "25 MB. async: a queue before instances, films in S3 up to 1 GB. batch: no endpoint, a model for transform "
        "jobs, films in S3 up to 100 MB."
    )
    instance_type: str = Field(
        pattern=r"^ml\.[a-z0-9-]+\.[a-z0-9-]+$", description="Instance of realtime, async and batch."
    )
    instance_count: int = Field(ge=1, description="Instances behind a realtime or async endpoint.")
    memory_mb: int = Field(ge=1024, le=6144, multiple_of=1024, description="Memory of a serverless endpoint.")
    max_concurrency: int = Field(ge=1, le=200, description="Requests that a serverless endpoint answers at a time.")
    largest_film_mb: float | None = Field(
        gt=0, description="Size of the largest film that will be sent; empty: of those that the model was trained on."
    )

    def refusal(self, largest_bytes: int) -> str | None:
        """What is wrong with a launch by these settings; None if nothing is.

        Films of ``largest_bytes`` may not fit into a request of the mode, and settings without a mode would be
        ignored: those of the endpoint hold.
        """
        if self.mode is Mode.current:
            changed = [
                name for name in type(self).model_fields if getattr(self, name) != getattr(self.defaults(), name)
            ]
            return f"{', '.join(changed)} without a mode would change nothing: name the mode too" if changed else None
        largest = largest_bytes if self.largest_film_mb is None else int(self.largest_film_mb * MB)
        if self.mode not in LARGEST_MB or largest <= LARGEST_MB[self.mode] * MB:
            return None
        fitting = [f"{mode.value} ({limit} MB)" for mode, limit in LARGEST_MB.items() if largest <= limit * MB]
        remedy = f"choose mode {' or '.join(fitting)}" if fitting else "no mode takes them"
        return (
            f"films of {largest / MB:.1f} MB do not fit into the {LARGEST_MB[self.mode]} MB of a request to mode "
            f"{self.mode.value}: {remedy}, or say by largest_film_mb what will be sent"
        )

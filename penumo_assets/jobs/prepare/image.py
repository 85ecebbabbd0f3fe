"""One image on its way through the prepare job, and what every stage does alike: guard, read back, store."""

import hashlib
import logging
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from penumo_assets.imaging.errors import ImageRejected
from penumo_assets.imaging.letterbox import Letterbox
from penumo_assets.jobs.contract import JobError, processing_input, processing_output, write_atomic
from penumo_assets.jobs.manifest import StageOutput
from penumo_assets.jobs.prepare.work import WorkItem, drop_rejected_stages

log = logging.getLogger("prepare")


@dataclass
class Image:
    """One image on its way: its work item and the arrays that the next stage needs, none of them of full size."""

    item: WorkItem
    square: np.ndarray | None = None
    mask: np.ndarray | None = None
    enhanced: np.ndarray | None = None
    small_mask: np.ndarray | None = None
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def wants(self) -> list[str]:
        """Stages still to compute; none once the image is rejected."""
        return [] if self.item.row.status == "rejected" else self.item.compute

    @property
    def letterbox(self) -> Letterbox:
        assert self.item.row.height
        assert self.item.row.width
        return Letterbox.fit(self.item.row.height, self.item.row.width)


def guarded(image: Image, stage: str, step: Callable[[Image], None]) -> None:
    """Run one stage of one image: whatever is wrong with it becomes its row's reason."""
    row, started = image.item.row, time.process_time()
    try:
        step(image)
    except ImageRejected as rejection:
        row.reject(stage, rejection.code, rejection.reason, image.item.fingerprints[stage])
    except JobError:
        raise  # not this image's fault: the settings
    except OSError as error:  # the disk's fault; its text names the file, whose name may be a patient's
        reason = error.strerror or type(error).__name__
        raise JobError(f"stage {stage} of image {row.image_id}: {reason}") from None
    except Exception as error:
        # Without a fingerprint the next materialization tries again.
        row.reject(stage, "unexpected_error", f"{type(error).__name__} in stage {stage}")
        # Where it happened, but not what it says: that can quote the image's header or name.
        frames = "".join(traceback.format_tb(error.__traceback__))
        log.error("%s in stage %s of image %s\n%s", type(error).__name__, stage, row.image_id, frames)
    drop_rejected_stages(image.item)
    image.seconds[stage] = image.seconds.get(stage, 0.0) + time.process_time() - started


def stored(stage: str, item: WorkItem) -> bytes:
    """The bytes of an earlier materialization's output."""
    return (processing_input(stage) / item.row.stages[stage].key.removeprefix(f"{stage}/")).read_bytes()


def store(
    image: Image,
    stage: str,
    name: str,
    data: bytes,
    facts: dict[str, Any] | None = None,
    content: str | None = None,
    sha256: str | None = None,
) -> None:
    """Write a stage's output and enter it in the image's row; ``content`` as in `StageOutput`, ``sha256`` if known."""
    write_atomic(processing_output(stage) / name, data)
    image.item.row.stages[stage] = StageOutput(
        key=f"{stage}/{name}",
        sha256=sha256 or hashlib.sha256(data).hexdigest(),
        fingerprint=image.item.fingerprints[stage],
        facts=facts or {},
        content=content,
    )

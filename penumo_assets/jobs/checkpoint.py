"""Checkpoints from which a killed training goes on as if nothing had happened.

For the classifier and the lung segmenter. ``last.pt`` holds everything that changes from step to step;
``best-<epoch>.safetensors`` the best weights so far, where a training keeps them apart. Both are written under another
name first, so a reader sees a whole file or none.
SageMaker copies the folder to S3 while the job runs and back when it starts again.
"""

import logging
import os
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from penumo_assets.jobs.contract import JobError

SCHEMA = "penumo/checkpoint/1"
LAST_NAME = "last.pt"

logger = logging.getLogger(__name__)


class Checkpoints:
    """The checkpoints of one training in ``folder``; ``fingerprint`` says which training that is.

    With ``over_others``, the checkpoint of another training is not refused: training begins anew, over it.
    """

    def __init__(self, folder: Path, fingerprint: str, over_others: bool = False) -> None:
        self.folder = folder
        self.fingerprint = fingerprint
        self.over_others = over_others

    def save(self, state: dict[str, Any], best_epoch: int = 0) -> None:
        """Replace ``last.pt``; best weights other than ``best_epoch``'s are removed after it stands."""
        values = {"schema": SCHEMA, "fingerprint": self.fingerprint, "best_epoch": best_epoch, "state": state}
        temporary = self.folder / f".{LAST_NAME}.tmp"
        with temporary.open("wb") as file:
            torch.save(values, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, self.folder / LAST_NAME)
        for path in self.folder.glob("best-*.safetensors"):
            if path != self._best_path(best_epoch):
                path.unlink()

    def save_best(self, weights: dict[str, torch.Tensor], epoch: int) -> None:
        """Keep ``weights`` as those of ``epoch``, beside the earlier best until ``save``."""
        path = self._best_path(epoch)
        temporary = path.with_suffix(".tmp")
        save_file({name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}, temporary)
        os.replace(temporary, path)

    def load_best(self, epoch: int) -> dict[str, torch.Tensor]:
        """The weights of ``epoch``; raises JobError if they are gone or broken."""
        try:
            return load_file(self._best_path(epoch))
        except (OSError, SafetensorError) as error:
            raise JobError(
                f"the checkpoint of the best epoch {epoch} cannot be read: {type(error).__name__}"
            ) from error

    def load(self) -> dict[str, Any] | None:
        """The state to go on from, or None to begin: there is none, or it is broken (which is logged).

        Raises
        ------
        JobError
            If the checkpoint is of another training: other data, architecture or settings.
        """
        path = self.folder / LAST_NAME
        if not path.is_file():
            return None
        try:
            values = torch.load(path, map_location="cpu", weights_only=True)
            whole = values["schema"] == SCHEMA
        except Exception as error:  # a file cut short raises many types; the remedy is the same
            logger.warning("the checkpoint cannot be read (%s); training begins anew", type(error).__name__)
            return None
        if whole and values["fingerprint"] != self.fingerprint and self.over_others:
            logger.warning("the checkpoint belongs to other data or settings; training begins anew")
            return None
        if not whole or values["fingerprint"] != self.fingerprint:
            raise JobError(
                "the checkpoint folder holds another training (other data, architecture or settings): "
                "give this job a checkpoint folder of its own"
            )
        best = values["best_epoch"]
        if best > 0 and not self._best_path(best).is_file():
            logger.warning("the checkpoint lacks the best weights; training begins anew")
            return None
        return values["state"]

    def _best_path(self, epoch: int) -> Path:
        return self.folder / f"best-{epoch}.safetensors"

"""How far a training has come, which epoch was its best, and what it says after each."""

import logging
from dataclasses import dataclass, field
from typing import Any

from penumo_assets.configs.train import StoppingMetric, TrainConfig

logger = logging.getLogger(__name__)


@dataclass
class Progress:
    """How far a training has come: everything about it that is not a tensor."""

    epoch: int = 1  # the epoch that runs next, or runs now
    step: int = 0  # steps of it that are done
    loss_sum: float = 0.0  # over those steps
    seconds: float = 0.0  # spent in them
    best_epoch: int = 0
    best: dict[str, Any] = field(default_factory=dict)
    since_best: int = 0
    finished: bool = False
    history: list[dict[str, Any]] = field(default_factory=list)
    mlflow_run_id: str | None = None

    def judge(self, record: dict[str, Any], config: TrainConfig) -> bool:
        """Is ``record`` the best epoch so far? Also decides whether it was the last."""
        improved = not self.best or _rank(record, config) > _rank(self.best, config)
        if improved:
            self.best, self.best_epoch, self.since_best = record, self.epoch, 0
        else:
            self.since_best += 1
        self.finished = self.epoch >= config.epochs or 0 < config.early_stopping_patience <= self.since_best
        return improved


def report(record: dict[str, Any]) -> None:
    """One line per epoch that SageMaker's metric definitions can read: ``name=value;``."""
    logger.info(" ".join(f"{name}={value:.6g};" for name, value in record.items() if value is not None))


def _rank(record: dict[str, Any], config: TrainConfig) -> tuple[float, float]:
    """Larger is better; equal ROC-AUCs, which small validation splits have, are told apart by the loss."""
    loss = -record["validation_loss"]
    if config.early_stopping_metric is StoppingMetric.loss:
        return loss, 0.0
    return record["validation_roc_auc"], loss

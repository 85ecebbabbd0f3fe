"""A classifier with its decision rule: what batch inference, the endpoint and `penumo predict` all answer with."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from penumo_assets.configs.documents import parse_json
from penumo_assets.jobs.contract import JobError
from penumo_assets.metrics.calibration import softmax
from penumo_assets.metrics.classification import decide
from penumo_assets.metrics.grad_cam import grad_cam
from penumo_assets.metrics.performance import DecisionRule
from penumo_assets.metrics.selective import NOT_DECIDED
from penumo_assets.models.classifier import load_classifier
from penumo_assets.models.device import compute_device
from penumo_assets.models.errors import ModelError
from penumo_assets.models.inputs import normalise

RULE_NAME = "decision_rule.json"


def score_images(model: nn.Module, metadata: dict[str, Any], images: torch.Tensor) -> np.ndarray:
    """(N, 224, 224, 4) uint8 on the model's device -> (N, classes) float64 logits, which may be NaN.

    Raises
    ------
    JobError
        If the model gives another number of logits than it has classes.
    """
    with torch.inference_mode():
        output = model(normalise(images, metadata))
    expected = (len(images), len(metadata["classes"]))
    if tuple(output.shape) != expected:
        raise JobError(f"the model gives {tuple(output.shape)} for {expected[0]} images of {expected[1]} classes")
    return output.double().cpu().numpy()


def class_columns(classes: Sequence[str], probabilities: np.ndarray, calibrated: np.ndarray | None) -> dict[str, Any]:
    """Columns of a prediction table: ``probability_<class>`` and ``calibrated_probability_<class>``, NaN without."""
    plain = {f"probability_{name}": probabilities[:, i] for i, name in enumerate(classes)}
    return plain | {
        f"calibrated_probability_{name}": np.nan if calibrated is None else calibrated[:, i]
        for i, name in enumerate(classes)
    }


def decisions(probabilities: np.ndarray, rule: DecisionRule, classes: Sequence[str], positive: int | None) -> list[str]:
    """The class that each image is called, or ``NOT_DECIDED``."""
    called = decide(probabilities, rule.threshold, positive)
    sure = rule.decides(probabilities, positive)
    return [classes[number] if decided else NOT_DECIDED for number, decided in zip(called, sure, strict=True)]


@dataclass(frozen=True)
class Answers:
    """What a classifier says of n images.

    ``probabilities`` and ``calibrated`` are (n, classes) float64, rows sum to 1; ``calibrated`` is None where the
    model was never calibrated. ``decision`` holds n class names, or ``NOT_DECIDED``.
    """

    probabilities: np.ndarray
    calibrated: np.ndarray | None
    decision: list[str]


@dataclass(frozen=True)
class Classifier:
    """A loaded model, what it says about itself, and how its probabilities become decisions."""

    model: nn.Module
    metadata: dict[str, Any]
    rule: DecisionRule
    device: torch.device

    @classmethod
    def load(cls, folder: Path, device: str = "auto") -> "Classifier":
        """Read a model folder; the rule from ``decision_rule.json``, which a champion has, else the model's own.

        Raises
        ------
        ModelError
            If the model or its rule cannot be used.
        """
        place = compute_device(device)
        model, metadata = load_classifier(folder)
        return cls(model.to(place), metadata, read_rule(folder, metadata), place)

    @property
    def classes(self) -> list[str]:
        return self.metadata["classes"]

    @property
    def positive(self) -> int | None:
        """Of two classes the last is the positive one."""
        return 1 if len(self.classes) == 2 else None

    def logits(self, images: np.ndarray) -> np.ndarray:
        """(N, 224, 224, 4) uint8 -> (N, classes) float64 logits.

        An image's answer does not depend on its batch, beyond rounding: probabilities agree to 1e-5.

        Raises
        ------
        JobError
            If the model answers NaN.
        """
        logits = score_images(self.model, self.metadata, torch.from_numpy(images).to(self.device))
        if not np.isfinite(logits).all():
            raise JobError("the model answers NaN: its weights are broken; train it again")
        return logits

    def answers(self, logits: np.ndarray) -> Answers:
        """Probabilities, calibrated ones and decisions of (N, classes) logits."""
        probabilities = softmax(logits)
        called = decisions(probabilities, self.rule, self.classes, self.positive)
        calibrated = softmax(logits, self.rule.calibration) if self.rule.calibration else None
        return Answers(probabilities, calibrated, called)

    def heat(self, images: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """Grad-CAM for class ``targets`` of each image: (N, h, w) float32 in 0..1, at its own resolution."""
        batch = normalise(torch.from_numpy(images).to(self.device), self.metadata)
        return grad_cam(self.model, batch, torch.from_numpy(targets).to(self.device)).cpu().numpy()

    def explained_class(self, probabilities: np.ndarray) -> int:
        """Which class an overlay explains: the positive one, or with several the likeliest of (classes,)."""
        return int(probabilities.argmax()) if self.positive is None else self.positive


def read_rule(folder: Path, metadata: dict[str, Any]) -> DecisionRule:
    """The rule in ``folder``, or the threshold that training left in the model's metadata.

    Raises
    ------
    ModelError
        If the file is no rule, or one for another number of classes.
    """
    path = folder / RULE_NAME
    if not path.is_file():
        return DecisionRule(metadata["threshold"], metadata.get("temperature"), "the model's own")
    try:
        rule = DecisionRule(**parse_json(path.read_bytes()))
    except (ValueError, TypeError) as error:
        raise ModelError(f"{RULE_NAME} is no decision rule: {error}") from error
    count = len(metadata["classes"])
    if rule.offsets and len(rule.offsets) != count:
        raise ModelError(f"{RULE_NAME} has {len(rule.offsets)} offsets, the model has {count} classes")
    if rule.threshold is not None and count != 2:
        raise ModelError(f"{RULE_NAME} has a threshold, the model has {count} classes")
    return rule

"""How the lung segmenter is fitted: the plan, the batches, the steps and their checkpoints."""

import hashlib
import json
import logging
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from penumo_assets.configs.train import Scheduler
from penumo_assets.jobs.checkpoint import Checkpoints
from penumo_assets.jobs.optimisation import MovingAverage, rate_factor, weight_groups
from penumo_assets.jobs.segment_train.augment import AugmentConfig, augment
from penumo_assets.jobs.segment_train.data import Pair, sampling_weights, shrink
from penumo_assets.models.device import compute_device
from penumo_assets.models.lung_unet import LungUNet, to_device

LOG = logging.getLogger("segment_train")
Tracker = Callable[[dict[str, float], int], None]  # metrics, step


@dataclass(frozen=True)
class Stage:
    """``steps`` batches at ``size`` pixels."""

    size: int
    steps: int


@dataclass(frozen=True)
class Plan:
    """Everything that decides the weights, besides the data."""

    stages: tuple[Stage, ...]
    batch_size: int
    learning_rate: float
    weight_decay: float
    ema_decay: float
    source_power: float
    seed: int
    folds: int
    fold: int | None
    initial_sha256: str | None = None
    augmentation: AugmentConfig = field(default_factory=AugmentConfig)

    @property
    def steps(self) -> int:
        return sum(stage.steps for stage in self.stages)

    def stage_at(self, step: int) -> Stage:
        """The stage that ``step`` (from 0) belongs to."""
        for stage in self.stages:
            if step < stage.steps:
                return stage
            step -= stage.steps
        return self.stages[-1]

    def rate_at(self, step: int) -> float:
        """Learning rate: a linear rise over the first 5 %, then a half cosine down to 1 % of the peak."""
        factor = rate_factor(step, max(1, self.steps // 20), self.steps, Scheduler.cosine, floor=0.01)
        return self.learning_rate * factor

    def digest(self) -> str:
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()


def loss_of(logits: Tensor, target: Tensor) -> Tensor:
    """Binary cross-entropy plus soft Dice loss per image (Milletari et al. 2016, arXiv:1606.04797)."""
    probability = logits.sigmoid()
    overlap = (probability * target).sum((1, 2, 3))
    total = probability.sum((1, 2, 3)) + target.sum((1, 2, 3))
    dice = (2 * overlap + 1) / (total + 1)
    return F.binary_cross_entropy_with_logits(logits, target) + (1 - dice).mean()


class Trainer:
    """Model, moving average and optimiser, and the step that they have reached."""

    def __init__(self, plan: Plan, device: torch.device, initial: LungUNet | None = None) -> None:
        torch.manual_seed(plan.seed)
        self.plan, self.device, self.step = plan, device, 0
        self.model = to_device(LungUNet(), device)
        if initial is not None:
            self.model.load_state_dict(initial.state_dict())
        self.average = MovingAverage(self.model, plan.ema_decay)
        self.optimiser = torch.optim.AdamW(weight_groups(self.model, plan.weight_decay), lr=plan.learning_rate)

    def update(self, images: Tensor, targets: Tensor) -> float:
        """One batch; returns its loss."""
        for group in self.optimiser.param_groups:
            group["lr"] = self.plan.rate_at(self.step)
        self.model.train()
        loss = loss_of(self.model(images), targets)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 5.0)
        self.optimiser.step()
        self.average.update(self.step)
        self.step += 1
        return float(loss.detach())

    def save(self, checkpoints: Checkpoints) -> None:
        """Write a checkpoint that `resume` goes on from."""
        state = {name: part.state_dict() for name, part in self._parts().items()}
        checkpoints.save(state | {"step": self.step})

    def resume(self, checkpoints: Checkpoints) -> None:
        """Go on from the checkpoint, if there is one."""
        state = checkpoints.load()
        if state is None:
            return
        for name, part in self._parts().items():
            part.load_state_dict(state[name])
        self.step = state["step"]
        LOG.info("resumed at step %d", self.step)

    def _parts(self) -> dict[str, Any]:
        return {"model": self.model, "average": self.average.model, "optimiser": self.optimiser}


class Batches:
    """Augmented batches; batch number k is the same whenever it is asked for."""

    def __init__(self, pairs: list[Pair], plan: Plan, device: torch.device) -> None:
        self.pairs, self.plan, self.device = pairs, plan, device
        self.weights = sampling_weights([pair.source for pair in pairs], plan.source_power)
        self.size, self.images, self.masks = 0, np.empty(0), np.empty(0)

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """Images (N, 1, S, S) float32 0..255 and soft masks (N, 1, S, S) float32 0..1."""
        size = self.plan.stage_at(step).size
        if size != self.size:
            # A quarter more than needed: augmentation enlarges, and should not invent pixels.
            self.images, self.masks = shrink(self.pairs, min(512, size * 5 // 4))
            self.size = size
        rng = np.random.default_rng([self.plan.seed, step])
        picks = rng.choice(len(self.pairs), self.plan.batch_size, p=self.weights)
        views = [augment(self.images[i], self.masks[i], size, self.plan.augmentation, rng) for i in picks]
        images, targets = (np.stack(part)[:, None] for part in zip(*views, strict=True))
        return self._tensor(images), self._tensor(targets)

    def _tensor(self, array: np.ndarray) -> Tensor:
        return torch.from_numpy(array).to(self.device).contiguous(memory_format=torch.channels_last)


def train(
    pairs: list[Pair],
    plan: Plan,
    checkpoints: Checkpoints,
    log_every: int,
    track: Tracker,
    initial: LungUNet | None = None,
) -> LungUNet:
    """Run the plan to its end and return the averaged model, in eval mode.

    Starts from ``initial``, else at random; goes on from the checkpoint, if there is one.
    """
    device = compute_device()
    trainer, batches = Trainer(plan, device, initial), Batches(pairs, plan, device)
    trainer.resume(checkpoints)
    losses: list[float] = []
    started = time.monotonic()
    while trainer.step < plan.steps:
        losses.append(trainer.update(*batches.batch(trainer.step)))
        if trainer.step % log_every == 0 or trainer.step == plan.steps:
            mean = float(np.mean(losses))
            losses.clear()
            LOG.info("step %d/%d loss %.4f %.0f s", trainer.step, plan.steps, mean, time.monotonic() - started)
            track({"loss": mean, "learning_rate": plan.rate_at(trainer.step)}, trainer.step)
            trainer.save(checkpoints)
    return trainer.average.model.eval()

"""Optimizer, learning rate over the steps, and the moving average of the weights, for every training."""

import copy
import math
from itertools import compress
from typing import Any, Generic, TypeVar

import torch
from torch import nn

from penumo_assets.configs.train import NO_WEIGHTS, Optimizer, Scheduler, TrainConfig

Network = TypeVar("Network", bound=nn.Module)


def make_optimizer(model: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """AdamW (Loshchilov & Hutter 2019) or SGD with Nesterov momentum, in the fused implementation.

    Weights of convolutions and of the last layer decay; biases and batch norm do not. The last
    layer has groups of its own, so that the others can be held still.
    """
    parameters = weight_groups(model, config.weight_decay)
    if config.optimizer is Optimizer.sgd:
        return torch.optim.SGD(parameters, lr=config.learning_rate, momentum=0.9, nesterov=True, fused=True)
    return torch.optim.AdamW(parameters, lr=config.learning_rate, fused=True)


def weight_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """A model's parameters as an optimizer's groups: what decays and what does not, the last layer (``fc``) apart."""
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        groups.setdefault((name.startswith("fc."), parameter.ndim > 1), []).append(parameter)
    return [
        {"params": members, "weight_decay": weight_decay if decays else 0.0, "head": head}
        for (head, decays), members in groups.items()
    ]


def rate_factor(step: int, warmup: int, total: int, scheduler: Scheduler, floor: float = 0.0) -> float:
    """What the peak learning rate is multiplied by at ``step`` (from 0) of ``total``, 0 to 1.

    Linear warm-up over ``warmup`` steps, then the schedule down to ``floor`` at the end.
    """
    if step < warmup:
        return (step + 1) / warmup
    progress = (step - warmup) / max(1, total - warmup)
    shape = {
        Scheduler.cosine: 0.5 * (1 + math.cos(math.pi * progress)),
        Scheduler.linear: 1 - progress,
        Scheduler.constant: 1.0,
    }
    return floor + (1 - floor) * shape[scheduler]


def set_learning_rate(optimizer: torch.optim.Optimizer, step: int, steps_per_epoch: int, config: TrainConfig) -> None:
    """Give every group its learning rate for ``step``.

    All but the last layer stand still while they are frozen; then, if they are pretrained, they learn at a share of it
    (discriminative rates, Howard & Ruder 2018).
    """
    warmup, total = config.warmup_epochs * steps_per_epoch, config.epochs * steps_per_epoch
    rate = config.learning_rate * rate_factor(step, warmup, total, config.scheduler)
    frozen = step < config.freeze_epochs * steps_per_epoch
    share = 0.0 if frozen else 1.0 if config.pretrained == NO_WEIGHTS else config.backbone_lr_factor
    for group in optimizer.param_groups:
        group["lr"] = rate if group["head"] else rate * share


def last_layers_rate(optimizer: torch.optim.Optimizer) -> float:
    """The learning rate with which the last layer was trained last."""
    return next(float(group["lr"]) for group in optimizer.param_groups if group["head"])


class MovingAverage(Generic[Network]):
    """Exponential moving average of a model's weights and statistics (Polyak & Juditsky 1992).

    The decay grows from 0 as (1 + step) / (10 + step) up to ``decay``, so that a short training is
    not dominated by its random start. With ``decay`` 0 the average is the model itself.
    """

    def __init__(self, model: Network, decay: float) -> None:
        self.decay = decay
        self.model = copy.deepcopy(model).eval().requires_grad_(False) if decay > 0 else model
        # Looked up once: on a GPU, collecting two hundred tensors takes longer than averaging them.
        own, new = (list(each.state_dict().values()) for each in (self.model, model))
        floating = [tensor.is_floating_point() for tensor in own]
        self._averaged = list(compress(own, floating)), list(compress(new, floating))
        counts = [not each for each in floating]  # of batches, which batch norm keeps
        self._copied = list(compress(own, counts)), list(compress(new, counts))

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the model's weights after ``step``."""
        if self.decay == 0:
            return
        weight = 1 - min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(*self._averaged, weight)
        if self._copied[0]:
            torch._foreach_copy_(*self._copied)

"""Optimizer, learning rate over the steps, and the moving average of the weights."""

import copy
import math

import torch
from torch import nn

from penumo_assets.configs.train import Optimizer, Scheduler, TrainConfig


def make_optimizer(model: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """AdamW (Loshchilov & Hutter 2019) or SGD with Nesterov momentum, in the fused implementation.

    Weights of convolutions and of the last layer decay; biases and batch norm do not. The last
    layer has groups of its own (``head``: True), so that the others can be held still.
    """
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        groups.setdefault((name.startswith("fc."), parameter.ndim > 1), []).append(parameter)
    parameters = [
        {"params": members, "weight_decay": config.weight_decay if decays else 0.0, "head": head}
        for (head, decays), members in groups.items()
    ]
    if config.optimizer is Optimizer.sgd:
        return torch.optim.SGD(parameters, lr=config.learning_rate, momentum=0.9, nesterov=True, fused=True)
    return torch.optim.AdamW(parameters, lr=config.learning_rate, fused=True)


def learning_rate_factor(step: int, steps_per_epoch: int, config: TrainConfig, head: bool) -> float:
    """What ``config.learning_rate`` is multiplied by at ``step`` (from 0), 0 to 1.

    Linear warm-up, then the schedule down to 0 at the end of the last epoch. A frozen layer has 0.
    """
    if not head and step < config.freeze_epochs * steps_per_epoch:
        return 0.0
    warmup, total = config.warmup_epochs * steps_per_epoch, config.epochs * steps_per_epoch
    if step < warmup:
        return (step + 1) / warmup
    progress = (step - warmup) / max(1, total - warmup)
    if config.scheduler is Scheduler.cosine:
        return 0.5 * (1 + math.cos(math.pi * progress))
    if config.scheduler is Scheduler.linear:
        return 1 - progress
    return 1.0


def set_learning_rate(optimizer: torch.optim.Optimizer, step: int, steps_per_epoch: int, config: TrainConfig) -> None:
    """Give every group its learning rate for ``step``."""
    for group in optimizer.param_groups:
        group["lr"] = config.learning_rate * learning_rate_factor(step, steps_per_epoch, config, group["head"])


def last_layers_rate(optimizer: torch.optim.Optimizer) -> float:
    """The learning rate with which the last layer was trained last."""
    return next(float(group["lr"]) for group in optimizer.param_groups if group["head"])


class MovingAverage:
    """Exponential moving average of a model's weights and statistics (Polyak & Juditsky 1992).

    The decay grows from 0 as (1 + step) / (10 + step) up to ``decay``, so that a short training is
    not dominated by its random start. With ``decay`` 0 the average is the model itself.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.model = copy.deepcopy(model).eval().requires_grad_(False) if decay > 0 else model

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        if self.decay == 0:
            return
        weight = 1 - min(self.decay, (1 + step) / (10 + step))
        own, new = list(self.model.state_dict().values()), list(model.state_dict().values())
        floating = [i for i, tensor in enumerate(own) if tensor.is_floating_point()]
        torch._foreach_lerp_([own[i] for i in floating], [new[i] for i in floating], weight)
        for i in set(range(len(own))) - set(floating):
            own[i].copy_(new[i])

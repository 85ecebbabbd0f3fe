"""The training itself: model, loop, validation, early stopping, checkpoint. ``jobs/train`` is the program.

All chance in a step comes from (seed, epoch, step), so a step can be repeated exactly: after a
restart, and on any number of processes.
"""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel

from penumo_assets.configs.train import ClassWeighting, TrainConfig
from penumo_assets.jobs.checkpoint import Checkpoints
from penumo_assets.jobs.contract import JobError
from penumo_assets.jobs.optimisation import MovingAverage, last_layers_rate, make_optimizer, set_learning_rate
from penumo_assets.jobs.scores import validation_scores
from penumo_assets.jobs.shards import Split
from penumo_assets.jobs.train.augment import augment, draw, is_gray
from penumo_assets.jobs.train.batches import Batch, Loader, epoch_batches
from penumo_assets.jobs.train.distributed import World, share_batch_norm
from penumo_assets.jobs.train.precision import precision_of
from penumo_assets.jobs.train.progress import Progress, report
from penumo_assets.models.inputs import default_normalisation, standardise, to_unit_images

LOSS_CHECK_STEPS = 25
EVALUATION_BATCH = 128


class Training:
    """One training of ``model`` on two splits.

    ``normalisation`` is what the weights that ``model`` starts from want, else the default.
    ``stop_requested`` is asked between steps; when it says yes a checkpoint is written and JobError raised.
    """

    def __init__(
        self,
        model: nn.Module,
        config: TrainConfig,
        train: Split,
        validation: Split,
        world: World,
        checkpoints: Checkpoints,
        stop_requested: Callable[[], bool] = lambda: False,
        normalisation: dict[str, list[float]] | None = None,
    ) -> None:
        self.config, self.world, self.checkpoints, self.stop_requested = config, world, checkpoints, stop_requested
        self.train_split, self.validation_split = train, validation
        self.progress = Progress()
        self.normalisation = normalisation or default_normalisation(config.input_channels)
        self.precision = precision_of(config.amp, world.device)
        self.model = model.to(world.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        if world.size > 1 and config.sync_batch_norm:
            self.model = share_batch_norm(self.model, world.device)
        self.average = MovingAverage(self.model, config.ema_decay)
        self.optimizer = make_optimizer(self.model, config)
        self.scaler = torch.amp.GradScaler(world.device.type, enabled=self.precision is torch.float16)
        self.class_weights = _class_weights(train, config.class_weighting)
        self._losses_weights = self.class_weights.to(world.device)
        self.network: nn.Module = self.model
        if config.compile:
            self.network = torch.compile(self.network)  # type: ignore[assignment]
        if world.size > 1:
            ids = [world.device.index] if world.device.type == "cuda" else None
            self.network = DistributedDataParallel(self.network, device_ids=ids)
        self.steps_per_epoch = len(epoch_batches(len(train), config.batch_size, config.seed, 1))

    def run(self, after_epoch: Callable[[dict[str, Any]], None]) -> Progress:
        """Train to the last epoch or until early stopping; ``after_epoch`` gets each epoch's figures, once."""
        while not self.progress.finished:
            record = self._epoch()
            self.progress.history.append(record)
            if self.progress.judge(record, self.config) and self.world.is_main:
                self.checkpoints.save_best(self.average.model.state_dict(), self.progress.epoch)
            self.progress.epoch, self.progress.step = self.progress.epoch + 1, 0
            self.progress.loss_sum = self.progress.seconds = 0.0
            if self.world.is_main:
                report(record)
                after_epoch(record)
            self._checkpoint()
        return self.progress

    def resume(self) -> bool:
        """Go on from the checkpoint, if there is one: the first process's, for only that one writes any."""
        state = self.world.from_main(self.checkpoints.load)
        if state is None:
            return False
        self.model.load_state_dict(state["model"])
        self.average.model.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        torch.set_rng_state(state["torch_rng"])
        if self.world.device.type == "cuda" and state["cuda_rng"] is not None:  # None: the CPU wrote it
            torch.cuda.set_rng_state(state["cuda_rng"])
        self.progress = Progress(**state["progress"])
        if not self.world.is_main:
            self.progress.loss_sum = 0.0  # what is saved is the sum of all
        return True

    def best_model(self) -> nn.Module:
        """The network with the weights of the best epoch, in evaluation mode."""
        best = self.progress.best_epoch
        self.average.model.load_state_dict(self.world.from_main(lambda: self.checkpoints.load_best(best)))
        return self.average.model.eval()

    def predict(self, model: nn.Module, split: Split) -> np.ndarray:
        """Probabilities (n, classes) float64 of every image of ``split``, in every process.

        Computed in float32 whatever the training's precision, as the model will be served.
        """
        model.eval()
        rows = np.arange(len(split))
        batches = np.array_split(rows, max(1, math.ceil(len(rows) / EVALUATION_BATCH)))
        loader = Loader(split, self.world.rank, self.world.size, self.config.num_workers, self._pin)
        parts = []
        with torch.inference_mode():
            for batch in loader(batches):
                if len(batch.images) == 0:
                    continue
                logits = model(self._inputs(batch.images))
                parts.append((batch.position, logits.double().softmax(dim=1).cpu().numpy()))
        own = dict(parts)
        gathered = self.world.gather(own)
        merged: list[np.ndarray] = []
        for number in range(len(batches)):
            merged.extend(part[number] for part in gathered if number in part)
        return np.concatenate(merged)

    def _epoch(self) -> dict[str, Any]:
        progress, config = self.progress, self.config
        batches = epoch_batches(len(self.train_split), config.batch_size, config.seed, progress.epoch)
        loader = Loader(self.train_split, self.world.rank, self.world.size, config.num_workers, self._pin)
        self._train_mode()
        loss_sum = torch.zeros((), device=self.world.device, dtype=torch.float64)
        started = time.perf_counter()
        for batch in loader(batches, progress.step):
            loss_sum += self._step(batch)
            progress.step += 1
            if progress.step % LOSS_CHECK_STEPS == 0 or progress.step == len(batches):
                self._refuse_nan(loss_sum)
            stop = self._stop_agreed()
            if stop or (config.checkpoint_steps and progress.step % config.checkpoint_steps == 0):
                progress.loss_sum += float(loss_sum)
                progress.seconds += time.perf_counter() - started
                loss_sum.zero_()
                started = time.perf_counter()
                self._checkpoint()
            if stop:
                raise JobError(f"stopped in epoch {progress.epoch} after step {progress.step}; a checkpoint is written")
        progress.loss_sum += float(loss_sum)
        progress.seconds += time.perf_counter() - started
        total = sum(self.world.gather(progress.loss_sum)) / len(batches)
        probabilities = self.predict(self.average.model, self.validation_split)
        if not np.isfinite(probabilities).all():
            raise JobError(f"the network answers NaN after epoch {progress.epoch}: lower learning_rate")
        scores = validation_scores(self.validation_split.targets, probabilities)
        return {
            "epoch": progress.epoch,
            "train_loss": total,
            "learning_rate": last_layers_rate(self.optimizer),
            "images_per_second": sum(len(rows) for rows in batches) / progress.seconds,
            **{f"validation_{name}": value for name, value in scores.items()},
        }

    def _step(self, batch: Batch) -> torch.Tensor:
        """One optimizer step; returns this process's share of the batch's mean loss."""
        config, done = self.config, (self.progress.epoch - 1) * self.steps_per_epoch + self.progress.step
        set_learning_rate(self.optimizer, done, self.steps_per_epoch, config)
        seed = [config.seed, self.progress.epoch, self.progress.step]
        generator = torch.Generator().manual_seed(int(np.random.SeedSequence(seed).generate_state(1)[0]))
        uniform = draw(len(batch.everyone), generator)[batch.first : batch.first + len(batch.images)]
        images = self._inputs(batch.images, uniform)
        targets = self._sent(batch.targets)
        share, other = 1.0, targets
        if config.mixup > 0:  # pairs are made within a process
            share = float(np.random.default_rng(seed).beta(config.mixup, config.mixup))
            images, other = images.lerp(images.flip(0), 1 - share), targets.flip(0)
        with self._autocast():
            logits = self.network(images)
        losses = share * self._losses(logits.float(), targets)
        if config.mixup > 0:
            losses = losses + (1 - share) * self._losses(logits.float(), other)
        # The mean over the global batch; DistributedDataParallel averages over processes.
        loss = losses.sum() / float(self.class_weights[batch.everyone].sum())
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(loss * self.world.size).backward()
        if config.gradient_clip > 0:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.model.parameters(), config.gradient_clip)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.average.update(done)
        return loss.detach().double()

    def _losses(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        smoothing = self.config.label_smoothing
        return functional.cross_entropy(
            logits, targets, weight=self._losses_weights, label_smoothing=smoothing, reduction="none"
        )

    def _sent(self, tensor: torch.Tensor) -> torch.Tensor:
        """On the device; a GPU fetches it from pinned memory, because it would have to wait for anything else."""
        if self._pin and not tensor.is_pinned():
            tensor = tensor.pin_memory()
        return tensor.to(self.world.device, non_blocking=True)

    def _inputs(self, images: torch.Tensor, uniform: torch.Tensor | None = None) -> torch.Tensor:
        """uint8 batch -> what the network takes, augmented if ``uniform`` is given; all on the device."""
        config = self.config
        batch = to_unit_images(self._sent(images), config.input_channels, config.resolution)
        if uniform is not None:
            batch = augment(batch, self._sent(uniform), config.augment, gray=is_gray(images))
        return standardise(batch, self.normalisation)

    def _checkpoint(self) -> None:
        loss_sum = sum(self.world.gather(self.progress.loss_sum))
        if self.world.is_main:
            self.checkpoints.save(
                {
                    "model": self.model.state_dict(),
                    "average": self.average.model.state_dict(),
                    "optimizer": self.optimizer.state_dict(),
                    "scaler": self.scaler.state_dict(),
                    "torch_rng": torch.get_rng_state(),
                    "cuda_rng": torch.cuda.get_rng_state() if self.world.device.type == "cuda" else None,
                    "progress": asdict(self.progress) | {"loss_sum": loss_sum},
                },
                self.progress.best_epoch,
            )
        self.world.gather(None)  # nobody runs ahead of a checkpoint

    def _train_mode(self) -> None:
        self.network.train()
        if self.progress.epoch <= self.config.freeze_epochs:
            for module in self.model.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()

    def _stop_agreed(self) -> bool:
        """Has any process been asked to stop? Several agree every few steps, because asking costs a message."""
        if self.world.size == 1:
            return self.stop_requested()
        return self.progress.step % LOSS_CHECK_STEPS == 0 and any(self.world.gather(self.stop_requested()))

    def _refuse_nan(self, loss_sum: torch.Tensor) -> None:
        if not math.isfinite(sum(self.world.gather(float(loss_sum)))):
            raise JobError(
                f"the loss is not a number in epoch {self.progress.epoch}, by step {self.progress.step}: "
                "lower learning_rate, lengthen warmup_epochs, or train with amp=fp32"
            )

    @property
    def _pin(self) -> bool:
        return self.world.device.type == "cuda"

    @contextmanager
    def _autocast(self) -> Iterator[None]:
        enabled = self.precision is not torch.float32
        with torch.autocast(self.world.device.type, dtype=self.precision if enabled else None, enabled=enabled):
            yield


def _class_weights(split: Split, weighting: ClassWeighting) -> torch.Tensor:
    """(classes,) float32: n / (classes * images of the class), or ones."""
    classes = len(split.dataset.classes)
    if weighting is ClassWeighting.none:
        return torch.ones(classes)
    counts = torch.bincount(torch.from_numpy(split.targets), minlength=classes)
    return len(split) / (classes * counts.float())

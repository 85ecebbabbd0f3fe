"""Training: what loading costs, and what the step gains. All figures are ratios taken in one run.

    python benchmarks/training.py                     # loader and step on this machine's CPU or GPU
    python benchmarks/training.py --only loader
    python benchmarks/training.py --epochs            # epochs as trained, against torch alone on one batch

Variants are measured in turn within each round, so that a busy machine disturbs all of them alike; the median
over rounds counts. On a CPU the clock is the process's CPU time, which other processes do not stretch.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import nn
from torch.nn import functional

from penumo_assets.configs.train import MixedPrecision, TrainConfig
from penumo_assets.jobs.checkpoint import Checkpoints
from penumo_assets.jobs.optimisation import make_optimizer
from penumo_assets.jobs.shards import INDEX_COLUMNS, DatasetFile, Split, SplitCounts
from penumo_assets.jobs.train.batches import Loader, epoch_batches
from penumo_assets.jobs.train.distributed import World
from penumo_assets.jobs.train.fit import Training
from penumo_assets.jobs.train.precision import precision_of
from penumo_assets.models.classifier import build_classifier
from penumo_assets.models.inputs import default_normalisation, standardise, to_unit_images

NORMALISATION = default_normalisation(4)
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def smooth_images(count: int) -> np.ndarray:
    """(count, 224, 224, 4) uint8 that compress about as well as radiographs do."""
    rng = np.random.default_rng(0)
    coarse = torch.from_numpy(rng.normal(120, 40, (count, 1, 28, 28)).astype(np.float32))
    gray = functional.interpolate(coarse, size=224, mode="bicubic")[:, 0].numpy() + rng.normal(0, 3, (count, 224, 224))
    gray = np.clip(gray, 0, 255).astype(np.uint8)
    mask = np.where(gray > 120, 255, 0).astype(np.uint8)
    return np.stack([gray, gray, gray, mask], axis=-1)


def make_split(folder: Path, count: int) -> Split:
    """A packed split of ``count`` images."""
    folder.mkdir(parents=True)
    unique = smooth_images(min(count, 256))
    shard = np.lib.format.open_memmap(folder / "shard-00000.npy", "w+", np.uint8, (count, 224, 224, 4))
    for start in range(0, count, len(unique)):
        shard[start : start + len(unique)] = unique[: count - start]
    shard.flush()
    values: dict[str, object] = dict.fromkeys(INDEX_COLUMNS, "")
    values |= {"shard": 0, "row": np.arange(count), "target": np.arange(count) % 2}
    pd.DataFrame(values).to_parquet(folder / "index.parquet")
    counts = SplitCounts(images=count, patients=count, counts={"normal": count // 2, "pneumonia": count // 2})
    dataset = DatasetFile(
        classes=["normal", "pneumonia"],
        positive_class="pneumonia",
        splits={"train": counts},
        image_shape=[224, 224, 4],
        salt="",
        fractions={},
        cohorts=[],
        digest="",
    )  # type: ignore[call-arg]
    (folder / "dataset.json").write_text(dataset.model_dump_json(by_alias=True))
    return Split(folder)


def clock() -> float:
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time()


def seconds_per_call(variants: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median seconds of each variant, measured in turn after one call to warm up."""
    taken: dict[str, list[float]] = {name: [] for name in variants}
    for number in range(rounds + 1):
        for name, call in variants.items():
            start = clock()
            call()
            if number:
                taken[name].append(clock() - start)
    return {name: statistics.median(values) for name, values in taken.items()}


def measure_loader(split: Split, npz: Path, batch_size: int, workers: int, rounds: int) -> dict[str, float]:
    """CPU seconds per batch with the same workers: shards, and np.load of compressed NPZ files.

    All files are in the page cache, so CPU time decides how fast either can be.
    """
    paths = [npz / f"{i}.npz" for i in range(4 * batch_size)]
    for path, image in zip(paths, split.gather(np.arange(len(paths))), strict=True):
        np.savez_compressed(path, image=image)
    print(f"compressed NPZ: {statistics.mean(path.stat().st_size for path in paths) / 1000:.0f} KB an image")
    rng = np.random.default_rng(0)
    batches = [rng.permutation(len(paths))[:batch_size] for _ in range(8)]

    loader = Loader(split, workers=workers)

    def from_shards() -> None:
        for batch in loader(batches):
            assert len(batch.images) == batch_size

    def from_npz() -> None:
        with ThreadPoolExecutor(workers) as pool:
            for rows in batches:
                images = np.stack(list(pool.map(lambda row: np.load(paths[row])["image"], rows)))
                assert len(torch.from_numpy(images)) == batch_size

    taken: dict[str, list[float]] = {"shards": [], "npz": []}
    for _ in range(rounds):
        for name, call in (("shards", from_shards), ("npz", from_npz)):
            start = time.process_time()
            call()
            taken[name].append((time.process_time() - start) / len(batches))
    return {name: statistics.median(values) for name, values in taken.items()}


def plain_inputs(images: torch.Tensor) -> torch.Tensor:
    """uint8 NHWC -> contiguous NCHW float32, normalised: what one writes first."""
    values = images.to(DEVICE).permute(0, 3, 1, 2).contiguous().float() / 255
    mean, std = (torch.tensor(NORMALISATION[name], device=DEVICE).view(1, -1, 1, 1) for name in ("mean", "std"))
    return (values - mean) / std


def our_inputs(images: torch.Tensor) -> torch.Tensor:
    return standardise(to_unit_images(images.to(DEVICE, non_blocking=True), 4, 224), NORMALISATION)


def make_step(
    architecture: str,
    images: torch.Tensor,
    inputs: Callable[[torch.Tensor], torch.Tensor],
    *,
    channels_last: bool,
    fused: bool,
    dtype: torch.dtype = torch.float32,
    compiled: bool = False,
) -> Callable[[], object]:
    """A training step on ``images``: forward, backward, AdamW."""
    torch.manual_seed(0)
    model: nn.Module = build_classifier(architecture, 2, 4).to(DEVICE)
    if channels_last:
        model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = (
        make_optimizer(model, TrainConfig.defaults()) if fused else torch.optim.AdamW(model.parameters(), foreach=False)
    )
    network: Callable[[torch.Tensor], torch.Tensor] = torch.compile(model) if compiled else model  # type: ignore[assignment]
    targets = (torch.arange(len(images)) % 2).to(DEVICE)

    def step() -> None:
        with torch.autocast(DEVICE.type, dtype=dtype, enabled=dtype is not torch.float32):
            logits = network(inputs(images))
        optimizer.zero_grad(set_to_none=True)
        functional.cross_entropy(logits.float(), targets).backward()
        optimizer.step()

    return step


def measure_steps(architecture: str, images: torch.Tensor, rounds: int, compiled: bool) -> dict[str, float]:
    """Seconds per step: plain eager fp32 contiguous, and ours."""
    ours = {"channels_last": True, "fused": True, "dtype": precision_of(MixedPrecision.auto, DEVICE)}
    variants = {
        "plain": make_step(architecture, images, plain_inputs, channels_last=False, fused=False),
        "ours": make_step(architecture, images, our_inputs, **ours),
    }
    if compiled:
        variants["ours, compiled"] = make_step(architecture, images, our_inputs, **ours, compiled=True)
    return seconds_per_call(variants, rounds)


def measure_epochs(split: Split, architecture: str, config: TrainConfig, rounds: int) -> dict[str, float]:
    """Images per second of the training's own epochs, and of torch's steps on one batch that stays where it is."""
    batches = epoch_batches(len(split), config.batch_size, config.seed, 1)
    with tempfile.TemporaryDirectory() as folder:
        network = build_classifier(architecture, 2, config.input_channels)
        checkpoints = Checkpoints(Path(folder), architecture)
        training = Training(network, config, split, split, World(0, 1, DEVICE), checkpoints)
        undecided = np.full((len(split), 2), 0.5)
        training.predict = lambda *_: undecided  # type: ignore[method-assign]  # an epoch's steps are compared
        fixed = our_inputs(torch.from_numpy(split.gather(batches[0])))
        dtype = precision_of(config.amp, DEVICE)
        step = make_step(architecture, fixed, lambda images: images, channels_last=True, fused=True, dtype=dtype)

        def epoch() -> None:
            training.progress.step = 0
            training._epoch()

        seconds = seconds_per_call({"synthetic": lambda: [step() for _ in batches], "epoch": epoch}, rounds)
    return {name: sum(map(len, batches)) / value for name, value in seconds.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=("loader", "step"), help="measure one of them")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--threads", type=int, default=0, help="torch's threads; 0: its default")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--compile", action="store_true", help="also the compiled step (minutes to compile on a CPU)")
    parser.add_argument("--epochs", action="store_true", help="epochs as they are trained, against torch on one batch")
    parser.add_argument("--architecture", default="resnet34", help="of --epochs (default: %(default)s)")
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    print(
        f"device {torch.cuda.get_device_name() if DEVICE.type == 'cuda' else 'cpu'}, threads {torch.get_num_threads()}"
    )
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        if arguments.epochs:
            config = TrainConfig.parse({"batch_size": arguments.batch_size, "num_workers": arguments.workers})
            split = make_split(folder / "train", 8 * arguments.batch_size)
            rates = measure_epochs(split, arguments.architecture, config, arguments.rounds)
            share = 100 * rates["epoch"] / rates["synthetic"]
            print(
                f"{arguments.architecture}, images/s: {rates['epoch']:.1f} in epochs, {rates['synthetic']:.1f} in ",
                end="",
            )
            print(f"torch's steps on one batch, {share:.1f} %  (target >= 95 %)")
            return
        split = make_split(folder / "train", max(512, 4 * arguments.batch_size))
        loading = steps = None
        if arguments.only != "step":
            (folder / "npz").mkdir()
            loading = measure_loader(
                split, folder / "npz", arguments.batch_size, arguments.workers, max(5, arguments.rounds)
            )
            print(f"loader, CPU time: {1e3 * loading['shards']:.2f} ms a batch of {arguments.batch_size}, ", end="")
            print(f"np.load {1e3 * loading['npz']:.1f} ms: {loading['npz'] / loading['shards']:.1f}x  (target >= 10x)")
        if arguments.only != "loader":
            images = torch.from_numpy(split.gather(np.arange(arguments.batch_size)))
            steps = measure_steps("resnet34", images, arguments.rounds, arguments.compile)
            for name, value in steps.items():
                gain = steps["plain"] / value
                print(f"step of {arguments.batch_size}, {name}: {value:.3f} s, {gain:.2f}x plain  (target >= 1.3x)")
        if loading and steps and DEVICE.type == "cpu":
            share = loading["shards"] / steps["ours"]
            print(f"loader's CPU time beside a ResNet34 step's: {100 * share:.2f} %  (target <= 5 %)")


if __name__ == "__main__":
    main()

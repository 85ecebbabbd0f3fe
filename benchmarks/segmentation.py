"""Images per second and peak memory: the bundled lung segmenter against a plain U-Net, in one run.

    python benchmarks/segmentation.py              # ratio, images/s, memory
    python benchmarks/segmentation.py --engines    # ways to run the same network

The plain U-Net is Ronneberger et al. 2015 with padding, 64-128-256-512-1024 channels, batch
normalisation and transposed convolutions (31 million parameters), at 512x512. Each contender runs in
a process of its own, so that its peak memory is its own; the processes take turns.
"""

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from penumo_assets_tests.memory import peak_mib

SIZE = 512


def images(count: int) -> np.ndarray:
    """(count, 512, 512) uint8 with structure at every scale, the same in every process."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (count, 16, 16), dtype=np.uint8).repeat(32, 1).repeat(32, 2)
    return (coarse // 2 + rng.integers(0, 128, coarse.shape, dtype=np.uint8)).astype(np.uint8)


def plain_unet():
    """The textbook U-Net as a torch module: (N, 1, 512, 512) to logits of the same shape."""
    import torch
    from torch import nn

    def double(inputs: int, outputs: int) -> nn.Sequential:
        layers: list[nn.Module] = []
        for first in (inputs, outputs):
            layers += [nn.Conv2d(first, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]
        return nn.Sequential(*layers)

    class PlainUNet(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            widths = (64, 128, 256, 512, 1024)
            self.encoder = nn.ModuleList(double(a, b) for a, b in zip((1, *widths), widths, strict=False))
            self.raise_ = nn.ModuleList(nn.ConvTranspose2d(w, w // 2, 2, 2) for w in widths[:0:-1])
            self.decoder = nn.ModuleList(double(w, w // 2) for w in widths[:0:-1])
            self.head = nn.Conv2d(64, 1, 1)

        def forward(self, x):
            skips = []
            for level, block in enumerate(self.encoder):
                x = block(x if level == 0 else nn.functional.max_pool2d(x, 2))
                skips.append(x)
            skips.pop()
            for up, block in zip(self.raise_, self.decoder, strict=True):
                x = block(torch.cat([skips.pop(), up(x)], 1))
            return self.head(x)

    return PlainUNet().eval()


def plain_predictor() -> Callable[[np.ndarray], np.ndarray]:
    import torch

    model = plain_unet().to(memory_format=torch.channels_last)

    @torch.inference_mode()
    def predict(batch: np.ndarray) -> np.ndarray:
        tensor = torch.from_numpy(batch[:, None]).float().div(255).contiguous(memory_format=torch.channels_last)
        return model(tensor).sigmoid()[:, 0].numpy()

    return predict


def measure(name: str, threads: int, seconds: float, batch: int) -> dict[str, float]:
    """Images per second of one contender over at least ``seconds``, and its process's peak memory."""
    import torch

    torch.set_num_threads(threads)
    if name == "plain":
        predict = plain_predictor()
    else:
        from penumo_assets.imaging.segment import LungSegmenter

        predict = LungSegmenter(threads=threads).predict
    data = images(batch)
    predict(data)
    times, started = [], time.perf_counter()
    while time.perf_counter() - started < seconds or len(times) < 3:
        before = time.perf_counter()
        predict(data)
        times.append(time.perf_counter() - before)
    return {"images_per_s": batch / statistics.median(times), "peak_mib": peak_mib()}


def in_a_process(name: str, arguments: argparse.Namespace) -> dict[str, float]:
    batch = 1 if name == "plain" else arguments.batch
    flags = ["--threads", arguments.threads, "--seconds", arguments.seconds, "--batch", batch]
    command = [sys.executable, __file__, "--only", name, *map(str, flags)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def compare(arguments: argparse.Namespace) -> None:
    rounds = {"lung_unet": [], "plain": []}
    for _ in range(arguments.rounds):
        for name, results in rounds.items():
            results.append(in_a_process(name, arguments))
    print(f"{arguments.threads} threads, median of {arguments.rounds} rounds, 512x512 gray in, 512x512 out")
    rate = {}
    for name, results in rounds.items():
        rate[name] = statistics.median(r["images_per_s"] for r in results)
        memory = max(r["peak_mib"] for r in results)
        print(f"{name:>10}  {rate[name]:8.2f} images/s  {1000 / rate[name]:8.1f} ms/image  {memory:6.0f} MiB peak")
    print(f"ratio {rate['lung_unet'] / rate['plain']:.1f}x")


def engines(arguments: argparse.Namespace) -> None:
    """Time the network alone, at its working size, under each way to run it that is here."""
    import torch

    from penumo_assets.imaging.segment_engine import OnnxEngine
    from penumo_assets.imaging.segment_torch import fold_batch_norms, load_lung_unet
    from penumo_assets.imaging.segment_weights import BUNDLED, read_weights
    from penumo_assets.models.lung_unet import LungUNetConfig
    from penumo_assets.models.lung_unet_onnx import INPUT, LOGITS

    torch.set_num_threads(arguments.threads)

    class Core(torch.nn.Module):
        def __init__(self, folded: bool) -> None:
            super().__init__()
            model, _ = load_lung_unet(BUNDLED)
            self.model = fold_batch_norms(model) if folded else model

        def forward(self, x):
            return self.model.features(x)

    size = LungUNetConfig().working_size
    x = torch.randn(arguments.batch, 1, size, size)
    last = x.contiguous(memory_format=torch.channels_last)
    folded = Core(True).eval().to(memory_format=torch.channels_last)
    plain, ordered = Core(False).eval(), Core(False).eval().to(memory_format=torch.channels_last)
    ways: dict[str, Callable[[], object]] = {
        "eager": lambda: plain(x),
        "eager, channels last": lambda: ordered(last),
        "eager, channels last, folded": lambda: folded(last),
    }
    session, array = OnnxEngine(read_weights(BUNDLED)[0], arguments.threads).session, x.numpy()
    ways["ONNX Runtime"] = lambda: session.run([LOGITS], {INPUT: array})
    with torch.inference_mode():
        frozen = torch.jit.optimize_for_inference(torch.jit.trace(folded, last))
        ways["jit frozen"] = lambda: frozen(last)
        if shutil.which("g++"):
            compiled = torch.compile(folded)
            ways["torch.compile"] = lambda: compiled(last)
        for name, run in ways.items():
            for _ in range(3):
                run()
            times = []
            for _ in range(15):
                before = time.perf_counter()
                run()
                times.append(time.perf_counter() - before)
            print(f"{name:>30}  {1000 * statistics.median(times) / arguments.batch:7.2f} ms/image")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=6.0, help="least time per contender and round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch", type=int, default=8, help="images per call (the plain U-Net gets 1)")
    parser.add_argument("--engines", action="store_true", help="compare engines instead")
    parser.add_argument("--only", choices=("lung_unet", "plain"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.only:
        print(json.dumps(measure(arguments.only, arguments.threads, arguments.seconds, arguments.batch)))
    elif arguments.engines:
        engines(arguments)
    else:
        compare(arguments)


if __name__ == "__main__":
    main()

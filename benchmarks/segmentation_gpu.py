"""The lung segmenter on a GPU against the same on the CPU: the same masks, and how many films a second.

    python benchmarks/segmentation_gpu.py FILMS                  # a folder of chest films, at any depth
    python benchmarks/segmentation_gpu.py FILMS --device cpu     # torch on the CPU instead of a GPU

A film agrees where its two masks differ nowhere but within one pixel of the border; the goal is 99.9 % of films.
Rates are of `LungSegmenter`'s engines, from gray films in memory to probabilities in memory, the median of the rounds;
the plain U-Net of segmentation.py runs on the same device.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.segmentation import plain_unet
from penumo_assets.configs.prepare import DecodeConfig, SegmentConfig
from penumo_assets.imaging.decode import decode_image
from penumo_assets.imaging.errors import ImageRejected
from penumo_assets.imaging.letterbox import Letterbox
from penumo_assets.imaging.lung_mask import clean_mask
from penumo_assets.imaging.segment import segmentable
from penumo_assets.imaging.segment_engine import BATCH, Engine, OnnxEngine
from penumo_assets.imaging.segment_torch import TorchEngine
from penumo_assets.imaging.segment_weights import BUNDLED, read_weights

BATCHES = (1, BATCH, 32, 128)
Content = tuple[slice, slice]


def read_films(folder: Path) -> Iterator[tuple[np.ndarray, Content]]:
    """(512, 512) uint8 letterboxed films and where each lies in its square; what is no film is left out."""
    for path in sorted(folder.rglob("*")):
        if not path.is_file():
            continue
        try:
            image = decode_image(path.read_bytes(), DecodeConfig.defaults()).pixels
        except ImageRejected:
            continue
        letterbox = Letterbox.fit(*image.shape[:2])
        yield segmentable(letterbox.apply(image), on_gray=True)[0], letterbox.content


def masks(engine: Engine, films: np.ndarray, contents: list[Content], batch: int) -> tuple[np.ndarray, np.ndarray]:
    """(N, 512, 512) uint8 {0, 255} masks, and (N, 512, 512) float32 probabilities."""
    seen = [engine.see(films[start : start + batch]).probabilities for start in range(0, len(films), batch)]
    probabilities = np.concatenate(seen)
    threshold = SegmentConfig.defaults().threshold
    drawn = [clean_mask(film, content, threshold) for film, content in zip(probabilities, contents, strict=True)]
    return np.stack(drawn), probabilities


def far_from_border(one: np.ndarray, other: np.ndarray) -> int:
    """Pixels at which two masks differ, further than one pixel from the border of the first."""
    kernel = np.ones((3, 3), np.uint8)
    border = cv2.dilate(one, kernel) != cv2.erode(one, kernel)
    return int(np.count_nonzero((one != other) & ~border))


def compare(cpu: Engine, gpu: Engine, films: np.ndarray, contents: list[Content]) -> None:
    ours, theirs = (masks(engine, films, contents, BATCH) for engine in (cpu, gpu))
    far = np.array([far_from_border(*pair) for pair in zip(ours[0], theirs[0], strict=True)])
    differing = [int(np.count_nonzero(a != b)) for a, b in zip(ours[0], theirs[0], strict=True)]
    agree = np.count_nonzero(far == 0)
    print(
        f"{len(films)} films: {100 * agree / len(films):.2f} % within one pixel of the border (goal 99.9 %); ", end=""
    )
    print(f"{differing.count(0)} masks equal, else at most {max(differing)} pixels; ", end="")
    print(f"probabilities differ by {np.abs(ours[1] - theirs[1]).max():.4f} at most")


def plain_engine(device: torch.device) -> Callable[[np.ndarray], np.ndarray]:
    model = plain_unet().to(device, memory_format=torch.channels_last)

    @torch.inference_mode()
    def see(films: np.ndarray) -> np.ndarray:
        batch = torch.from_numpy(films[:, None]).to(device).float().div(255)
        return model(batch.contiguous(memory_format=torch.channels_last)).sigmoid()[:, 0].cpu().numpy()

    return see


def rate(see: Callable[[np.ndarray], object], films: np.ndarray, rounds: int) -> float:
    """Films a second; every call ends with its results in memory, so the clock is right for a GPU too."""
    see(films)
    taken = []
    for _ in range(rounds):
        before = time.perf_counter()
        see(films)
        taken.append(time.perf_counter() - before)
    return len(films) / statistics.median(taken)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("films", type=Path)
    parser.add_argument("--device", default="cuda", help="torch's device (default: %(default)s)")
    parser.add_argument("--threads", type=int, help="of the CPU, for the engine there (default: all cores)")
    parser.add_argument("--rounds", type=int, default=20)
    arguments = parser.parse_args()
    device, tensors = torch.device(arguments.device), read_weights(BUNDLED)[0]
    images, contents = map(list, zip(*read_films(arguments.films), strict=True))
    films = np.stack(images)
    cpu, gpu = OnnxEngine(tensors, arguments.threads), TorchEngine(tensors, arguments.device)
    print(f"{torch.cuda.get_device_name(device) if device.type == 'cuda' else device}, torch {torch.__version__}")
    compare(cpu, gpu, films, contents)
    some = np.resize(films, (max(BATCHES), *films.shape[1:]))
    print(f"ONNX Runtime on the CPU: {rate(cpu.see, some[:BATCH], arguments.rounds):.0f} films/s")
    plain = plain_engine(device)
    for batch in BATCHES:
        ours = rate(gpu.see, some[:batch], arguments.rounds)
        theirs = rate(plain, some[:batch], arguments.rounds) if batch <= BATCH else float("nan")
        print(f"{device}, {batch} together: {ours:.0f} films/s; a plain U-Net {theirs:.0f}")


if __name__ == "__main__":
    main()

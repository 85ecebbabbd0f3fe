"""The two baselines of benchmarks/prepare.py, each as one process or several, which work when told to.

    python benchmarks/prepare_baselines.py {script|monai} TASK.json

`script` is what an engineer writes with OpenCV, pydicom and NumPy; `monai` is the same with MONAI's transforms at
the settings that were found fastest (Pillow's reader, area interpolation, no lazy resampling). Both take one image
at a time from a file to its tensor, and write the same files as the job when asked to.
"""

import json
import multiprocessing
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pydicom

SIZE, OUT = 512, 224
_work: Callable[[str, str, str], None]


def letterboxed(image: np.ndarray) -> tuple[np.ndarray, tuple[slice, slice]]:
    height, width = image.shape
    scale = SIZE / max(height, width)
    new_height, new_width = round(height * scale), round(width * scale)
    top, left = (SIZE - new_height) // 2, (SIZE - new_width) // 2
    square = np.zeros((SIZE, SIZE), image.dtype)
    resized = cv2.resize(image, (new_width, new_height), interpolation=cv2.INTER_AREA)
    square[top : top + new_height, left : left + new_width] = resized
    return square, (slice(top, top + new_height), slice(left, left + new_width))


def lung_box(mask: np.ndarray, content: tuple[slice, slice]) -> tuple[int, int, int, int]:
    """The lungs with 5 % margin, widened to a square that stays on the content: top, left, bottom, right."""
    left, top, width, height = cv2.boundingRect(mask)
    rows, columns = round(height * 0.05), round(width * 0.05)
    limits = content[0].start, content[1].start, content[0].stop, content[1].stop
    top, left, bottom, right = (
        max(limits[0], top - rows),
        max(limits[1], left - columns),
        min(limits[2], top + height + rows),
        min(limits[3], left + width + columns),
    )
    side = max(bottom - top, right - left)
    top = min(max(top - (side - (bottom - top)) // 2, 0), SIZE - side)
    left = min(max(left - (side - (right - left)) // 2, 0), SIZE - side)
    return top, left, top + side, left + side


def read_dicom(path: str) -> np.ndarray:
    dataset = pydicom.dcmread(path)
    pixels = pydicom.pixels.apply_voi_lut(dataset.pixel_array, dataset)
    low, high = pixels.min(), pixels.max()
    return ((pixels - low) / (high - low) * 65535).astype(np.uint16)


def contrast(image: np.ndarray) -> np.ndarray:
    """CLAHE of 8 bits; deeper images are reduced to 8 bits first, as scripts do."""
    image = image if image.dtype == np.uint8 else (image / 257).astype(np.uint8)
    return cv2.createCLAHE(2.0, (8, 8)).apply(image)


def save(target: str, stage: str, image: np.ndarray) -> None:
    cv2.imwrite(f"{target}.{stage}.png", image)


def segmenter_of(task: dict[str, Any]) -> Callable[[np.ndarray, tuple[slice, slice]], np.ndarray] | None:
    """The package's own segmenter, one image at a time."""
    if not task["segment"]:
        return None
    from penumo_assets.imaging.formats.decoded import eight_bit
    from penumo_assets.imaging.lung_mask import clean_mask
    from penumo_assets.imaging.segment import LungSegmenter

    segmenter = LungSegmenter(threads=task["threads"])
    return lambda square, content: clean_mask(segmenter.predict(eight_bit(square)[None])[0], content)


def script(task: dict[str, Any]) -> Callable[[str, str, str], None]:
    segment = segmenter_of(task)

    def one(path: str, mask_path: str, target: str) -> None:
        image = read_dicom(path) if path.endswith(".dcm") else cv2.imread(path, cv2.IMREAD_GRAYSCALE)
        square, content = letterboxed(image)
        mask = segment(square, content) if segment else cv2.imread(mask_path, cv2.IMREAD_GRAYSCALE)
        top, left, bottom, right = lung_box(mask, content)
        cropped = cv2.GaussianBlur(contrast(square[top:bottom, left:right]), (3, 3), 0.8)
        low, high = np.percentile(cropped, [0.5, 99.5])
        stretched = np.clip((cropped.astype(np.float32) - low) / (high - low) * 255, 0, 255).round().astype(np.uint8)
        small = cv2.resize(stretched, (OUT, OUT), interpolation=cv2.INTER_AREA)
        small_mask = cv2.resize(mask[top:bottom, left:right], (OUT, OUT), interpolation=cv2.INTER_NEAREST)
        if task["files"]:
            save(target, "raw", image)
            save(target, "preprocessed", cv2.merge([small] * 3))
            if segment:
                save(target, "masks", mask)
        np.savez_compressed(f"{target}.npz", image=np.dstack([small, small, small, small_mask]))

    return one


def monai(task: dict[str, Any]) -> Callable[[str, str, str], None]:
    import torch
    from monai import transforms as mt

    torch.set_num_threads(task["threads"])
    segment = segmenter_of(task)
    dicom = task["format"] in ("dicom", "jpeg2000")
    load = mt.Compose(
        [
            mt.LoadImage(reader="PydicomReader" if dicom else "PILReader", image_only=True, ensure_channel_first=True),
            *([mt.ScaleIntensityRange(*task["window"], 0, 65535, clip=True)] if dicom else []),
            mt.Lambda(lambda image: image[:1] if image.shape[0] < 3 else image[:3].mean(0, keepdim=True)),
        ]
    )
    shrink = mt.Resize(SIZE, size_mode="longest", mode="area")
    pad = mt.SpatialPad((SIZE, SIZE), method="symmetric")
    load_mask = mt.LoadImage(reader="PILReader", image_only=True, ensure_channel_first=True)
    enhance = mt.Compose(
        [
            mt.Lambda(lambda image: torch.from_numpy(contrast(image[0].numpy().round().astype(np.uint8))[None])),
            mt.GaussianSmooth(sigma=0.8),
            mt.ScaleIntensityRangePercentiles(0.5, 99.5, 0, 255, clip=True),
            mt.Resize((OUT, OUT), mode="area"),
        ]
    )
    resize_mask = mt.Resize((OUT, OUT), mode="nearest")

    def one(path: str, mask_path: str, target: str) -> None:
        image = load(path)  # MONAI has columns before rows
        small = shrink(image)
        rows, columns = small.shape[2], small.shape[1]
        top, left = (SIZE - rows) // 2, (SIZE - columns) // 2
        content = slice(top, top + rows), slice(left, left + columns)
        square = pad(small) / (257 if dicom else 1)
        if segment:
            mask = torch.from_numpy(segment(square[0].numpy().T.round().astype(np.uint8), content).T.copy())[None]
        else:
            mask = load_mask(mask_path)
        top, left, bottom, right = lung_box(np.ascontiguousarray(mask[0].numpy().T.astype(np.uint8)), content)
        result = enhance(square[:, left:right, top:bottom].as_tensor())
        small_mask = resize_mask(mask[:, left:right, top:bottom])
        gray = result[0].numpy().T.round().astype(np.uint8)
        if task["files"]:
            save(target, "raw", image[0].numpy().T.astype(np.uint16 if dicom else np.uint8))
            save(target, "preprocessed", cv2.merge([gray] * 3))
            if segment:
                save(target, "masks", mask[0].numpy().T.astype(np.uint8))
        last = small_mask[0].numpy().T.astype(np.uint8)
        np.savez_compressed(f"{target}.npz", image=np.dstack([gray, gray, gray, last]))

    return one


def start(name: str, task: dict[str, Any], ready: Any = None) -> None:
    """Make this process ready: imports, models, and one image so that nothing is done for the first time later."""
    global _work
    if task["workers"] > 1:
        cv2.setNumThreads(1)
    _work = {"script": script, "monai": monai}[name](task)
    path, mask, target = task["images"][0]
    _work(path, mask, target)
    if ready is not None:
        ready.wait()


def timed(image: tuple[str, str, str]) -> float:
    before = time.process_time()
    _work(*image)
    return time.process_time() - before


def one_by_one(name: str, task: dict[str, Any]) -> Iterator[list[float]]:
    start(name, task)
    while True:
        yield [timed(tuple(image)) for image in task["images"]]


def in_parallel(name: str, task: dict[str, Any]) -> Iterator[list[float]]:
    context = multiprocessing.get_context("spawn")
    ready = context.Barrier(task["workers"] + 1)
    with context.Pool(task["workers"], initializer=start, initargs=(name, task, ready)) as pool:
        ready.wait()
        while True:
            yield list(pool.imap_unordered(timed, [tuple(image) for image in task["images"]]))


def main(name: str, task: dict[str, Any]) -> None:
    """For every line on standard input, do the task once and print how long an image took."""
    rounds = one_by_one(name, task) if task["workers"] == 1 else in_parallel(name, task)
    next(rounds)  # nothing is done for the first time in what is measured
    print("ready", flush=True)
    for _ in sys.stdin:
        began = time.perf_counter()
        cpu = next(rounds)
        seconds = time.perf_counter() - began
        print(json.dumps({"seconds": seconds / len(cpu), "cpu": sum(cpu) / len(cpu)}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], json.loads(Path(sys.argv[2]).read_text()))

"""Train the lung segmenter: X-rays with masks in, safetensors weights and a report out.

Runs under the container contract. Channel ``train`` holds ``images/``, ``masks/`` and an index
(`penumo_assets.jobs.segment_train.data`), or only the index while channels ``images`` and ``masks`` hold the files;
an optional channel ``external`` of the first form is measured on and never trained on. Training goes through
stages of growing resolution, keeps an exponential moving average of the weights, and starts again from
``/opt/ml/checkpoints`` after an interruption.
"""

import argparse
import hashlib
import json
import logging
import time
from dataclasses import asdict
from pathlib import Path

import cv2
import pandas as pd
import torch
from safetensors.torch import save

from penumo_assets.imaging.segment import LungSegmenter
from penumo_assets.imaging.segment_torch import load_lung_unet
from penumo_assets.imaging.segment_weights import BUNDLED
from penumo_assets.jobs import contract
from penumo_assets.jobs.checkpoint import Checkpoints
from penumo_assets.jobs.csv_cells import plain_row
from penumo_assets.jobs.segment_train.augment import AugmentConfig
from penumo_assets.jobs.segment_train.data import Pair, assign_folds, read_channel
from penumo_assets.jobs.segment_train.fit import Plan, Stage, train
from penumo_assets.jobs.segment_train.score import ROW_FIELDS, VARIANTS, score, summarise
from penumo_assets.jobs.training_log import TrainingLog
from penumo_assets.models.lung_unet import LungUNet, LungUNetConfig

LOG = logging.getLogger("segment_train")
WEIGHTS_NAME = "lung_unet.safetensors"
FACTS_NAME = "lung_unet.json"
METRICS = ("dice", "iou", "worst_tenth")


def parse_stages(text: str) -> tuple[Stage, ...]:
    """``"128x400,192x300"`` as two stages: 400 steps at 128 pixels, then 300 at 192."""
    try:
        stages = tuple(Stage(int(size), int(steps)) for size, steps in (part.split("x") for part in text.split(",")))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"expected SIZExSTEPS,SIZExSTEPS..., got {text!r}") from error
    stride = LungUNetConfig().stride
    if any(stage.size < stride or stage.size % stride or stage.steps < 1 for stage in stages):
        raise argparse.ArgumentTypeError(f"sizes must be multiples of {stride}, steps at least 1; got {text!r}")
    return stages


def parse_variants(text: str) -> list[str]:
    """``"as_is,inverted"`` as a list of names of `segment_score.VARIANTS`."""
    names = text.split(",")
    if unknown := [name for name in names if name not in VARIANTS]:
        raise argparse.ArgumentTypeError(f"unknown {unknown}; known are {', '.join(VARIANTS)}")
    return names


def save_weights(model: LungUNet, directory: Path, facts: dict) -> Path:
    """Write half-precision safetensors and, beside them, their digest and the facts of their training."""
    tensors = {
        name: tensor.detach().cpu().to(torch.float16).contiguous()
        for name, tensor in model.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }
    data = save(tensors, metadata={"architecture": "LungUNet", "format": "pt"})
    path = directory / WEIGHTS_NAME
    contract.write_atomic(path, data)
    facts = {"sha256": hashlib.sha256(data).hexdigest(), "architecture": model.config.as_dict(), **facts}
    contract.write_atomic(directory / FACTS_NAME, (json.dumps(facts, indent=2, allow_nan=False) + "\n").encode())
    return path


def parser() -> argparse.ArgumentParser:
    """The command line; on SageMaker the hyperparameters arrive as the same flags."""
    result = argparse.ArgumentParser(
        prog="python -m penumo_assets.jobs.segment_train",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="Without a container, name the folders by SM_CHANNEL_TRAIN, SM_CHANNEL_EXTERNAL, SM_MODEL_DIR, "
        "SM_OUTPUT_DATA_DIR and PENUMO_OPT_ML (checkpoints).",
    )
    add = result.add_argument
    add(
        "--stages",
        type=parse_stages,
        default="128x1000,160x1500,192x1500",
        metavar="SIZExSTEPS,...",
        help="resolution and batches of each stage (default: %(default)s)",
    )
    add("--batch-size", type=int, default=8, help="images per batch (default: %(default)s)")
    add("--learning-rate", type=float, default=2e-3, help="peak rate of AdamW (default: %(default)s)")
    add("--weight-decay", type=float, default=0.02, help="of the convolutions (default: %(default)s)")
    add("--ema-decay", type=float, default=0.995, help="memory of the averaged weights (default: %(default)s)")
    add(
        "--source-power",
        type=float,
        default=0.4,
        help="1 draws images alike, 0 draws sources alike (default: %(default)s)",
    )
    add(
        "--clean",
        type=float,
        default=AugmentConfig.clean,
        help="share of views that are only moved and bent (default: %(default)s)",
    )
    add(
        "--whiteout",
        type=float,
        default=AugmentConfig.whiteout,
        help="share of the other views in which one whole lung is hidden (default: %(default)s)",
    )
    add(
        "--initial",
        metavar="FILE|bundled",
        help="go on from these weights, to adapt them to new cohorts; never measure on what they were trained on",
    )
    add("--seed", type=int, default=0, help="of the start and the batches; folds never move (default: %(default)s)")
    add("--folds", type=int, default=5, help="patient-level folds (default: %(default)s)")
    add(
        "--fold",
        type=int,
        default=0,
        help="held-out fold; -1 trains on every patient and measures on none (default: %(default)s)",
    )
    add(
        "--variants",
        type=parse_variants,
        default="as_is,inverted,half_contrast",
        metavar="NAME,...",
        help=f"disturbances to measure under, of {', '.join(VARIANTS)} (default: %(default)s)",
    )
    add("--log-every", type=int, default=50, help="steps between log lines and checkpoints (default: %(default)s)")
    add("--threads", type=int, default=None, help="CPU threads (default: torch's choice)")
    return result


def plan_of(arguments: argparse.Namespace, initial_sha256: str | None = None) -> Plan:
    """The plan that the flags describe.

    Raises
    ------
    JobError
        If the fold does not exist or the batch cannot be normalised.
    """
    if not -1 <= arguments.fold < arguments.folds or arguments.folds < 2:
        raise contract.JobError(f"--fold {arguments.fold} is not one of --folds {arguments.folds} (or -1 for none)")
    if arguments.batch_size < 2:
        raise contract.JobError(f"--batch-size {arguments.batch_size}: batch normalisation needs at least 2")
    names = ("stages", "batch_size", "learning_rate", "weight_decay", "ema_decay", "source_power", "seed", "folds")
    fold = None if arguments.fold < 0 else arguments.fold
    values = {name: getattr(arguments, name) for name in names}
    augmentation = AugmentConfig(clean=arguments.clean, whiteout=arguments.whiteout)
    return Plan(**values, fold=fold, initial_sha256=initial_sha256, augmentation=augmentation)


def initial_of(arguments: argparse.Namespace) -> tuple[LungUNet, str] | tuple[None, None]:
    """The model to start from and its file's SHA-256, if ``--initial`` names one."""
    if arguments.initial is None:
        return None, None
    return load_lung_unet(BUNDLED if arguments.initial == "bundled" else Path(arguments.initial))


def divide(pairs: list[Pair], plan: Plan) -> tuple[list[Pair], list[Pair]]:
    """Training and held-out pairs; no patient is in both."""
    if plan.fold is None:
        return pairs, []
    folds = assign_folds([p.patient_id for p in pairs], [p.source for p in pairs], plan.folds)
    kept = [pair for pair, fold in zip(pairs, folds, strict=True) if fold != plan.fold]
    return kept, [pair for pair, fold in zip(pairs, folds, strict=True) if fold == plan.fold]


def given_channels(*names: str) -> list[Path | None]:
    """The folders of optional channels; None for one that was not given."""
    folders = [contract.channel(name) for name in names]
    return [folder if folder.is_dir() else None for folder in folders]


def data_digest(pairs: list[Pair]) -> str:
    """SHA-256 over names, patients, pixels and masks: the training data's identity."""
    digest = hashlib.sha256()
    for pair in sorted(pairs, key=lambda p: p.file):
        digest.update(f"{pair.file}\0{pair.patient_id}\0{pair.source}\0".encode())
        digest.update(pair.image.tobytes())
        digest.update(pair.mask.tobytes())
    return digest.hexdigest()


def counts_of(pairs: list[Pair]) -> dict[str, dict[str, int]]:
    """Images and patients per source."""
    sources = sorted({pair.source for pair in pairs})
    members = {source: [pair for pair in pairs if pair.source == source] for source in sources}
    return {s: {"images": len(m), "patients": len({p.patient_id for p in m})} for s, m in members.items()}


def evaluate(weights: Path, groups: dict[str, list[Pair]], variants: list[str]) -> dict[str, dict]:
    """Score the written file, not the model in memory; per-image rows go to ``segment_scores.csv``."""
    segmenter = LungSegmenter(weights)
    rows = [{"group": name, **row} for name, pairs in groups.items() for row in score(segmenter, pairs, variants)]
    pd.DataFrame(map(plain_row, rows), columns=["group", *ROW_FIELDS]).to_csv(
        contract.output_data_dir() / "segment_scores.csv", index=False
    )
    return {name: summarise([row for row in rows if row["group"] == name]) for name, pairs in groups.items() if pairs}


def main(argv: list[str] | None = None) -> None:
    arguments = parser().parse_args(argv)
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
        cv2.setNumThreads(arguments.threads)
    initial, initial_sha256 = initial_of(arguments)
    plan = plan_of(arguments, initial_sha256)
    pairs, refused = read_channel(contract.channel("train"), *given_channels("images", "masks"))
    for refusal in refused:
        LOG.warning("left out: %s", refusal.reason)
    kept, held_out = divide(pairs, plan)
    external = read_channel(contract.channel("external"))[0] if contract.channel("external").is_dir() else []
    shared = {p.patient_id for p in kept} & {p.patient_id for p in external}
    if shared:
        raise contract.JobError(f"{len(shared)} patients are in the channels train and external: remove them from one")
    digest = hashlib.sha256((plan.digest() + data_digest(kept)).encode()).hexdigest()
    LOG.info("training on %s; held out %s; external %s", counts_of(kept), counts_of(held_out), counts_of(external))
    started = time.monotonic()
    checkpoints, log = Checkpoints(contract.checkpoint_dir(), digest, over_others=True), TrainingLog()
    with log.run({"penumo.architecture": "LungUNet"}):
        log.parameters({f"segmenter_{name}": value for name, value in asdict(plan).items()})
        model = train(kept, plan, checkpoints, arguments.log_every, log.metrics, initial)
        facts = {"training_data": counts_of(kept), "data_sha256": data_digest(kept), "plan": asdict(plan)}
        weights = save_weights(model, contract.model_dir(), facts)
        scores = evaluate(weights, {"held_out": held_out, "external": external}, arguments.variants)
        flat = {
            f"{g}/{s}/{k}": v for g, t in scores.items() for s, r in t.items() for k, v in r.items() if k in METRICS
        }
        log.metrics(flat, plan.steps)
    values = {"sha256": json.loads((contract.model_dir() / FACTS_NAME).read_text())["sha256"], "scores": scores}
    values |= {"refused": [asdict(refusal) for refusal in refused], "mlflow_run_id": log.run_id}
    values |= {"steps": plan.steps, "seconds": round(time.monotonic() - started, 1), **facts}
    LOG.info("scores %s", json.dumps(scores))
    contract.write_result(contract.output_data_dir(), "segment_train", values)


if __name__ == "__main__":
    contract.run_program(main)

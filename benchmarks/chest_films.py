"""Is it a chest film, and does it lie as it should? What the segmenter's looks tell, and the judge of upright films.

    python benchmarks/chest_films.py DATA [--write]

DATA holds `lungs/pairs.csv`, `pneumonia/{cohort}/labels.csv` (columns file or image, patient_id, noncommercial) and
`dicom/files/`. Pictures that are no chest film are drawn, come with installed packages (scikit-image has most of them),
or lie in `dicom/files/`. Prints the tables of docs/model_card_lung_unet.md; ``--write`` fits the judge on all films
without a non-commercial licence and writes it beside the bundled weights.
"""

import argparse
import csv
import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from other_pictures import other_pictures
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from penumo_assets.configs.prepare import DecodeConfig, SegmentConfig
from penumo_assets.imaging.decode import decode_image
from penumo_assets.imaging.formats.decoded import eight_bit
from penumo_assets.imaging.letterbox import Letterbox
from penumo_assets.imaging.lung_mask import LOOKS_DISAGREE, find_lungs
from penumo_assets.imaging.segment import LungSegmenter, segmentable
from penumo_assets.imaging.segment_looks import UPRIGHT, quarters
from penumo_assets.metrics.proportions import proportion

THRESHOLDS = (0.85, 0.88, 0.90, 0.92)
CATCH, LOSE = 0.97, 0.01
LIMIT = SegmentConfig.defaults().plausibility.min_look_agreement
TURNS = {"as_is": 0, "inverted": 0, "half a turn": 2, "quarter left": 1, "quarter right": 3}


@dataclass
class Recorder:
    """Stands in the place of the judge and keeps the features it is asked about."""

    features: np.ndarray | None = None

    def rotated(self, deepest: np.ndarray) -> np.ndarray:
        self.features = quarters(deepest)
        return np.zeros(len(deepest), bool)


@dataclass
class Seen:
    source: str
    name: str
    open: bool
    agreement: float
    mask_problems: bool
    inverted: bool
    features: np.ndarray


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    segmenter = LungSegmenter(threads=1)
    segmenter.upright = recorder = Recorder()  # type: ignore[assignment]
    films: dict[str, list[Seen]] = defaultdict(list)
    for source, patient, licence_open, pixels in _films(arguments.data):
        for turn, count in TURNS.items():
            turned = np.ascontiguousarray(np.rot90(255 - pixels if turn == "inverted" else pixels, count))
            films[turn].append(_see(segmenter, recorder, turned, source, patient, licence_open))
    others = [
        _see(segmenter, recorder, pixels, kind, name, True)
        for kind, name, pixels in other_pictures(arguments.data / "dicom" / "files")
    ]
    _print_agreement(films["as_is"], others)
    _print_held_out(films["as_is"], others)
    _print_turned(films)
    judge = _fit(films, arguments.write)
    if arguments.write:
        content = {"segmenter_sha256": segmenter.digest, **judge}
        UPRIGHT.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def _films(data: Path):
    tables = [("lungs", data / "lungs" / "pairs.csv", "image")]
    tables += [(path.parent.name, path, "file") for path in sorted((data / "pneumonia").glob("*/labels.csv"))]
    for folder, path, column in tables:
        with path.open(encoding="utf-8", newline="") as lines:
            for row in csv.DictReader(lines):
                pixels = eight_bit(
                    decode_image((path.parent / row[column]).read_bytes(), DecodeConfig.defaults()).pixels
                )
                yield row.get("source", folder), row["patient_id"], row["noncommercial"] == "0", pixels


def _see(
    segmenter: LungSegmenter, recorder: Recorder, pixels: np.ndarray, source: str, name: str, licence_open: bool
) -> Seen:
    box = Letterbox.fit(*pixels.shape, 512)
    recorder.features = None
    look = segmenter.look(segmentable(box.apply(np.ascontiguousarray(pixels)), True)).film()
    problems = set(find_lungs(look, box.content, SegmentConfig.defaults()).problems) - {LOOKS_DISAGREE}
    features = np.zeros(768, np.float32) if recorder.features is None else recorder.features[0]
    return Seen(source, name, licence_open, look.agreement, bool(problems), "looks_inverted" in look.flags, features)


def _print_agreement(films: list[Seen], others: list[Seen]) -> None:
    print("\n| | pictures | originals | refused by the mask |", *(f"at {limit:.2f} |" for limit in THRESHOLDS))
    for title, seen in (("films", films), ("other pictures", others)):
        groups = {title: seen} | {name: [each for each in seen if each.source == name] for name in _names(seen)}
        for name, group in groups.items():
            shares = [np.mean([each.mask_problems or each.agreement < limit for each in group]) for limit in THRESHOLDS]
            bad = np.mean([each.mask_problems for each in group])
            cells = " | ".join(f"{share:.2%}" for share in (bad, *shares))
            print(f"| {name} | {len(group)} | {len({each.name for each in group})} | {cells} |")


def _print_held_out(films: list[Seen], others: list[Seen]) -> None:
    """What the two ways of choosing a threshold are worth on pictures that had no part in the choice.

    Kinds of other pictures, or sources of films, stand in turn for all that nobody has seen yet.
    """
    print(f"\n| held out | lowest threshold that catches {CATCH:.0%} of the other kinds | caught or lost |")
    caught, limits = np.zeros(len(others), bool), []
    for kind in _names(others):
        apart = np.array([each.source == kind for each in others])
        limits.append(np.quantile(_agreements(others)[~apart], CATCH, method="higher") + 1e-6)
        caught[apart] = _agreements(others)[apart] < limits[-1]
        print(f"| {kind} | {limits[-1]:.3f} | caught {_share(caught[apart], np.array(others)[apart])} |")
    print(f"| all kinds | | caught {_share(caught, others)} |")
    for source in ("cohen", "kermany", "nih", ""):
        chosen = [each for each in films if source in each.source]
        lost = _share(_agreements(chosen) < max(limits), chosen)
        print(f"| {source or 'all films'} | {max(limits):.3f} | lost {lost} |")
    print(f"\n| held out | highest threshold that loses {LOSE:.0%} of the other films | lost | caught |")
    for source in ("cohen", "kermany", "nih"):
        chosen = [each for each in films if source in each.source]
        seen = np.sort(_agreements([each for each in films if source not in each.source]))
        limit = seen[int(LOSE * len(seen))]
        lost, hit = _agreements(chosen) < limit, _agreements(others) < limit
        print(f"| {source} | {limit:.3f} | {_share(lost, chosen)} | {_share(hit, others)} |")


def _agreements(seen: Sequence[Seen]) -> np.ndarray:
    """(n,) agreements; -1 where the mask alone is reason enough to refuse the picture."""
    return np.array([-1.0 if each.mask_problems else each.agreement for each in seen])


def _share(hits: np.ndarray, seen: Sequence[Seen]) -> str:
    """A share with its interval; pictures of one patient, or cuts of one original, are no independent trials."""
    found = proportion(hits, np.array([each.name for each in seen]), "no picture")
    return f"{hits.sum()} of {len(hits)}, {found.value:.1%} [{found.low:.1%}, {found.high:.1%}]"


def _print_turned(films: dict[str, list[Seen]]) -> None:
    print(f"\n| films | looks inverted | refused at {LIMIT} |")
    for turn, seen in films.items():
        refused = np.mean([each.mask_problems or each.agreement < LIMIT for each in seen])
        print(f"| {turn} | {np.mean([each.inverted for each in seen]):.2%} | {refused:.2%} |")


def _fit(films: dict[str, list[Seen]], everything: bool) -> dict:
    """The judge of upright films, by logistic regression; printed is what five folds by patient say of it."""
    chosen = [(turn, each) for turn, seen in films.items() for each in seen]
    features = np.array([each.features for _, each in chosen])
    turned = np.array([TURNS[turn] > 0 for turn, _ in chosen])
    licence_open = np.array([each.open for _, each in chosen])
    patients = np.array([each.name for _, each in chosen])
    sources = np.array([each.source for _, each in chosen])
    score = np.zeros(len(chosen))
    for train, test in GroupKFold(5).split(features, turned, patients):
        train = train[licence_open[train]]
        score[test] = _regression(features[train], turned[train]).decision_function(features[test])
    apart = np.zeros(len(chosen))
    for source in sorted(set(sources)):
        test = sources == source
        train = ~test & licence_open & ~np.isin(patients, patients[test])
        apart[test] = _regression(features[train], turned[train]).decision_function(features[test])
    print("\n| looks rotated | patients held out | source held out |")
    for turn in TURNS:
        which = np.array([each == turn for each, _ in chosen])
        print(f"| {turn} | {(score[which] > 0).mean():.2%} | {(apart[which] > 0).mean():.2%} |")
    if not everything:
        return {}
    scaler, regression = (step for _, step in _regression(features[licence_open], turned[licence_open]).steps)
    weights = regression.coef_[0] / scaler.scale_
    bias = float(regression.intercept_[0] - weights @ scaler.mean_)
    counts = {name: int((licence_open & (sources == name)).sum()) // len(TURNS) for name in sorted(set(sources))}
    return {"films": counts, "bias": round(bias, 6), "weights": [float(f"{weight:.5g}") for weight in weights]}


def _regression(features: np.ndarray, turned: np.ndarray):
    regression = LogisticRegression(C=0.01, max_iter=3000, class_weight="balanced")
    return make_pipeline(StandardScaler(), regression).fit(features, turned)


def _names(seen: list[Seen]) -> list[str]:
    return sorted({each.source for each in seen})


if __name__ == "__main__":
    cv2.setNumThreads(1)
    main()

"""Whether a new model may take the champion's place: it must answer the same question, and not be worse.

Both models' predictions of the same patients are compared in pairs, so chance in who these patients are falls out.
Validation chooses: a model that ranks its patients worse stays a challenger, be it the champion's own retraining. Test
only refuses: a model that is significantly worse there.
"""

import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from penumo_assets.metrics.report.content import Report, read_report
from penumo_assets.records import ChampionRecord, ReportRecord
from penumo_assets.resources.storage.object_store import ObjectMissing, ObjectStore

if TYPE_CHECKING:
    import pandas as pd

    from penumo_assets.metrics.paired import PairedComparison


@dataclass(frozen=True)
class Verdict:
    """What the comparison with the champion says.

    ``refused`` is why the model stays a challenger, None if it need not, and ``short`` is the same in a few words.
    ``comparisons`` holds the figures of the splits of which both models scored the same patients, ``note`` why there
    are none of test.
    """

    refused: str | None = None
    short: str = ""
    comparisons: Mapping[str, "PairedComparison"] = field(default_factory=dict)
    note: str | None = None


def judge(
    store: ObjectStore, champion: ChampionRecord | None, record: ReportRecord, report: Report, margin: float
) -> Verdict:
    """Compare the model of a report with the champion; ``margin`` is in ROC-AUC.

    A model of films takes the place of one of phantoms without a comparison.
    """
    if champion is None:
        return Verdict(note="there is no champion yet")
    if champion.training_job == record.model.job_name:
        return Verdict(note="it is the champion")
    if champion.phantoms and not report.phantoms:
        return Verdict(note="the champion was trained on phantoms")
    try:
        theirs = read_report(store.read(f"{champion.report}/report.json"))
    except ObjectMissing:
        return Verdict(note=f"the champion's report, {champion.report}/report.json, is gone")
    if other := _other_contract(theirs, report):
        return Verdict(f"it answers another question than version {champion.version}: {other}", other)
    return _paired(store, champion, report, record.prefix, margin)


def _other_contract(champion: Report, challenger: Report) -> str | None:
    """What a caller of the champion would find changed: the classes, their order, or the positive one.

    What a caller sends is the same for all: a film, or a tensor (224, 224, 4), of which a model may read 3 channels.
    """
    old, new = (
        {"classes": ", ".join(report.data.classes), "positive class": report.data.positive_class or "none"}
        for report in (champion, challenger)
    )
    return "; ".join(f"{name} {old[name]} before, {new[name]} now" for name in old if old[name] != new[name]) or None


def _paired(store: ObjectStore, champion: ChampionRecord, report: Report, prefix: str, margin: float) -> Verdict:
    from penumo_assets.metrics.paired import compare_predictions  # pandas and SciPy, which definitions do without

    try:
        before, now = (_predictions(store, folder) for folder in (champion.report, prefix))
    except ObjectMissing:
        return Verdict(note="the test predictions of one of the two models are gone")
    results = {
        split: compare_predictions(before, now, list(report.data.classes), report.data.positive_class, margin, split)
        for split in ("validation", "test")
    }
    found = {split: item for split, item in results.items() if not isinstance(item, str)}
    for split, item in found.items():
        if item.worse or (split == "validation" and item.difference < -margin):
            how = "significantly below" if item.worse else "below"
            reason = (
                f"its {split} ROC-AUC of {item.challenger:.3f} is {how} the {item.champion:.3f} of version "
                f"{champion.version} on the same {item.patients} patients (difference {item.difference:.3f}, 95 % "
                f"interval {item.low:.3f} to {item.high:.3f}, margin {margin:g})"
            )
            short = f"{split} ROC-AUC {item.challenger:.3f}, {how} the champion's {item.champion:.3f}"
            return Verdict(reason, short, found)
    return Verdict(comparisons=found, note=None if "test" in found else str(results["test"]))


def _predictions(store: ObjectStore, prefix: str) -> "pd.DataFrame":
    import pandas as pd

    return pd.read_parquet(io.BytesIO(store.read(f"{prefix}/predictions.parquet")))

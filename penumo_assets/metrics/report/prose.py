"""The sentences of a report that depend on its numbers."""

from collections.abc import Sequence

from penumo_assets.metrics.report.content import Report
from penumo_assets.metrics.report.measured import ShortcutRow

WORDS = {
    "roc_auc": "ROC-AUC",
    "pr_auc": "PR-AUC",
    "ece": "ECE, calibrated",
    "ece_uncalibrated": "ECE, uncalibrated",
    "brier": "Brier score, calibrated",
    "brier_uncalibrated": "Brier score, uncalibrated",
    "f1": "F1",
    "macro_f1": "Macro F1",
    "micro_f1": "Micro F1",
    "recall": "Recall (sensitivity)",
    "precision": "Precision",
    "youden_index": "Youden's J",
    "min_roc_auc_low": "Lower bound of the test ROC-AUC",
    "min_sensitivity": "Sensitivity on test",
    "min_specificity": "Specificity on test",
    "max_ece": "Calibration error on test",
    "min_subgroup_roc_auc": "ROC-AUC of every subgroup",
    "require_no_leakage": "No leakage between splits",
    "beat_shortcuts": "No shortcut is better",
}
CHANCE = 0.5  # ROC-AUC of a guess
SMALL_TEST = 100  # patients; below, intervals are wide enough to say so in words


def words(name: str) -> str:
    """A metric, gate or reason for a person: ``implausible_mask`` becomes ``Implausible mask``."""
    if name in WORDS:
        return WORDS[name]
    text = name.replace("_", " ")
    return text[:1].upper() + text[1:]


def findings(report: Report) -> list[str]:
    """What a reader must not miss, in whole sentences."""
    lines = _no_use(report)
    better = [row for row in report.shortcuts.rows if row.verdict == "shortcut better"]
    tied = [row for row in report.shortcuts.rows if row.verdict == "not distinguishable"]
    if better:
        names = ", ".join(f"{_in_a_sentence(row.title)} ({_of(report, row)}{row.cohort})" for row in better)
        lines.append(f"Shortcuts that rank the test images better than the model: {names}.")
    if tied:
        lines.append(_tied(tied, len(report.shortcuts.rows)))
    if reversed_ := [row for row in report.shortcuts.rows if (row.shortcut_auc.high or 1.0) < CHANCE]:
        lines.append(_reversed(report, reversed_))
    test = report.performance.test
    pooled, within = test["roc_auc"].value, report.within_cohorts_roc_auc.value
    if pooled is not None and within is not None and len(report.data.cohorts) > 1:
        lines.append(
            f"Among pairs of the same cohort the ROC-AUC is {within:.3f}, over all pairs {pooled:.3f}"
            + (": part of the pooled figure comes from telling cohorts apart." if pooled - within > 0.02 else ".")
        )
    ece, before = test["ece"].value, test["ece_uncalibrated"].value
    if ece is not None and before is not None and ece > before + 0.02:
        lines.append(
            f"Calibrating made calibration on test worse (ECE {before:.3f} before, {ece:.3f} after): "
            "validation is small, or its case mix differs from test."
        )
    seen = report.explanation
    if seen and seen.energy.value is not None and seen.lungs is not None and seen.energy.value <= seen.lungs:
        lines.append(
            f"Grad-CAM lies within the lungs by {seen.energy.value:.2f} of its sum, no more than an even map "
            f"({seen.lungs:.2f}): the model does not look at the lungs more than at the rest."
        )
    if seen and seen.boxes and (seen.boxes.energy.value or 0) <= seen.boxes.even:
        lines.append(
            f"Grad-CAM lies within the readers' boxes by {seen.boxes.energy.value:.2f} of its sum, no more than an "
            f"even map ({seen.boxes.even:.2f}): the model does not look at the finding more than at the rest."
        )
    if (report.data.test_looks or 0) > 1:
        lines.append(_looks(report))
    if sum(report.data.leakage.values()):
        lines.append("Patients or images stand in more than one split: the figures are too good.")
    return lines


def _in_a_sentence(title: str) -> str:
    """A title within a sentence: abbreviations stay as they are."""
    return title[:1].lower() + title[1:]


def _of(report: Report, row: ShortcutRow) -> str:
    """The class that a shortcut tells from the rest, where there are several."""
    return f"{row.finding}, " if report.data.positive_class is None else ""


def _no_use(report: Report) -> list[str]:
    """That the model cannot be shown to rank at all, or that it calls every image the same."""
    lines, auc, confusion = [], report.performance.test["roc_auc"], report.confusion_matrix.test
    if auc.value is not None and auc.low is not None and auc.high is not None and auc.low <= CHANCE:
        lines.append(
            f"The model is not shown to rank these images better than chance: ROC-AUC {auc.value:.3f}, "
            f"{auc.low:.3f} to {auc.high:.3f}."
        )
    columns = zip(confusion.labels, *confusion.counts, strict=True)
    called = [name for name, *counts in columns if sum(counts)]
    if len(called) == 1:
        lines.append(f"Every test image is called {called[0]}: a threshold chosen on validation does not fit them.")
    return lines


def _reversed(report: Report, rows: Sequence[ShortcutRow]) -> str:
    """Shortcuts that were learnt one way and hold the other way round: beating them proves nothing."""
    names = ", ".join(
        f"{_in_a_sentence(row.title)} {1 - (row.shortcut_auc.value or 0):.2f} ({_of(report, row)}{row.cohort})"
        for row in rows
    )
    return f"Shortcuts that hold here the other way round than in training, and would then reach: {names}."


def _looks(report: Report) -> str:
    """What repeated looks at one test set do to its gates."""
    looks = report.data.test_looks or 1
    luck = 1 - ((1 + report.settings.confidence) / 2) ** looks
    return (
        f"{looks} models were measured on these test images, this one included. That one of so many passes a lower "
        f"bound that its true figure only just reaches, by luck, happens in up to {100 * luck:.0f} %."
    )


def _tied(rows: Sequence[ShortcutRow], tried: int) -> str:
    """One sentence however many shortcuts there are; the table names each with its cohort."""
    names = list(dict.fromkeys(_in_a_sentence(row.title) for row in rows))
    return (
        f"The model is not distinguishably better than {len(rows)} of {tried} shortcut baselines "
        f"({', '.join(names)}; see Shortcut baselines)."
    )


def limits(report: Report) -> list[str]:
    """Known limits, the general ones and those of this data."""
    test = report.data.splits.test
    lines = []
    if report.phantoms:
        lines.append("The images are phantoms; nothing here transfers to patients.")
    lines += [
        "Labels are taken as they come. Text-mined labels are noisy, and a model can only be measured against them.",
        "The cohort is external, and one of many hospitals: performance in the next is unknown."
        if report.external
        else "Test patients come from the same cohorts as training patients; performance elsewhere is unknown and "
        "usually lower.",
        "Subgroup figures are not adjusted for multiple comparisons, and small groups have wide intervals.",
        "Grad-CAM shows which regions moved the score. It is no proof that the model looks at disease.",
        "Prevalence in collected data is rarely that of a ward; predictive values do not transfer.",
    ]
    if test.patients < SMALL_TEST:
        lines.append(f"The test split has only {test.patients} patients: read the intervals, not the estimates.")
    absent = [name for name, count in test.counts.items() if count == 0]
    if absent:
        lines.append(f"The test split has no image of class {', '.join(absent)}; several metrics are undefined.")
    unknown = [name for name in ("sex", "age", "view") if name not in test.groups]
    if unknown:
        lines.append(f"Not known for any test image, so not looked at: {', '.join(unknown)}.")
    return lines

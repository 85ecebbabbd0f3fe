"""CLAIM's items and where the report answers them, or why it does not.

Items are numbered as in CLAIM 2024 (Tejani et al. 2024, doi:10.1148/ryai.240300), in our words; the
STARD column gives the related item of STARD 2015 (Bossuyt et al., doi:10.1136/bmj.h5527), which
STARD-AI (Sounderajah et al., Nature Medicine 2025) builds on.
"""

from collections.abc import Callable
from dataclasses import dataclass

from penumo_assets.metrics.report.content import ChecklistRow, Report
from penumo_assets.metrics.report.context import Context

Answered = Callable[[Report, Context], bool]


@dataclass(frozen=True)
class Item:
    """One item: ``section`` is the anchor that answers it, when ``answered`` says so; else ``why_not``."""

    number: int | None
    topic: str
    stard: str
    section: str | None
    why_not: str = ""
    answered: Answered = lambda report, context: True


def _told(*names: str) -> Answered:
    return lambda report, context: all(getattr(context, name) for name in names)


def _measured(report: Report, context: Context) -> bool:
    return report.performance.test["roc_auc"].low is not None


NO_FIGURES = "the test images give no ROC-AUC with an interval"
STUDY = "a statement about the study that only its owner can make; none was handed over"
PREPARATION = "how the cohorts were prepared was not handed over"
ITEMS = (
    Item(1, "Identified as a study of AI, with the kind of technology", "1", "summary"),
    Item(2, "Structured summary", "2", "summary"),
    Item(3, "Background, intended use and role", "3", "intended-use"),
    Item(4, "Aims and hypotheses", "4", "intended-use", STUDY, _told("aims")),
    Item(5, "Prospective or retrospective", "5", "intended-use", STUDY, _told("design")),
    Item(6, "Goal of the study", "4", "intended-use", STUDY, _told("aims")),
    Item(7, "Data sources", "8", "data"),
    Item(8, "Inclusion and exclusion criteria", "6", "flow", "no dataset flow was handed over", _told("flow")),
    Item(9, "Preprocessing", "10a", "data", PREPARATION, _told("prepared_with")),
    Item(10, "Selection of subsets of the data", "9", "flow", "no dataset flow was handed over", _told("flow")),
    Item(11, "De-identification", "-", "data", PREPARATION, _told("prepared_with")),
    Item(12, "Missing data", "16", "data"),
    Item(13, "Image acquisition", "8, 10a", "data", STUDY, _told("acquisition")),
    Item(14, "Definition of the reference standard", "10b", "reference-standard", STUDY, _told("reference_standard")),
    Item(15, "Rationale for the reference standard", "11", "reference-standard", STUDY, _told("reference_rationale")),
    Item(16, "Source of the annotations", "10b", "reference-standard", STUDY, _told("annotators")),
    Item(17, "Annotation of the test set", "13b", "reference-standard", STUDY, _told("annotators")),
    Item(18, "Inter- and intra-rater variability", "15", "reference-standard", STUDY, _told("rater_variability")),
    Item(19, "How data were assigned to partitions", "-", "partitions"),
    Item(20, "Level at which partitions are disjoint", "-", "partitions"),
    Item(21, "Intended sample size", "18", "partitions", STUDY, _told("sample_size")),
    Item(22, "Description of the model", "10a", "model"),
    Item(23, "Software libraries and packages", "10a", "provenance"),
    Item(
        24,
        "Initialisation of the parameters",
        "-",
        "model",
        "not in the model's metadata",
        lambda report, context: "pretrained" in report.model.hyperparameters,
    ),
    Item(
        25,
        "Training approach",
        "-",
        "model",
        "not in the model's metadata",
        lambda report, context: bool(report.model.hyperparameters),
    ),
    Item(26, "Selection of the final model", "-", "methods"),
    Item(27, "Ensembling", "-", "model"),
    Item(28, "Metrics of performance", "14", "methods"),
    Item(29, "Statistical uncertainty", "14, 17", "methods"),
    Item(30, "Robustness or sensitivity analysis", "17", None, "one training with one seed is judged, and no other"),
    Item(
        31,
        "Explainability",
        "-",
        "explanation",
        "no Grad-CAM was made of a test image",
        lambda report, context: bool(report.explanation and report.explanation.images),
    ),
    Item(
        32,
        "Evaluation on internal data",
        "-",
        "performance",
        "an external cohort is judged here; the model's own report has its test split",
        lambda report, context: report.external is None,
    ),
    Item(
        33,
        "Testing on external data",
        "-",
        "intended-use",
        "these are the training set's own cohorts: materialize external_validation",
        lambda report, context: bool(report.external or context.external_test),
    ),
    Item(34, "Clinical trial registration", "28", "intended-use", STUDY, _told("registration")),
    Item(35, "Flow: included and excluded", "19", "flow", "no dataset flow was handed over", _told("flow")),
    Item(
        36,
        "Demographics of each partition",
        "20-22",
        "data",
        "no image has sex, age or view",
        lambda report, context: bool({"sex", "age", "view"} & set(report.data.splits.test.groups)),
    ),
    Item(37, "Performance with uncertainty", "24", "performance", NO_FIGURES, _measured),
    Item(38, "Diagnostic accuracy with precision", "24", "performance", NO_FIGURES, _measured),
    Item(39, "Analysis of wrong results", "-", "failures", NO_FIGURES, _measured),
    Item(40, "Limitations", "26", "limits"),
    Item(41, "Implications for practice", "27", "intended-use"),
    Item(42, "Protocol or further technical details", "29", "provenance", STUDY, _told("protocol")),
    Item(43, "Availability of software, model and data", "-", "provenance"),
    Item(44, "Funding", "30", "provenance", STUDY, _told("funding")),
    Item(
        None,
        "Practices of building the datasets",
        "STARD-AI",
        "flow",
        "no dataset flow was handed over",
        _told("flow"),
    ),
    Item(
        None,
        "Version and evaluation of the AI index test",
        "STARD-AI",
        "provenance",
        "no code version was handed over",
        _told("code_version"),
    ),
    Item(
        None,
        "Algorithmic bias",
        "STARD-AI",
        "shortcuts",
        "no image has a feature to try",
        lambda report, context: bool(report.shortcuts.rows),
    ),
    Item(
        None,
        "Fairness between groups of patients",
        "STARD-AI",
        "subgroups",
        "no test image has sex or age",
        lambda report, context: bool({"sex", "age"} & set(report.data.splits.test.groups)),
    ),
)


def checklist(report: Report, context: Context) -> tuple[ChecklistRow, ...]:
    """One row per item: number, topic, STARD item, the section that answers it or the reason it is not answered."""
    rows = []
    for item in ITEMS:
        answered = item.section is not None and item.answered(report, context)
        rows.append(
            ChecklistRow(
                item=item.number,
                topic=item.topic,
                stard=item.stard,
                section=item.section if answered else None,
                reason=None if answered else item.why_not,
            )
        )
    return tuple(rows)

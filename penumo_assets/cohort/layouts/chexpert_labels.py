"""The columns of CheXpert's labeller, which several data sets share: 1 positive, 0 negative, -1 uncertain."""

from collections.abc import Mapping

from penumo_assets.cohort.layouts.base import NORMAL, PNEUMONIA, Uncertain

LABELS = {
    "Pneumonia = 1": PNEUMONIA,
    "No Finding = 1": NORMAL,
    "Pneumonia = -1 with u-ones": PNEUMONIA,
    "Pneumonia = -1 with u-ignore": "none",
}
_FINDINGS = (
    *("Enlarged Cardiomediastinum", "Cardiomegaly", "Lung Opacity", "Lung Lesion", "Edema", "Consolidation"),
    *("Pneumonia", "Atelectasis", "Pneumothorax", "Pleural Effusion", "Pleural Other", "Fracture"),
    *("Support Devices", "No Finding"),
)


def label_of(row: Mapping[str, object], policy: Uncertain) -> tuple[str, str]:
    """Our label of a row, by its columns in lower case, and its positive and uncertain findings in words."""
    values = {finding: _number(row.get(finding.lower().replace(" ", "_"))) for finding in _FINDINGS}
    said = [f"{'uncertain ' if value < 0 else ''}{finding}" for finding, value in values.items() if value]
    pneumonia = values["Pneumonia"]
    if pneumonia < 0:
        if policy is Uncertain.ignore:
            return "", "; ".join(said)
        pneumonia = float(policy is Uncertain.ones)
    label = PNEUMONIA if pneumonia > 0 else NORMAL if values["No Finding"] > 0 else ""
    return label, "; ".join(said)


def _number(value: object) -> float:
    try:
        return float(str(value)) if value not in (None, "") else 0.0
    except ValueError:
        return 0.0

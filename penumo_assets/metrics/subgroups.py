"""Who the images are of: the groups in which performance is looked at separately."""

import numpy as np
import pandas as pd

AGE_BANDS = ((0, 5), (5, 18), (18, 40), (40, 65), (65, 151))
UNKNOWN = "unknown"


def age_band(age: float) -> str:
    """The band of an age in years, such as ``18-39``; ``unknown`` when missing or impossible.

    >>> age_band(39.5), age_band(65), age_band(float("nan"))
    ('18-39', '65+', 'unknown')
    """
    for low, high in AGE_BANDS:
        if low <= age < high:
            return f"{low}+" if high > 150 else f"{low}-{high - 1}"
    return UNKNOWN


def subgroup_labels(index: pd.DataFrame) -> dict[str, pd.Series]:
    """For each attribute that is known for at least one image: (n,) group names, missing as ``unknown``.

    Attributes are cohort, sex, age band and view. One that no image has is left out.
    """
    groups: dict[str, pd.Series] = {}
    for column in ("cohort", "sex", "view"):
        if column in index:
            groups[column] = index[column].map(_text)
    if "age" in index:
        ages = pd.to_numeric(index["age"], errors="coerce").astype(np.float64)
        groups["age"] = ages.map(age_band)
    return {name: values for name, values in groups.items() if (values != UNKNOWN).any()}


def group_order(name: str) -> tuple[bool, int, str]:
    """Sort key: bands by their first number, then names, ``unknown`` last.

    >>> sorted(["unknown", "65+", "5-17", "18-39"], key=group_order)
    ['5-17', '18-39', '65+', 'unknown']
    """
    first = name.split("-")[0].rstrip("+")
    return name == UNKNOWN, int(first) if first.isdecimal() else -1, name


def _text(value: object) -> str:
    return UNKNOWN if value is None or pd.isna(value) or str(value).strip() == "" else str(value)

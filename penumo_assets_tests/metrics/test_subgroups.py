import numpy as np
import pandas as pd
import pytest

from penumo_assets.metrics.subgroups import age_band, group_order, subgroup_labels


@pytest.mark.parametrize(
    ("age", "band"),
    [(0, "0-4"), (4.99, "0-4"), (5, "5-17"), (39.5, "18-39"), (64, "40-64"), (65, "65+"), (150, "65+"),
     (-1, "unknown"), (999, "unknown"), (float("nan"), "unknown")],
)  # fmt: skip
def test_ages_fall_into_bands_and_impossible_ones_are_unknown(age, band):
    assert age_band(age) == band


def test_missing_values_are_a_group_of_their_own():
    index = pd.DataFrame({"cohort": ["a", "b"], "sex": ["F", None], "view": [None, None], "age": [np.nan, 70]})
    found = subgroup_labels(index)
    assert found["sex"].tolist() == ["F", "unknown"]
    assert found["age"].tolist() == ["unknown", "65+"]


def test_an_attribute_that_no_image_has_is_left_out():
    index = pd.DataFrame({"cohort": ["a"], "sex": [None], "view": [""], "age": [None]})
    assert set(subgroup_labels(index)) == {"cohort"}
    assert set(subgroup_labels(pd.DataFrame({"cohort": ["a"]}))) == {"cohort"}


def test_bands_sort_by_age_and_unknown_comes_last():
    assert sorted(["unknown", "65+", "5-17", "0-4"], key=group_order) == ["0-4", "5-17", "65+", "unknown"]

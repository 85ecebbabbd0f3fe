import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penumo_assets.imaging.histogram import level_counts, percentile_levels


@given(
    st.lists(st.integers(0, 65535), min_size=1, max_size=300),
    st.floats(0, 49.9),
    st.floats(50.1, 100),
    st.sampled_from([np.uint8, np.uint16]),
)
def test_percentiles_are_those_of_numpy(values: list[int], low: float, high: float, dtype: type) -> None:
    array = np.array(values, np.uint16).astype(dtype)
    expected = np.percentile(array, [low, high], method="inverted_cdf")
    assert percentile_levels(level_counts(array), low, high) == tuple(expected)


def test_nothing_has_no_percentiles() -> None:
    with pytest.raises(ValueError, match="empty"):
        percentile_levels(np.zeros(256), 1, 99)

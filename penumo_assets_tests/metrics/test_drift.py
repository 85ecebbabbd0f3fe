import numpy as np
import pytest

from penumo_assets.metrics.drift import population_stability


def test_a_worked_example_gives_the_sum_by_hand():
    reference = np.arange(100.0)  # deciles of ten images each
    current = np.repeat(np.arange(10) * 10 + 5.0, [19, 1, 10, 10, 10, 10, 10, 10, 10, 10])
    by_hand = (0.1 - 0.19) * np.log(0.1 / 0.19) + (0.1 - 0.01) * np.log(0.1 / 0.01)
    assert population_stability(reference, current).index == pytest.approx(by_hand)


def test_without_drift_the_index_is_on_average_what_is_expected():
    random = np.random.default_rng(0)
    found = [population_stability(random.normal(size=400), random.normal(size=300)) for _ in range(300)]
    assert np.mean([item.index for item in found]) == pytest.approx(found[0].expected, rel=0.12)


def test_a_shift_by_a_standard_deviation_is_far_beyond_chance():
    random = np.random.default_rng(0)
    found = population_stability(random.normal(size=400), random.normal(1.0, 1.0, 300))
    assert found.index > max(0.25, 10 * found.expected)


def test_values_outside_the_reference_still_count():
    found = population_stability(np.arange(100.0), np.full(50, 1e6))
    assert np.isfinite(found.index)
    assert found.index > 1


@pytest.mark.parametrize(
    ("reference", "current"), [([], [1.0]), ([1.0, 2.0], []), ([np.nan], [1.0]), ([3.0, 3.0], [1.0, 2.0])]
)
def test_nothing_to_compare_gives_none(reference, current):
    assert population_stability(np.array(reference), np.array(current)) is None


def test_unknown_values_are_left_out():
    reference = np.r_[np.arange(100.0), np.nan]
    assert population_stability(reference, np.arange(100.0)).reference_images == 100

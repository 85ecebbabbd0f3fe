import numpy as np
import pytest

from penumo_assets.metrics.drift import drift_rows, image_statistics, population_stability


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


@pytest.mark.parametrize(("reference", "current"), [([], [1.0]), ([1.0, 2.0], []), ([np.nan], [1.0])])
def test_nothing_to_compare_gives_none(reference, current):
    assert population_stability(np.array(reference), np.array(current)) is None


def test_unknown_values_are_left_out():
    reference = np.r_[np.arange(100.0), np.nan]
    assert population_stability(reference, np.arange(100.0)).reference_images == 100


def levels(*shares: float, n: int = 200) -> np.ndarray:
    return np.repeat(np.arange(len(shares)), np.round(np.array(shares) * n).astype(int)).astype(float)


@pytest.mark.parametrize(
    ("reference", "current"),
    [
        (levels(0.95, 0.05), levels(0.1, 0.9)),
        (levels(0.05, 0.95), levels(0.9, 0.1)),
        (levels(0.3, 0.4, 0.3), levels(0.3, 0.1, 0.6)),
        (np.full(200, 2.5), np.full(200, 3.7)),  # one detector, then another
        (np.full(200, 2.5), np.append(np.full(60, 2.5), np.full(140, 3.7))),
        (np.append(np.zeros(100), np.linspace(0.1, 1, 100)), np.append(np.zeros(10), np.linspace(0.1, 1, 190))),
    ],
)
def test_levels_and_spikes_have_bins_of_their_own(reference, current):
    found = population_stability(reference, current)
    assert found.index > max(0.25, found.chance)
    assert population_stability(reference, reference).index == pytest.approx(0, abs=1e-12)


def test_the_index_of_two_levels_is_the_sum_by_hand():
    by_hand = (0.95 - 0.1) * np.log(0.95 / 0.1) + (0.05 - 0.9) * np.log(0.05 / 0.9)
    assert population_stability(levels(0.95, 0.05), levels(0.1, 0.9)).index == pytest.approx(by_hand)


@pytest.mark.parametrize("shares", [(0.95, 0.05), (0.3, 0.4, 0.3), (0.2, 0.5, 0.1, 0.1, 0.05, 0.05)])
def test_levels_that_do_not_drift_stay_below_chance(shares):
    random = np.random.default_rng(2)
    found = [
        population_stability(*(random.choice(len(shares), n, p=shares).astype(float) for n in (300, 200)))
        for _ in range(500)
    ]
    assert np.mean([item.index > item.chance for item in found]) <= 0.03


def test_without_drift_the_index_stays_below_chance_in_ninety_nine_of_a_hundred():
    random = np.random.default_rng(1)
    found = [population_stability(random.normal(size=300), random.normal(size=200)) for _ in range(500)]
    beyond = np.mean([item.index > item.chance for item in found])
    assert beyond <= 0.03


def test_a_feature_moved_only_beyond_the_limit_and_beyond_chance():
    random = np.random.default_rng(0)
    reference = {"a": random.normal(size=400), "b": random.normal(size=400), "c": np.full(400, 3.0), "d": np.zeros(400)}
    reference |= {"unknown": np.full(400, np.nan), "known": np.ones(400)}
    current = {"a": random.normal(2, 1, 300), "b": random.normal(size=300), "c": np.full(300, 4.0)}
    current |= {"unknown": np.full(300, np.nan), "known": np.full(300, np.nan)}
    rows = {row["feature"]: row for row in drift_rows(reference, current, limit=0.25)}
    assert {name: row["moved"] for name, row in rows.items()} == {"a": True, "b": False, "c": True, "known": None}
    assert rows["known"]["index"] is None
    assert not drift_rows(reference, current, limit=100.0)[0]["moved"]


def test_a_handful_of_images_cannot_prove_drift():
    random = np.random.default_rng(0)
    (row,) = drift_rows({"a": random.normal(size=400)}, {"a": random.normal(size=8)}, limit=0.25)
    assert row["index"] > 0.25
    assert not row["moved"]


def test_image_statistics_leave_the_unknown_unknown():
    found = image_statistics([2000, None], [1000, 1000], [5e6, np.nan], [0.4, 0.5])
    np.testing.assert_array_equal(found["aspect_ratio"], [2.0, np.nan])
    np.testing.assert_array_equal(found["megapixels"], [2.0, np.nan])
    np.testing.assert_array_equal(found["mean_intensity"], [0.4, 0.5])

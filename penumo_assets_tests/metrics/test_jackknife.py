import numpy as np
import pytest
from scipy import special, stats

from penumo_assets.metrics.auc import MIN_PATIENTS
from penumo_assets.metrics.jackknife import PatientJackknife, degrees_of_freedom
from penumo_assets.metrics.ranking import Ranking
from penumo_assets.metrics.records import Estimate


def test_the_interval_of_a_mean_is_the_t_interval_on_the_logit_scale():
    values = np.random.default_rng(0).beta(2, 5, 80)
    found = PatientJackknife(np.arange(80)).mean(values, "no value")
    error = values.std(ddof=1) / np.sqrt(80) / (values.mean() * (1 - values.mean()))
    half = stats.t.ppf(0.975, degrees_of_freedom(values - values.mean())) * error
    known = special.expit(special.logit(values.mean()) + np.array([-half, half]))
    assert (found.low, found.high) == pytest.approx(tuple(known), rel=1e-6)


def test_patients_and_not_images_are_left_out():
    """Ten copies of every image add no information: the interval must not shrink."""
    values, ids = np.random.default_rng(0).beta(2, 5, 60), np.arange(60)
    once = PatientJackknife(ids).mean(values, "no value")
    copied = PatientJackknife(np.repeat(ids, 10)).mean(np.repeat(values, 10), "no value")
    assert (copied.low, copied.high) == pytest.approx((once.low, once.high))


def test_a_metric_between_other_ends_has_the_interval_of_its_share_of_the_way():
    values = np.random.default_rng(1).beta(2, 5, 70)
    share = PatientJackknife(np.arange(70)).mean(values, "no value")
    other = PatientJackknife(np.arange(70)).mean(2 * values - 1, "no value", (-1.0, 1.0))
    assert (other.low, other.high) == pytest.approx((2 * share.low - 1, 2 * share.high - 1))


def test_patients_that_weigh_alike_are_all_counted_and_of_others_only_those_that_decide():
    assert degrees_of_freedom(np.tile([-1.0, 1.0], 50)) == 99
    assert degrees_of_freedom(np.random.default_rng(2).normal(size=4000)) == pytest.approx(3999, rel=0.1)
    three_decide = np.r_[5.0, -4.0, 6.0, np.full(97, 0.01)]
    assert degrees_of_freedom(three_decide) < 8


def test_an_undefined_value_carries_its_reason_and_no_interval():
    found = PatientJackknife(np.arange(60)).estimate(float("nan"), np.zeros(60), "no image of class normal")
    assert found == Estimate.undefined("no image of class normal")


def test_a_metric_that_hangs_on_one_patient_has_no_interval():
    without = np.r_[np.nan, np.linspace(0.4, 0.6, 59)]
    found = PatientJackknife(np.arange(60)).estimate(0.5, without)
    assert (found.value, found.low, found.high) == (0.5, None, None)
    assert found.reason == "no interval: undefined without a single patient"


def test_few_patients_and_patients_that_make_no_difference_give_no_interval():
    few = PatientJackknife(np.arange(12)).mean(np.linspace(0, 1, 12), "no value")
    assert (few.low, few.reason) == (None, "no interval: fewer than 50 patients")
    same = PatientJackknife(np.arange(80)).mean(np.ones(80), "no value")
    assert (same.value, same.low, same.reason) == (1.0, None, "no interval: no patient makes a difference")


def test_values_that_are_not_known_are_left_out_of_a_mean():
    values = np.where(np.arange(90) % 3 == 0, np.nan, np.linspace(0.6, 1.0, 90))
    found = PatientJackknife(np.arange(90)).mean(values, "no mask")
    assert found.value == pytest.approx(np.nanmean(values))
    assert found.low < found.value < found.high
    assert PatientJackknife(np.arange(90)).mean(np.full(90, np.nan), "no mask").reason == "no mask"


@pytest.mark.parametrize("films", [1, 3])
def test_the_interval_of_average_precision_holds_the_truth_at_fifty_patients(films):
    """The bootstrap's did in 0.91 to 0.92 of such sets. The truth is that of infinitely many films."""
    random, shift = np.random.default_rng(films), 1.5
    grid = np.linspace(-12, 14, 100_001)
    positive, negative = stats.norm.sf(grid - shift), stats.norm.sf(grid)
    truth = -np.trapezoid(0.3 * positive / np.maximum(0.3 * positive + 0.7 * negative, 1e-300), positive)
    held = []
    while len(held) < 400:
        sides = random.random(50) < 0.3
        if sides.sum() < MIN_PATIENTS:
            continue  # the report shows none
        present = np.repeat(sides, films)
        shared = np.repeat(random.normal(size=50), films)
        noise = shared if films == 1 else np.sqrt(0.5) * (shared + random.normal(size=50 * films))
        patients = np.repeat(np.arange(50), films)
        ranking = Ranking.of(present.astype(int), shift * present + noise)
        found = PatientJackknife(patients).average_precision([ranking])
        held.append(found.low <= truth <= found.high)
    assert np.mean(held) >= 0.93

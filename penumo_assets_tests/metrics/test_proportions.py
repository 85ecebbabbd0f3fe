import numpy as np
import pytest
from scipy import stats

from penumo_assets.metrics.proportions import effective_images, mean_proportion, proportion


@pytest.mark.parametrize("hits", [0, 3, 19, 20])
def test_one_film_a_patient_has_wilsons_interval(hits):
    outcome = np.arange(20) < hits
    found = proportion(outcome, np.arange(20), "none")
    known = stats.binomtest(hits, 20).proportion_ci(0.95, "wilson")
    assert (found.low, found.high) == pytest.approx((known.low, known.high), abs=0.012)


def test_copies_of_every_film_add_no_certainty():
    outcome, patients = np.random.default_rng(0).random(60) < 0.8, np.arange(60)
    once, copied = proportion(outcome, patients, ""), proportion(np.repeat(outcome, 4), np.repeat(patients, 4), "")
    assert (copied.low, copied.high) == pytest.approx((once.low, once.high), abs=1e-6)
    naive = proportion(np.repeat(outcome, 4), np.arange(240), "")
    assert naive.high - naive.low < 0.6 * (once.high - once.low)


def test_independent_films_of_one_patient_count_almost_fully():
    random = np.random.default_rng(1)
    sizes = [effective_images(random.random(600) < 0.7, np.repeat(np.arange(200), 3)) for _ in range(50)]
    assert 500 < np.mean(sizes) <= 600


def test_a_perfect_score_of_six_is_no_certainty():
    found = proportion(np.ones(6, bool), np.arange(6), "")
    assert (found.value, found.high) == (1.0, 1.0)
    assert found.low == pytest.approx(0.61, abs=0.005)
    both = mean_proportion([(np.ones(6, bool), np.arange(6))] * 2, "")
    assert (both.value, both.high) == (1.0, 1.0)
    assert 0.6 < both.low < 0.8


def test_nothing_to_count_is_undefined_with_its_reason():
    assert proportion(np.zeros(0, bool), np.zeros(0), "nobody").reason == "nobody"
    assert mean_proportion([(np.ones(3, bool), np.arange(3)), (np.zeros(0, bool), np.zeros(0))], "nobody").value is None


def test_a_mean_of_two_proportions_covers_as_often_as_it_says():
    random = np.random.default_rng(2)
    held = []
    for _ in range(2000):
        trials = [(random.random(n) < p, np.arange(n)) for n, p in ((15, 0.9), (60, 0.7))]
        found = mean_proportion(trials, "")
        held.append(found.low <= 0.8 <= found.high)
    assert 0.93 <= np.mean(held) <= 0.985

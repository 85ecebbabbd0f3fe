import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score

from penumo_assets.metrics.auc import Part, hanley_mcneil_variance, mean_auc, newcombe_interval
from penumo_assets.metrics.delong import delong


def part(n: int = 120, seed: int = 0, strength: float = 1.5, weight: float = 1.0) -> Part:
    random = np.random.default_rng(seed)
    labels = random.integers(0, 2, n)
    return Part(labels == 1, strength * labels + random.normal(size=n), np.arange(n) // 2, weight)


def test_one_part_has_delongs_clustered_interval():
    one = part()
    found, known = mean_auc([one]), delong(one.present.astype(int), one.scores, one.patients)
    assert found.value == pytest.approx(known.auc)
    assert (found.low, found.high) == pytest.approx((known.low, known.high), abs=2e-3)


def test_parts_are_averaged_by_their_weight_and_the_mean_is_surer_than_each():
    first, second = part(seed=1, weight=3.0), part(seed=2)
    second = Part(second.present, second.scores, second.patients + 1000, second.weight)
    aucs = [roc_auc_score(p.present, p.scores) for p in (first, second)]
    found = mean_auc([first, second])
    assert found.value == pytest.approx(0.75 * aucs[0] + 0.25 * aucs[1])
    assert found.high - found.low < min(mean_auc([p]).high - mean_auc([p]).low for p in (first, second))


def test_the_same_patients_twice_add_no_certainty():
    one = part(seed=3)
    once, twice = mean_auc([one]), mean_auc([one, one])
    assert (twice.low, twice.high) == pytest.approx((once.low, once.high))


def test_too_few_patients_have_a_value_and_no_interval():
    few = Part(np.arange(40) < 9, np.random.default_rng(4).normal(size=40), np.arange(40))
    found = mean_auc([few])
    assert found.value is not None
    assert (found.low, found.reason) == (None, "no interval: fewer than 10 patients with or without a class")


def test_a_perfect_auc_gets_a_bound_that_its_score_equation_confirms():
    present = np.arange(42) < 12
    found = mean_auc([Part(present, present.astype(float), np.arange(42))])
    assert (found.value, found.high, found.method) == (1.0, 1.0, "Newcombe score, patients")
    z = (1 - found.low) / hanley_mcneil_variance(found.low, 12, 30) ** 0.5
    assert z == pytest.approx(stats.norm.ppf(0.975), rel=1e-6)


def test_scores_that_are_all_alike_have_no_interval():
    found = mean_auc([Part(np.arange(60) % 2 > 0, np.zeros(60), np.arange(60))])
    assert (found.value, found.low, found.high) == (0.5, None, None)
    assert found.reason == "no interval: every image is ranked alike"


def test_a_perfect_auc_is_surer_with_more_patients_and_the_worst_mirrors_it():
    few, many = (newcombe_interval(1.0, n, n)[0] for n in (5, 500))
    assert few < 0.8 < 0.98 < many
    assert newcombe_interval(0.0, 5, 5) == pytest.approx((0.0, 1 - few))


def test_hanley_and_mcneils_published_example():
    """Hanley & McNeil 1982: A = 0.893 with 51 abnormal and 58 normal cases has SE 0.032, found without the model."""
    assert hanley_mcneil_variance(0.893, 51, 58) ** 0.5 == pytest.approx(0.032, abs=0.001)


def test_hanley_and_mcneils_variance_is_that_of_exponential_scores():
    """Their model: negative scores exponential with rate 1, positive ones with a smaller rate."""
    random = np.random.default_rng(0)
    auc = 0.8
    scale = auc / (1 - auc)
    negative = random.exponential(1.0, (4000, 1, 25))
    positive = random.exponential(scale, (4000, 15, 1))
    simulated = (positive > negative).mean(axis=(1, 2))
    assert simulated.mean() == pytest.approx(auc, abs=0.005)
    assert simulated.var() == pytest.approx(hanley_mcneil_variance(auc, 15, 25), rel=0.08)

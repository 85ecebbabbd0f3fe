import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import average_precision_score, roc_auc_score

from penumo_assets.metrics.auc import MIN_PATIENTS
from penumo_assets.metrics.intervals import PatientBootstrap
from penumo_assets.metrics.ranking import Ranking
from penumo_assets.metrics.records import Estimate


def images(seed: int = 0, patients: int = 40) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Patients with one to four images each, labels and scores shared within a patient in part."""
    random = np.random.default_rng(seed)
    ids = np.repeat([f"p{i}" for i in range(patients)], random.integers(1, 5, patients))
    severity = dict(zip(sorted(set(ids)), random.normal(size=patients), strict=True))
    base = np.array([severity[i] for i in ids])
    labels = (base + random.normal(0, 0.3, len(ids)) > 0).astype(int)
    return ids, labels, base + random.normal(0, 1.0, len(ids))


def drawn_rows(bootstrap: PatientBootstrap, ids: np.ndarray, resample: int) -> np.ndarray:
    """The rows of one resample, written out: each drawn patient's images, as often as drawn."""
    names = np.unique(ids)
    rows = [np.flatnonzero(ids == name) for name in names]
    times = bootstrap.weights[resample]
    return np.concatenate([np.tile(rows[i], times[i]) for i in range(len(names))])


def test_every_resample_equals_the_metric_of_the_rows_written_out():
    ids, labels, scores = images()
    bootstrap = PatientBootstrap(ids, resamples=30, seed=1)
    auc, precision = bootstrap.areas(Ranking.of(labels, scores))
    sums = bootstrap.sums(np.column_stack([labels, scores]))
    for j in range(30):
        rows = drawn_rows(bootstrap, ids, j)
        assert auc[j] == pytest.approx(roc_auc_score(labels[rows], scores[rows]), abs=1e-12)
        assert precision[j] == pytest.approx(average_precision_score(labels[rows], scores[rows]), abs=1e-12)
        np.testing.assert_allclose(sums[j], [labels[rows].sum(), scores[rows].sum()])


def test_every_resample_draws_as_many_patients_as_there_are():
    ids, _, _ = images()
    bootstrap = PatientBootstrap(ids, resamples=50)
    assert bootstrap.weights.shape == (50, 40)
    assert (bootstrap.weights.sum(axis=1) == 40).all()
    assert bootstrap.weights.mean(axis=0) == pytest.approx(np.ones(40), abs=0.6)


def test_patients_and_not_images_are_resampled():
    """Ten copies of every image add no information: the interval of the mean must not shrink."""
    random = np.random.default_rng(0)
    values = random.normal(size=60)
    ids = np.arange(60)
    once = PatientBootstrap(ids, 2000).sums(np.column_stack([values, np.ones(60)]))
    copied = PatientBootstrap(np.repeat(ids, 10), 2000).sums(np.column_stack([np.repeat(values, 10), np.ones(600)]))
    assert (copied[:, 0] / copied[:, 1]).std() == pytest.approx((once[:, 0] / once[:, 1]).std(), rel=1e-9)
    naive = PatientBootstrap(np.arange(600), 2000).sums(np.column_stack([np.repeat(values, 10), np.ones(600)]))
    assert (naive[:, 0] / naive[:, 1]).std() < 0.5 * (once[:, 0] / once[:, 1]).std()


def test_the_interval_of_a_mean_covers_the_truth_about_as_often_as_it_says():
    random = np.random.default_rng(7)
    covered = 0
    for trial in range(100):
        values = random.normal(5.0, 2.0, 60)
        bootstrap = PatientBootstrap(np.arange(60), 400, seed=trial)
        estimate = bootstrap.mean(values, "no value")
        covered += estimate.low <= 5.0 <= estimate.high
    assert 0.87 <= covered / 100 <= 0.99


def test_the_same_seed_gives_the_same_interval_and_another_another():
    ids, labels, scores = images()
    ranking = Ranking.of(labels, scores)
    first, again, other = (PatientBootstrap(ids, 100, seed).areas(ranking)[0] for seed in (3, 3, 4))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_an_undefined_value_carries_its_reason_and_no_interval():
    estimate = PatientBootstrap(np.arange(5), 10).estimate(
        float("nan"), np.zeros(10), np.zeros(5), "no image of class normal"
    )
    assert estimate == Estimate.undefined("no image of class normal")


def test_a_metric_undefined_in_many_resamples_has_no_interval():
    replicates = np.r_[np.full(20, np.nan), np.linspace(0.4, 0.6, 80)]
    estimate = PatientBootstrap(np.arange(60), 100).estimate(0.5, replicates, np.zeros(60))
    assert (estimate.value, estimate.low, estimate.high) == (0.5, None, None)
    assert estimate.reason == "no interval: undefined in 20 of 100 resamples"


def test_few_patients_and_resamples_that_agree_give_no_interval():
    few = PatientBootstrap(np.arange(12), 50).mean(np.linspace(0, 1, 12), "no value")
    assert (few.low, few.reason) == (None, "no interval: fewer than 50 patients")
    same = PatientBootstrap(np.arange(80), 50).mean(np.ones(80), "no value")
    assert (same.value, same.low, same.reason) == (1.0, None, "no interval: all resamples agree")


def test_the_bca_interval_is_scipys():
    values = np.random.default_rng(0).exponential(size=80)
    known = stats.bootstrap((values,), np.mean, n_resamples=4000, method="BCa", rng=1).confidence_interval
    found = PatientBootstrap(np.arange(80), 4000).mean(values, "no value")
    assert (found.low, found.high) == pytest.approx((known.low, known.high), abs=0.02)


def test_values_that_are_not_known_are_left_out_of_a_mean():
    values = np.where(np.arange(90) % 3 == 0, np.nan, np.linspace(0.6, 1.0, 90))
    found = PatientBootstrap(np.arange(90), 200).mean(values, "no mask")
    assert found.value == pytest.approx(np.nanmean(values))
    assert found.low < found.value < found.high
    assert PatientBootstrap(np.arange(90), 10).mean(np.full(90, np.nan), "no mask").reason == "no mask"


def test_no_images_give_no_error():
    bootstrap = PatientBootstrap(np.zeros(0, str), 10)
    assert bootstrap.sums(np.zeros((0, 2))).shape == (10, 2)
    assert np.isnan(bootstrap.areas(Ranking.of(np.zeros(0, int), np.zeros(0)))[0]).all()


@pytest.mark.parametrize(("resamples", "confidence"), [(0, 0.95), (10, 1.0), (10, 0.0)])
def test_senseless_settings_are_refused(resamples, confidence):
    with pytest.raises(ValueError, match="must"):
        PatientBootstrap(np.arange(5), resamples, confidence=confidence)


def test_the_roc_band_holds_the_curve_and_rises():
    ids, labels, scores = images(patients=120)
    ranking = Ranking.of(labels, scores)
    grid = np.linspace(0, 1, 21)
    low, high = PatientBootstrap(ids, 200).roc_band(ranking, grid)
    assert (low <= high).all()
    assert (np.diff(low) >= -1e-12).all()
    assert high[-1] == low[-1] == 1.0
    curve = ranking.roc(np.ones(len(labels), np.int64))
    inside = np.interp(0.35, *curve)
    assert low[7] <= inside <= high[7]


@pytest.mark.parametrize("films", [1, 3])
def test_the_interval_of_average_precision_holds_the_truth_at_fifty_patients(films):
    """BCa's did in 0.91 to 0.92 of such sets. The truth is that of infinitely many films."""
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
        found = PatientBootstrap(patients, 1).average_precision([ranking])
        held.append(found.low <= truth <= found.high)
    assert np.mean(held) >= 0.93

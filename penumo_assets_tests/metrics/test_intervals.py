import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from penumo_assets.metrics.intervals import PatientBootstrap
from penumo_assets.metrics.ranking import Ranking


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


def test_the_same_seed_gives_the_same_interval_and_another_another():
    ids, labels, scores = images()
    ranking = Ranking.of(labels, scores)
    first, again, other = (PatientBootstrap(ids, 100, seed).areas(ranking)[0] for seed in (3, 3, 4))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


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

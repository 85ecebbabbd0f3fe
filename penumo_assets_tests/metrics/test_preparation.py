import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from penumo_assets.metrics.preparation import QUANTITIES, border_quantities, preparation_quantities
from penumo_assets.metrics.revealed import added, revealed, revealed_together


def tensor(bars: int = 0, black: int = 0, top: int = 20) -> np.ndarray:
    """Noise with lungs from ``top`` to row 200, black bars above and below, and a black border on the left."""
    pixels = np.random.default_rng(bars).integers(90, 250, (224, 224, 4)).astype(np.uint8)
    pixels[..., 1] = pixels[..., 2] = pixels[..., 0]
    pixels[:, :black, :3] = 0
    pixels[:bars, :, :3] = pixels[224 - bars :, :, :3] = 0
    pixels[..., 3] = 0
    pixels[top:200, 40:180, 3] = 255
    return pixels


def test_bars_outline_and_border_are_measured() -> None:
    found = preparation_quantities(tensor(bars=28, top=56))
    assert tuple(found) == QUANTITIES
    assert (found["bar_height"], found["bar_width"]) == (0.25, 0.0)
    assert (found["outline_top"], found["outline_bottom"], found["outline_height"]) == (0.25, 200 / 224, 144 / 224)
    assert (found["outline_left"], found["outline_right"], found["outline_width"]) == (40 / 224, 180 / 224, 140 / 224)
    plain = preparation_quantities(tensor())
    assert plain["border_mean"] == pytest.approx(170, abs=3)
    assert plain["border_black"] == 0
    assert preparation_quantities(tensor(black=8))["border_black"] == pytest.approx(
        224 * 8 / (224**2 - 208**2), abs=0.01
    )


def test_what_the_lungs_look_like_counts_for_nothing() -> None:
    one, other = tensor(), tensor()
    other[..., :3][other[..., 3] > 0] //= 3
    assert preparation_quantities(one) == preparation_quantities(other)


def test_a_tensor_without_lungs_has_no_outline() -> None:
    blank = tensor()
    blank[..., 3] = 0
    assert np.isnan(preparation_quantities(blank)["outline_top"])


def test_a_quantity_that_tells_the_classes_apart_is_found_in_either_direction_and_chance_is_not() -> None:
    random = np.random.default_rng(0)
    positive, patients = np.arange(200) % 2 > 0, np.arange(200) // 2 * 2 + np.arange(200) % 2
    telling = random.normal(size=200) - 1.5 * positive
    quantities = {"telling": telling, "chance": random.normal(size=200), "constant": np.ones(200)}
    found = revealed(quantities, positive, patients)
    assert found["telling"].value == pytest.approx(roc_auc_score(positive, -telling))
    assert found["telling"].low > 0.55 > found["chance"].low
    assert (found["constant"].value, found["constant"].low) == (0.5, None)
    together = revealed_together(np.column_stack([telling, random.normal(size=200)]), positive, patients)
    assert together.low > 0.55
    assert revealed_together(random.normal(size=(200, 3)), positive, patients).low < 0.5


def test_one_class_or_too_few_patients_are_not_judged() -> None:
    values = np.arange(30.0)
    assert revealed({"x": values}, np.ones(30, bool), np.arange(30))["x"].value is None
    assert revealed_together(values[:, None], values < 4, np.arange(30)).value is None


def test_only_what_is_added_to_the_film_is_found() -> None:
    random = np.random.default_rng(1)
    positive, patients = np.arange(300) % 2 > 0, np.arange(300)
    own = random.normal(size=300) + 1.0 * positive  # the film's own: as telling before as after
    none, made = random.normal(size=300), random.normal(size=300) - 1.5 * positive
    same = added(own * 3 + 40, own, positive, patients)
    assert (same.value, same.low) == (0, 0)
    found = added(made, none, positive, patients)
    assert found.value == pytest.approx(roc_auc_score(positive, -made) - max_auc(positive, none))
    assert found.low > 0.2
    assert added(none, made, positive, patients).high < 0
    made[:290] = np.nan
    assert added(made, none, positive, patients).value is None


def max_auc(positive: np.ndarray, values: np.ndarray) -> float:
    return max(roc_auc_score(positive, values), roc_auc_score(positive, -values))


def test_the_border_is_that_of_the_outermost_pixels_beside_the_lungs() -> None:
    gray, lungs = np.full((32, 32), 100.0), np.zeros((32, 32), bool)
    gray[:, :4], gray[10:20, 10:20] = 0, 255  # what lies inside does not count
    assert border_quantities(gray, lungs)[0] == pytest.approx(100 * (1 - 4 * 32 / (32**2 - 16**2)))
    assert border_quantities(gray, lungs)[2] == pytest.approx(4 * 32 / (32**2 - 16**2))
    lungs[:, :8] = True
    assert border_quantities(gray, lungs) == (100, 0, 0)
    assert np.isnan(border_quantities(gray, ~np.zeros_like(lungs))).all()

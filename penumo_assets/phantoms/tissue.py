"""What attenuates the beam, layer by layer: soft tissue and air, bone, consolidations, a pacemaker.

Every function returns attenuation as (height, width) float32, in units where a thick chest wall is
about 0.7; layers add up, because the logarithm of the exposure does.
"""

import math

import cv2
import numpy as np

from penumo_assets.phantoms.anatomy import LEFT, RIGHT, Anatomy, smooth
from penumo_assets.phantoms.canvas import Canvas, blur

_VESSEL_GENERATIONS = 5


def _thickness(filled: np.ndarray, radius: float) -> np.ndarray:
    """Depth of a rounded solid behind each pixel: a quarter circle of ``radius`` pixels in from the edge, then flat."""
    height, width = filled.shape
    # Half the resolution is enough for so smooth a surface, and four times as fast.
    half = cv2.resize(filled, (width // 2, height // 2), interpolation=cv2.INTER_AREA)
    distance = cv2.distanceTransform((half >= 0.5).astype(np.uint8), cv2.DIST_L2, 3)
    inside = 1 - np.minimum(distance * np.float32(2 / radius), 1)
    return cv2.resize(np.sqrt(1 - inside * inside), (width, height), interpolation=cv2.INTER_LINEAR) * filled


def soft_tissue(canvas: Canvas, anatomy: Anatomy, lungs: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Body, lungs with their vessels, mediastinum, heart and abdomen."""
    unit = canvas.unit
    body = 0.72 * _thickness(canvas.fill(anatomy.torso()), 0.55 * unit)
    arms = 0.45 * _thickness(canvas.fill(anatomy.arm(RIGHT), anatomy.arm(LEFT)), 0.2 * unit)
    air = blur(_air(canvas, lungs), 0.012 * unit)
    total = np.maximum(body, arms) - 0.50 * air
    heart = canvas.fill(anatomy.heart(), soften=0.015)
    total += 0.40 * heart * (0.25 + 0.75 * air)
    total += _mediastinum(canvas, anatomy)
    total += _abdomen(canvas, anatomy, lungs)
    interstitium = 0.018 * canvas.noise(rng, 0.05) + 0.012 * canvas.noise(rng, 0.02)
    total += air * (1 - 0.75 * heart) * (_vessels(canvas, rng) + interstitium)
    for side in (RIGHT, LEFT):
        if anatomy.breast:
            total += anatomy.breast * canvas.ellipse(side * 0.58, 0.80, 0.36, 0.24, 0.03)
    # Muscle and fat are not one flat shade.
    return total + body * 0.035 * canvas.noise(rng, 0.5)


def _air(canvas: Canvas, lungs: np.ndarray) -> np.ndarray:
    """How much air lies behind each pixel, in [0, 1]."""
    return lungs * (0.55 + 0.45 * _thickness(lungs, 0.33 * canvas.unit))


def _mediastinum(canvas: Canvas, anatomy: Anatomy) -> np.ndarray:
    """Great vessels, aortic knob, spine with its vertebrae, and the air of the trachea."""
    m = anatomy.medial_x
    column = np.array(
        [[-0.15, -0.6], [-m - 0.04, 0.1], [-m, 0.5], [-m, 1.7], [m, 1.7], [m, 0.5], [m + 0.05, 0.1], [0.15, -0.6]]
    )
    total = 0.16 * canvas.fill(smooth(column), soften=0.03)
    total += 0.12 * canvas.ellipse(m + 0.02, 0.30, 0.09, 0.07, 0.015)
    spine = canvas.empty()
    for y in np.arange(-0.45, 1.6, 0.088):
        canvas.stroke(spine, np.array([[-0.075, y], [0.075, y]]), 0.11, 200)
        canvas.stroke(spine, np.array([[0.0, y - 0.02], [0.0, y + 0.03]]), 0.03, 255)
    total += 0.11 * canvas.shade(spine, 0.012)
    trachea = canvas.empty()
    canvas.stroke(trachea, np.array([[0.0, -0.5], [0.01, 0.30]]), 0.11, 255)
    for side in (RIGHT, LEFT):
        canvas.stroke(trachea, np.array([[0.01, 0.30], [side * 0.17, 0.42]]), 0.07, 170)
    return total - 0.13 * canvas.shade(trachea, 0.012)


def _abdomen(canvas: Canvas, anatomy: Anatomy, lungs: np.ndarray) -> np.ndarray:
    """Liver, spleen and stomach under the domes, with a gas bubble in some."""
    x = np.linspace(1.0, anatomy.medial_x, 30)
    right = np.stack([-x, anatomy.diaphragm(RIGHT, x)], axis=1)
    left = np.stack([x[::-1], anatomy.diaphragm(LEFT, x[::-1])], axis=1)
    outline = np.concatenate([right, left, np.array([[1.4, 1.08], [1.4, 2.0], [-1.4, 2.0], [-1.4, 1.08]])])
    total = 0.20 * canvas.fill(outline, soften=0.02) * (1 - lungs)
    if anatomy.stomach_gas:
        total -= 0.13 * canvas.ellipse(0.42, anatomy.dome_y[1] + 0.13, 0.18, 0.07, 0.02) * (1 - lungs)
    return total


def _vessels(canvas: Canvas, rng: np.random.Generator) -> np.ndarray:
    """Pulmonary vessels: trees that branch outwards from both hila and thin towards the periphery."""
    layer = canvas.empty()
    for side in (RIGHT, LEFT):
        trunks = int(rng.integers(5, 8))
        generations: list[list[list[tuple[float, float]]]] = [[] for _ in range(_VESSEL_GENERATIONS)]
        for angle in np.linspace(-1.35, 1.35, trunks) + rng.normal(0, 0.15, trunks):
            _branch(generations, 0, rng, (0.17, 0.44), float(angle), rng.uniform(0.16, 0.26))
        root = rng.uniform(0.020, 0.030)
        # Thin and faint branches first, so that each parent covers where its children begin.
        for depth in reversed(range(_VESSEL_GENERATIONS)):
            thickness = root * 0.68**depth
            lines = np.array(generations[depth]) * [side, 1.0]
            canvas.stroke(layer, lines, thickness, int(min(255, 60 + 6000 * thickness)))
    hila = sum(canvas.ellipse(side * 0.19, 0.45, 0.06, 0.09, 0.03) for side in (RIGHT, LEFT))
    return rng.uniform(0.09, 0.14) * canvas.shade(layer, 0.006) + 0.13 * hila


def _branch(
    generations: list[list[list[tuple[float, float]]]],
    depth: int,
    rng: np.random.Generator,
    start: tuple[float, float],
    angle: float,
    length: float,
) -> None:
    """Add a vessel and all its descendants to their generations, on a side where outwards is +X."""
    bend = angle + rng.normal(0, 0.2)
    middle = (start[0] + 0.5 * length * math.cos(angle), start[1] + 0.5 * length * math.sin(angle))
    end = (middle[0] + 0.5 * length * math.cos(bend), middle[1] + 0.5 * length * math.sin(bend))
    generations[depth].append([start, middle, end])
    if depth + 1 < len(generations):
        spread = rng.uniform(0.2, 0.5)
        for turn in (-spread, spread):
            _branch(generations, depth + 1, rng, end, bend + turn, length * rng.uniform(0.65, 0.9))


def bones(canvas: Canvas, anatomy: Anatomy) -> np.ndarray:
    """Ribs, clavicles, scapulae and the humeral heads."""
    posterior, anterior, clavicles = canvas.empty(), canvas.empty(), canvas.empty()
    for side in (RIGHT, LEFT):
        for index in range(anatomy.rib_count):
            back, front = anatomy.rib(side, index)
            _tube(canvas, posterior, back, 0.068)
            if index < 7:
                _tube(canvas, anterior, front, 0.075)
        _tube(canvas, clavicles, anatomy.clavicle(side), 0.085)
    total = 0.125 * canvas.shade(posterior, 0.006)
    total += 0.07 * canvas.shade(anterior, 0.008)
    total += 0.12 * canvas.shade(clavicles, 0.006)
    wall = 1.0 + anatomy.wall_thickness
    for side in (RIGHT, LEFT):
        blade = np.array([[0.95, 0.0], [wall, 0.02], [wall - 0.05, 0.25], [0.98, 0.55], [0.88, 0.3]])
        total += 0.05 * canvas.fill(smooth(blade) * [side, 1.0], soften=0.012)
        total += 0.13 * canvas.ellipse(side * (wall + 0.13), 0.05, 0.12, 0.09, 0.012)
    return total


def _tube(canvas: Canvas, layer: np.ndarray, line: np.ndarray, thickness: float) -> None:
    """A bone seen from the side: the cortex at its two edges is denser than the marrow between."""
    scratch = canvas.empty()
    canvas.stroke(scratch, line, thickness, 255)
    canvas.stroke(scratch, line, thickness * 0.6, 165)
    np.maximum(layer, scratch, out=layer)


def opacities(canvas: Canvas, anatomy: Anatomy, lungs: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One to three patchy consolidations: fluid takes the place of the air, so nothing shows outside the lungs.

    None is so faint that a network could not learn it from a hundred phantoms, which is what the demo has.
    """
    filled = np.zeros((canvas.height, canvas.width), np.float32)
    for _ in range(int(rng.integers(1, 4))):
        side = RIGHT if rng.random() < 0.55 else LEFT
        y = rng.uniform(0.22, 0.86)
        wall = float(anatomy.chest_wall(side, np.array([y]))[0])
        x = rng.uniform(anatomy.medial_x + 0.15, wall - 0.08)
        radius_x, radius_y = rng.uniform(0.10, 0.26), rng.uniform(0.07, 0.19)
        patch = canvas.ellipse(side * x, y, radius_x, radius_y, soften=rng.uniform(0.05, 0.09))
        texture = 0.5 + 0.28 * canvas.noise(rng, 0.13) + 0.22 * canvas.noise(rng, 0.045)
        density = rng.uniform(0.5, 0.95)
        filled = np.maximum(filled, density * patch * np.clip(0.35 + texture, 0.1, 1.3))
    return 0.46 * filled * blur(_air(canvas, lungs), 0.012 * canvas.unit)


def pacemaker(canvas: Canvas) -> np.ndarray:
    """A generator below the left clavicle and its lead to the right ventricle."""
    lead = canvas.empty()
    path = np.array(
        [[0.62, 0.20], [0.50, 0.10], [0.22, 0.08], [0.02, 0.22], [-0.12, 0.45], [-0.08, 0.68], [0.22, 0.86]]
    )
    at = np.linspace(0, len(path) - 1, 60)
    curve = np.stack([np.interp(at, np.arange(len(path)), path[:, k]) for k in (0, 1)], axis=1)
    kernel = np.hanning(13)[1:-1] / np.hanning(13).sum()
    padded = np.pad(curve, ((5, 5), (0, 0)), mode="edge")
    canvas.stroke(lead, np.stack([np.convolve(padded[:, k], kernel, "valid") for k in (0, 1)], axis=1), 0.012, 255)
    return 0.45 * canvas.ellipse(0.66, 0.23, 0.12, 0.075, 0.004) + 0.30 * canvas.shade(lead, 0.003)

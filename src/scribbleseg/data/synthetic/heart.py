"""Synthetic short-axis hearts: right ventricle (1), ring of myocardium (2), LV cavity (3), among similar structures."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from scipy import ndimage
from scipy.spatial.transform import Rotation

CLASSES = ("background", "RV", "Myo", "LV")

# Scan
SIZE = (116, 140)  # pixels, rows and columns each
SPACING_MM = (1.5, 1.8)  # in the slice
SLICE_MM = (8.0, 10.0)
SLICES = (8, 10)
OBLIQUE_SHARE = 0.7  # of the patients; the others' slices are along the scanner's axes

# Heart
LV_RADIUS_MM = (19.0, 27.0)  # at end diastole, near the base
WALL_MM = (7.0, 10.5)
EJECTION = (0.6, 0.82)  # LV radius at end systole over that at end diastole
RV_LENGTH = (1.0, 1.3)  # half of the crescent's length over the outer radius of the myocardium
RV_WIDTH = (0.62, 0.85)  # half of its width over the same
OFF_CENTRE_MM = 14.0  # deviation of the heart's position in the slice
TILT_MM = (-14.0, 14.0)  # shift of the heart's centre from base to apex
BREATHING_MM = 1.2  # deviation of each slice's place
OUTLINE = 0.04  # deviation of each harmonic of an outline, as a share of its radius

# Image; intensities before the bias field, with blood near 1
BLOOD = (0.75, 1.0)
MYOCARDIUM = (0.26, 0.42)
LUNG = (0.05, 0.14)
LIVER = (0.3, 0.55)
MUSCLE = (0.2, 0.35)
FAT = (0.45, 0.62)
TEXTURE = 0.12  # deviation within a tissue, as a share of its intensity
FLOW = 0.1  # the same within blood
BIAS = 0.28  # deviation of each coefficient of the logarithmic bias field
BLUR_PIXELS = (0.5, 0.9)
NOISE = (0.025, 0.055)  # deviation of each of the two channels of the Rician noise
VESSELS = (2, 4)  # bright discs per patient, some with a wall, which look like a left ventricle
VESSEL_RADIUS_MM = (6.0, 15.0)
WALLED_SHARE = 0.2  # of the vessels


Shape = tuple[int, ...]  # depth, height, width
Point = Sequence[float] | np.ndarray  # row, column


@dataclass(frozen=True)
class Heart:
    """One beating state of one patient; arrays are slices first."""

    image: np.ndarray  # float32 [D, H, W], blood near 1
    truth: np.ndarray  # uint8 [D, H, W]
    affine: np.ndarray  # 4×4, voxel (x, y, z) → mm


def draw_patient(seed: int) -> tuple[Heart, Heart]:
    """End diastole and end systole of one patient: same chest, affine and contrast, other heart size and noise."""
    rng = np.random.default_rng(seed)
    shape = (int(rng.integers(SLICES[0], SLICES[1] + 1)), *(int(rng.integers(SIZE[0], SIZE[1] + 1)) for _ in range(2)))
    spacing_mm = rng.uniform(*SPACING_MM)
    affine = _affine(shape, spacing_mm, rng.uniform(*SLICE_MM), rng)
    y, x = (np.arange(size)[:, None] - (size - 1) / 2 for size in shape[1:])
    y, x = np.broadcast_arrays(y * spacing_mm, x.T * spacing_mm)
    chest = _chest(shape, y, x, rng)
    anatomy = rng.integers(2**31)
    ejection = rng.uniform(*EJECTION)
    bias = _bias(shape, rng)
    blur, noise = rng.uniform(*BLUR_PIXELS), rng.uniform(*NOISE)
    hearts = []
    for squeeze in (1.0, ejection):
        image, truth = _heart(chest.copy(), y, x, squeeze, np.random.default_rng(anatomy))
        image = ndimage.gaussian_filter(image * bias, (0, blur, blur))
        real, imaginary = noise * rng.standard_normal((2, *shape))
        hearts.append(Heart(np.hypot(image + real, imaginary).astype(np.float32), truth, affine))
    return hearts[0], hearts[1]


def _affine(shape: Shape, spacing_mm: float, slice_mm: float, rng: Generator) -> np.ndarray:
    turn = np.eye(3)
    if rng.random() < OBLIQUE_SHARE:
        turn = Rotation.from_rotvec(rng.normal(0, 0.5, 3)).as_matrix()
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.diag([-spacing_mm, -spacing_mm, slice_mm])
    affine[:3, 3] = rng.uniform(-40, 40, 3) - affine[:3, :3] @ (np.array(shape[::-1]) - 1) / 2
    return affine


def edge(distance_mm: np.ndarray, width_mm: float = 0.8) -> np.ndarray:
    """1 inside (negative distance), 0 outside, a soft step between."""
    return 1 / (1 + np.exp(np.clip(distance_mm / (0.5 * width_mm), -30, 30)))


def mix(image: np.ndarray | float, inside: np.ndarray, value: np.ndarray | float) -> np.ndarray:
    return image + inside * (value - image)


def _blob(
    y: np.ndarray, x: np.ndarray, centre: Point, radii: Point, angle: float, outline: np.ndarray | None = None
) -> np.ndarray:
    """Signed distance (about mm, negative inside) of an ellipse; its radius varies by `outline`'s harmonics [2, K]."""
    turned = ((x - centre[1]) + 1j * (y - centre[0])) * np.exp(-1j * angle)
    place = turned.real / radii[0] + 1j * turned.imag / radii[1]
    away = np.abs(place)
    factor: np.ndarray | float = 1.0
    if outline is not None:
        unit = place / np.maximum(away, 1e-6)
        power = unit
        for c, s in outline.T:  # second harmonic and up: c cos kφ + s sin kφ
            power = power * unit
            factor = factor + (power * (c - 1j * s)).real
    return (away - factor) * np.sqrt(radii[0] * radii[1])


def _texture(shape: Shape, sigma: float, rng: Generator) -> np.ndarray:
    """Noise of unit deviation, as smooth as `sigma` pixels."""
    noise = ndimage.gaussian_filter(rng.standard_normal(shape), (0.7, sigma, sigma), mode="wrap")
    return noise / noise.std()


def _bias(shape: Shape, rng: Generator) -> np.ndarray:
    z, y, x = np.meshgrid(*(np.linspace(-1, 1, size) for size in shape), indexing="ij")
    weights = rng.normal(0, BIAS, 5)
    return np.exp(sum(w * basis for w, basis in zip(weights, (y, x, y * x, x**2 - 0.5, 0.3 * z), strict=True)))


def _chest(shape: Shape, y: np.ndarray, x: np.ndarray, rng: Generator) -> np.ndarray:
    """Everything but the heart: [D, H, W]."""
    depth, height, width = shape[0], np.ptp(y), np.ptp(x)
    noise = _texture(shape, 2.0, rng)
    coarse = _texture(shape, 6.0, rng)
    fat, muscle, lung, liver = (rng.uniform(*tissue) for tissue in (FAT, MUSCLE, LUNG, LIVER))
    image = np.empty(shape)
    side = rng.normal(0, 6, 2)
    body_radii = (width * rng.uniform(0.46, 0.56), height * rng.uniform(0.48, 0.58))
    body_angle = rng.normal(0, 0.15)
    body_outline, lung_outline, liver_outline = (rng.normal(0, 0.04, (2, 4)) for _ in range(3))
    lung_at, lung_radii = (
        (-height * rng.uniform(0.0, 0.1), width * rng.uniform(0.08, 0.2)),
        (width * 0.33, height * rng.uniform(0.3, 0.36)),
    )
    liver_at, liver_radii = (
        (height * rng.uniform(0.3, 0.4), -width * rng.uniform(0.0, 0.2)),
        (width * rng.uniform(0.26, 0.36), height * 0.17),
    )
    stomach_at, stomach = (height * rng.uniform(0.28, 0.4), width * rng.uniform(0.18, 0.32)), rng.uniform(10, 22, 2)
    vessels = _vessels(height, width, rng)
    for z in range(depth):
        t = z / (depth - 1)
        body = _blob(y, x, side, body_radii, body_angle, body_outline)
        tissue = mix(0.02, edge(body), fat)
        tissue = mix(tissue, edge(body + 13 + 3 * coarse[z]), muscle)
        tissue = mix(tissue, edge(_blob(y, x, lung_at, lung_radii, 0.2, lung_outline), 2), lung)
        lower = (liver_at[0] - 10 * t, liver_at[1])
        tissue = mix(tissue, edge(_blob(y, x, lower, liver_radii, -0.2, liver_outline)), liver)
        tissue = mix(
            tissue, edge(_blob(y, x, (stomach_at[0] - 8 * t, stomach_at[1]), stomach, 0.5, lung_outline)), fat * 0.9
        )
        pockets = edge(6 * (1.1 - coarse[z]))  # fat between the organs
        tissue = mix(tissue, pockets * edge(body + 10) * (tissue > 1.4 * lung), fat * 0.9)
        twigs = edge(4 * (2.1 - noise[z])) * edge(_blob(y, x, lung_at, lung_radii, 0.2, lung_outline) + 5)
        tissue = mix(tissue, twigs, 0.6)
        for centre, drift, radius, wall, blood in vessels:
            place = (centre[0] + drift[0] * (t - 0.5), centre[1] + drift[1] * (t - 0.5))
            distance = _blob(y, x, place, (radius, radius * 0.9), 0.3, 0.5 * lung_outline[:, :2])
            tissue = mix(tissue, edge(distance - wall), muscle * 0.9)
            tissue = mix(tissue, edge(distance), blood * (1 + FLOW * noise[z]))
        image[z] = tissue * (1 + TEXTURE * (0.5 * noise[z] + 0.8 * coarse[z]))
    return np.maximum(image, 0.01)


def _vessels(height: float, width: float, rng: Generator) -> list[tuple[Point, np.ndarray, float, float, float]]:
    """(centre, drift, radius, wall, intensity), in mm, away from the middle where the heart will be."""
    vessels: list[tuple[Point, np.ndarray, float, float, float]] = []
    for _ in range(rng.integers(VESSELS[0], VESSELS[1] + 1)):
        angle, away = rng.uniform(0, 2 * np.pi), rng.uniform(0.34, 0.44)
        centre = (height * away * np.sin(angle), width * away * np.cos(angle))
        wall = rng.uniform(4, 8) if rng.random() < WALLED_SHARE else 0.0
        vessels.append((centre, rng.normal(0, 6, 2), rng.uniform(*VESSEL_RADIUS_MM), wall, rng.uniform(*BLOOD)))
    return vessels


def _heart(
    image: np.ndarray, y: np.ndarray, x: np.ndarray, squeeze: float, rng: Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Paint the heart into the chest; returns (image, truth). `squeeze`: LV radius divided by that at end diastole."""
    depth = len(image)
    truth = np.zeros(image.shape, np.uint8)
    radius, wall = rng.uniform(*LV_RADIUS_MM), rng.uniform(*WALL_MM)
    wall = wall * (1 + 0.9 * (1 - squeeze))  # the wall thickens as the cavity shrinks
    outer = radius * squeeze + wall
    septum = np.pi + rng.normal(0, 0.45)  # direction of the right ventricle
    rv_length, rv_width = rng.uniform(*RV_LENGTH), rng.uniform(*RV_WIDTH) * (0.55 + 0.45 * squeeze)
    centre, tilt = rng.normal(0, OFF_CENTRE_MM, 2), rng.uniform(*TILT_MM, 2)
    oval, oval_angle = rng.uniform(0.9, 1.1), rng.uniform(0, np.pi)
    outlines = rng.normal(0, OUTLINE, (3, 2, 3)) / np.arange(1, 4)
    blood, muscle = rng.uniform(*BLOOD), rng.uniform(*MYOCARDIUM)
    epicardial_fat, fat_mm = rng.uniform(*FAT) * 0.8, rng.uniform(1, 5)
    empty_base, rv_end, lv_end = rng.random() < 0.4, rng.uniform(0.6, 0.85), rng.uniform(0.88, 1.02)
    muscles = [
        (septum + np.pi + turn + rng.normal(0, 0.25), rng.uniform(2.5, 4.5), rng.uniform(0.55, 0.75))
        for turn in (-1.0, 1.0)
    ]
    noise, trabeculae = _texture(image.shape, 2.5, rng), _texture(image.shape, 1.0, rng)
    for z in range(depth):
        t = z / (depth - 1)
        at = centre + tilt * (t - 0.3) + rng.normal(0, BREATHING_MM, 2)
        wobble = outlines + rng.normal(0, 0.012, outlines.shape)
        taper = np.sqrt(np.clip(1 - (t / 1.06) ** 2.4, 0.02, 1))
        epi_radius = outer * (0.35 + 0.65 * taper)
        lv_radius = epi_radius - wall * (1 - 0.15 * t)
        rv_scale = np.sqrt(np.clip(1 - (t / rv_end) ** 3, 0, 1))
        epi = _blob(y, x, at, (epi_radius * oval, epi_radius / oval), oval_angle, wobble[0])
        lv = _blob(y, x, at, (max(lv_radius, 1) * oval, max(lv_radius, 1) / oval), oval_angle, wobble[1])
        lv = np.maximum(lv, epi + 0.4 * wall)  # the cavity stays inside the ring
        away = epi_radius + 0.15 * outer * rv_width
        rv_at = at + away * np.array([np.sin(septum), np.cos(septum)])
        rv_radii = (max(outer * rv_width * rv_scale, 1), max(outer * rv_length * rv_scale, 1))
        rv = _blob(y, x, rv_at, rv_radii, septum, wobble[2])
        free_wall, has_rv, has_lv = rv - 3.0, rv_scale > 0.45, t <= lv_end and lv_radius > 2.5
        pulp = blood * (1 + FLOW * noise[z])
        tissue = mix(
            image[z], edge(np.minimum(epi, free_wall if has_rv else epi) - fat_mm - 2 * noise[z]), epicardial_fat
        )
        if has_rv:
            tissue = mix(tissue, edge(free_wall), muscle)
            tissue = mix(tissue, edge(rv), np.where(trabeculae[z] > 1.6, 0.6 * blood, pulp))
        if z == 0 and empty_base:  # above the valve: atrium and outflow, nothing to segment
            atrium = _blob(y, x, at, (epi_radius * 1.05, epi_radius * 0.8), oval_angle + 0.7, 3 * wobble[2])
            image[z] = mix(tissue, edge(atrium), pulp)
            continue
        tissue = mix(tissue, edge(epi), muscle * (1 + 0.08 * noise[z]))
        if has_rv:
            truth[z][(rv < 0) & (epi >= 0)] = 1
        truth[z][epi < 0] = 2
        if has_lv:
            tissue = mix(tissue, edge(lv), pulp)
            truth[z][lv < 0] = 3
            for turn, size_mm, place in muscles if 0.2 < t < 0.75 else ():
                spot = at + place * lv_radius * np.array([np.sin(turn), np.cos(turn)])
                tissue = mix(tissue, edge(_blob(y, x, spot, (size_mm, size_mm), 0)) * edge(lv + 1), muscle)
        image[z] = tissue
    return image, truth

"""Synthetic abdominal CT: liver (1), spleen (2), kidneys (3), aorta (4) and in every fourth patient a lesion (5)."""

from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from scipy import ndimage

from .heart import edge, mix

CLASSES = ("background", "liver", "spleen", "kidneys", "aorta", "lesion")
LESION_EVERY = 4  # patients

# Scan
FIELD_MM = (340.0, 400.0)  # side of the slices
LENGTH_MM = (180.0, 210.0)
THICK = (1.9, 2.1, 6.5, 7.5)  # mm: range of the pixel's side, and of the distance of the slices
ISOTROPIC = (2.8, 3.2)  # mm

# Intensity of the CT, HU, and of the PET, as standardised uptake values (SUV)
AIR, TABLE, LUNG, FAT, MUSCLE, BONE = -1000.0, -250.0, -820.0, -100.0, 55.0, 420.0
SPREAD = 12.0  # deviation of a tissue's HU between patients
LIVER, SPLEEN, KIDNEY, AORTA, LESION = 105.0, 118.0, 165.0, 150.0, 45.0
STOMACH, GAS = 15.0, -900.0
NOISE = (10.0, 18.0)  # deviation in a voxel
BLUR_MM = 1.4
UPTAKE = (0.6, 2.2, 1.8, 4.0, 1.5, 9.0)  # of the classes
PET_BLUR_MM, PET_NOISE = 5.0, 0.15

LESION_MM = (7.0, 9.0)  # radius
WARP_MM, WARP_SCALE_MM = 5.0, 45.0  # how far anatomy is displaced, and over which length that changes


@dataclass(frozen=True)
class Abdomen:
    """One patient; arrays are slices first, from the feet to the head."""

    images: tuple[np.ndarray, ...]  # int16 HU [D, H, W], and with PET float32 SUV
    truth: np.ndarray  # uint8 [D, H, W]
    affine: np.ndarray  # 4×4, voxel (x, y, z) → mm


def draw_abdomen(seed: int, *, isotropic: bool = False, lesion: bool = False, pet: bool = False) -> Abdomen:
    """CT of one patient, with a PET beside it if asked for.

    Slices are 6.5 to 7.5 mm apart with pixels of about 2 mm or, if isotropic, voxels are cubes of about 3 mm. The same
    seed gives the same organs either way.
    """
    rng, place = np.random.default_rng(seed), np.random.default_rng([seed, 1])
    if isotropic:
        pixel = slice_mm = place.uniform(*ISOTROPIC)
    else:
        pixel, slice_mm = place.uniform(*THICK[:2]), place.uniform(*THICK[2:])
    side, depth = round(rng.uniform(*FIELD_MM) / pixel), round(rng.uniform(*LENGTH_MM) / slice_mm)
    shape, spacing = (depth, side, side), np.array((slice_mm, pixel, pixel))
    sides = [((np.arange(size) - (size - 1) / 2) * step).astype(np.float32) for size, step in zip(shape, spacing)]
    z, y, x = np.meshgrid(*sides, indexing="ij")
    warp = _warp(shape, spacing, rng)
    ct, truth = _body(z + warp[0], y + warp[1], x + warp[2], y, lesion, rng)
    ct = ndimage.gaussian_filter(ct, (0, BLUR_MM / pixel, BLUR_MM / pixel))
    ct = ct + place.uniform(*NOISE) * place.standard_normal(shape)
    images = [np.clip(np.rint(ct), -1024, 3071).astype(np.int16)]
    if pet:
        uptake = ndimage.gaussian_filter(np.where(ct < -400, 0.1, np.take(UPTAKE, truth)), PET_BLUR_MM / spacing)
        images.append(np.maximum(uptake * (1 + PET_NOISE * place.standard_normal(shape)), 0).astype(np.float32))
    affine = np.diag([-pixel, -pixel, slice_mm, 1.0])
    affine[:3, 3] = place.uniform(-40, 40, 3) - affine[:3, :3] @ (np.array(shape[::-1]) - 1) / 2
    return Abdomen(tuple(images), truth, affine)


def _warp(shape: tuple[int, ...], spacing: np.ndarray, rng: Generator) -> np.ndarray:
    """A smooth displacement of each voxel, mm, [3, D, H, W]; it does not depend on the size of the voxels."""
    coarse = WARP_MM * rng.standard_normal((3, 8, 12, 12))
    grid = np.meshgrid(
        *(np.arange(size) * step / WARP_SCALE_MM + 1 for size, step in zip(shape, spacing)), indexing="ij"
    )
    return np.stack(
        [ndimage.map_coordinates(axis, grid, order=2, mode="reflect", output=np.float32) for axis in coarse]
    )


def _ellipsoid(
    z: np.ndarray, y: np.ndarray, x: np.ndarray, centre: tuple[float, ...], radii: tuple[float, ...]
) -> np.ndarray:
    """Distance from the surface, about mm, negative inside."""
    away = np.sqrt(sum(np.square((axis - c) * np.float32(1 / r)) for axis, c, r in zip((z, y, x), centre, radii)))
    return (away - 1) * min(radii)


def _body(
    z: np.ndarray, y: np.ndarray, x: np.ndarray, row: np.ndarray, lesion: bool, rng: Generator
) -> tuple[np.ndarray, np.ndarray]:
    """CT and truth at places in mm from the middle: z to the head, y to the back, x to the patient's left.

    row: the place y before the displacement, for the table, which is not displaced.
    """

    def around(value: float, share: float = 0.08) -> float:
        return value * (1 + share * rng.uniform(-1, 1))

    def hu(value: float) -> float:
        return value + rng.normal(0, SPREAD)

    deep, wide = around(105), around(150)
    body = _ellipsoid(0 * z, y, x, (0, 0, 0), (1e3, deep, wide))
    ct = np.full(z.shape, AIR, np.float32)
    ct[(np.abs(row - deep - 18) < 6) & (np.abs(x) < 150)] = TABLE
    ct = mix(ct, edge(body), FAT)
    ct = mix(ct, edge(body + around(18, 0.4)), hu(MUSCLE))
    ct = mix(ct, edge(body + around(34, 0.2)), FAT)  # between the organs
    truth = np.zeros(z.shape, np.uint8)

    def paint(value: float, label: int, distance: np.ndarray) -> None:
        nonlocal ct
        ct = mix(ct, edge(distance, 2.0), value)
        truth[distance < 0] = label

    for left in (-1, 1):  # loops of bowel with gas, lungs at the top, ribs
        for _ in range(3):
            centre = (rng.uniform(-90, -20), rng.uniform(-60, 0), left * rng.uniform(20, 80))
            loop = _ellipsoid(z, y, x, centre, (around(22), around(16), around(26)))
            paint(hu(STOMACH + 20), 0, loop)
            paint(GAS, 0, np.maximum(loop + 7, y - centre[1]))  # gas rises to the front
        paint(LUNG, 0, _ellipsoid(z, y, x, (around(125), 0, left * 75), (around(62), 80, 55)))
        for rib in range(-1, 4):
            ring = np.abs(_ellipsoid(0 * z, y, x, (0, 0, 0), (1e3, deep - 22, wide - 22))) - 4
            paint(hu(BONE - 100), 0, np.maximum(np.abs(z - 28 * rib + 0.3 * y) - 4, np.where(left * x > 20, ring, 9.0)))
    paint(hu(STOMACH), 0, _ellipsoid(z, y, x, (30, -35, around(55)), (35, around(28), 40)))
    paint(hu(BONE), 0, _ellipsoid(0 * z, y, x, (0, deep - 48, 0), (1e3, 19, 23)))
    paint(hu(MUSCLE), 0, _ellipsoid(0 * z, y, x, (0, deep - 30, 0), (1e3, 9, 9)))  # the spinal canal
    liver = np.minimum(
        _ellipsoid(z, y, x, (around(32), -5, -68), (around(66), around(72), around(58))),
        _ellipsoid(z, y, x, (around(45), -35, -10), (around(38), around(36), around(62))),
    )
    paint(hu(LIVER), 1, liver)
    paint(hu(SPLEEN), 2, _ellipsoid(z, y, x, (around(38), 30, 92), (around(42), around(38), around(22))))
    kidney = hu(KIDNEY)
    for left in (-1, 1):
        centre = (around(-35, 0.2) + 8 * left, around(38), left * around(58))
        paint(kidney, 3, _ellipsoid(z, y, x, centre, (around(48), around(25), around(24))))
        pelvis = (centre[0], centre[1] - 4, centre[2] - 16 * left)
        paint(FAT, 0, _ellipsoid(z, y, x, pelvis, (12, 8, 13)))
    paint(hu(AORTA), 4, _ellipsoid(0 * z, y, x, (0, deep - 76, 12), (1e3, around(10), around(10))))
    paint(hu(AORTA - 15), 0, _ellipsoid(0 * z, y, x, (0, deep - 78, -14), (1e3, 9, around(12))))  # the vein
    at = (around(25, 0.5), around(-15, 1), around(-65, 0.2))
    radius = rng.uniform(*LESION_MM)
    if lesion:
        paint(LESION, 5, _ellipsoid(z, y, x, at, (radius, radius, radius)))
    texture = ndimage.gaussian_filter(rng.standard_normal(z.shape), 1.5)
    return ct + 40 * texture * (ct > -500), truth

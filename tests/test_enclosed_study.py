"""benchmarks/studies/enclosed.py: what is deleted from a slice, and how the rest is judged."""

import enclosed
import numpy as np

from scribbleseg.core.labels import UNLABELED
from scribbleseg.data.enclosure import outside_hull


def ring() -> np.ndarray:
    """A ring of background around a foreground stroke in the middle of 60 × 60 pixels."""
    rows, columns = np.indices((60, 60)) - 30
    drawn = np.full((60, 60), UNLABELED, np.uint8)
    drawn[np.abs(np.hypot(rows, columns) - 20) < 0.8] = 0
    drawn[29:32, 27:34] = 1
    return drawn


def test_a_sector_is_cut_out_of_the_background_strokes_alone():
    drawn, rng = ring(), np.random.default_rng(0)
    left = enclosed.without(drawn, 0.25, "sector", rng)
    assert 0.7 < (left == 0).sum() / (drawn == 0).sum() < 0.8 and ((left == 1) == (drawn == 1)).all()
    gone = np.argwhere((drawn == 0) & (left != 0)) - 30.0
    middle = gone.mean(0)
    cosine = gone @ middle / np.linalg.norm(gone, axis=1) / np.linalg.norm(middle)
    assert cosine.min() > np.cos(np.radians(50)), "all within 45 degrees of one direction"
    assert enclosed.without(drawn, 0.0, "none", rng) is drawn


def test_two_dashes_are_left_on_opposite_sides():
    drawn = ring()
    left = enclosed.without(drawn, 5 / 6, "all but two dashes", np.random.default_rng(0))
    assert 0.1 < (left == 0).sum() / (drawn == 0).sum() < 0.25
    places = np.argwhere(left == 0) - 30.0
    assert abs(places.mean(0)).max() < 3 and outside_hull(left) is None


def test_pieces_are_cut_out_all_around():
    drawn = ring()
    left = enclosed.without(drawn, 0.5, "pieces", np.random.default_rng(0))
    assert 0.3 < (left == 0).sum() / (drawn == 0).sum() < 0.7
    assert outside_hull(left) is not None


def test_the_box_around_background_strokes_holds_the_foreground_strokes_or_says_nothing():
    drawn = ring()
    outside = enclosed.outside_box(drawn)
    assert outside is not None and (~outside).sum() == 41**2 and not outside[10:51, 10:51].any()
    drawn[0, 0] = 1
    assert enclosed.outside_box(drawn) is None
    assert enclosed.outside_box(np.full((4, 4), UNLABELED, np.uint8)) is None


def test_a_slice_is_judged_by_its_dense_mask():
    outside, truth = np.zeros((4, 4), bool), np.zeros((4, 4), np.uint8)
    outside[:2], truth[1:3, :2] = True, 2
    assert enclosed.judge(outside, truth).tolist() == [1, 2, 4, 6, 12]
    assert enclosed.judge(None, truth).tolist() == [0, 0, 0, 0, 0]

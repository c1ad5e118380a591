"""Reading the ring: drawn masks by hand, the gate, and the term."""

import numpy as np
import pytest
import torch
from small import small_dataset

from scribbleseg.config import Train
from scribbleseg.core.errors import InputError
from scribbleseg.core.labels import UNLABELED
from scribbleseg.data.enclosure import choose_rule, enclosing_slices, enclosure, outside_hull, outside_ring
from scribbleseg.data.voxels import Batch
from scribbleseg.losses.enclosure import enclosure_term
from scribbleseg.losses.supervised import partial_cross_entropy
from scribbleseg.training.plan import read_plan
from scribbleseg.training.train import train


def drawn(picture: str) -> np.ndarray:
    """`o` background, digits classes, `.` nothing."""
    values = {".": UNLABELED, "o": 0}
    return np.array([[values[c] if c in values else int(c) for c in line] for line in picture.split()], dtype=np.uint8)


RING = """
.........
..ooooo..
..o...o..
..o.1.o..
..o...o..
..ooooo..
.........
"""
OPEN = RING.replace("..o.1.o..", "..o.1....")
EDGE = """
..o.1.o..
..o...o..
..ooooo..
.........
"""
TWO = """
ooo...ooo
o1o...o2o
ooo...ooo
.........
"""
NESTED = """
ooooooooo
o.......o
o.ooooo.o
o.o.1.o.o
o.ooooo.o
o...2...o
ooooooooo
"""
APART = RING.replace(".........", "........2", 1)
BESIDE = """
.........
..o...o..
..o....1.
..o...o..
.........
"""
ONLY_FOREGROUND = RING.replace("o", ".")


def test_outside_a_closed_ring_is_background():
    scribble = drawn(RING)
    outside = outside_ring(scribble, 0.5)
    assert outside is not None
    assert outside.sum() == scribble.size - 25  # all but the ring and what it holds
    assert not outside[1:6, 2:7].any()
    hull = outside_hull(scribble)
    assert hull is not None and (hull == outside).all()


def test_a_gap_is_closed_by_a_reach_of_half_its_width():
    assert outside_ring(drawn(OPEN), 0.5) is None
    outside = outside_ring(drawn(OPEN), 1.0)
    assert outside is not None and not outside[1:6, 2:6].any() and outside[0, [0, 8]].all()
    assert outside_hull(drawn(OPEN)) is not None, "the hull needs no closed ring"


def test_a_ring_that_the_images_edge_cuts_is_open():
    assert outside_ring(drawn(EDGE), 0.5) is None
    assert outside_hull(drawn(EDGE)) is None


@pytest.mark.parametrize("sides", [(slice(27, 33), slice(0, 60, 59)), (slice(0, 60, 59), slice(20, 40))])
def test_strokes_on_two_sides_enclose_nothing(sides):
    """A dash left and right, or a line above and below: a structure can reach far beyond their hull between them."""
    scribble = np.full((60, 60), UNLABELED, np.uint8)
    scribble[sides], scribble[28:32, 28:32] = 0, 1
    assert outside_hull(scribble) is None and enclosing_slices(scribble[None], 5.0) == (0, 1)
    assert (enclosure(scribble[None], 5.0, "hull") == UNLABELED).all()


def test_a_gap_of_a_quarter_still_encloses():
    rows, columns = np.indices((60, 60)) - 30
    scribble = np.full((60, 60), UNLABELED, np.uint8)
    scribble[np.abs(np.hypot(rows, columns) - 25) < 0.8] = 0
    scribble[30, 30] = 1
    angle = np.degrees(np.arctan2(rows, columns)) % 360
    for width, read in ((110, True), (130, False)):
        scribble[(scribble == 0) & (angle < width)] = UNLABELED
        assert (outside_hull(scribble) is not None) is read


def test_two_rings_keep_what_lies_between_them():
    outside = outside_ring(drawn(TWO), 0.5)
    assert outside is not None and outside[:, 3:6].all() and not outside[1, [1, 7]].any()
    assert outside_hull(drawn(TWO)) is None, "from between them nothing is drawn above and below"
    assert ((enclosure(drawn(TWO)[None], 0.5, "hull")[0] == 0) == (outside & (drawn(TWO) == UNLABELED))).all()


def test_nested_rings_stay_inside_the_outer_one():
    assert not outside_ring(drawn(NESTED), 0.5).any()


@pytest.mark.parametrize("picture", [APART, ONLY_FOREGROUND, RING.replace("1", "."), ".........\n.........\n"])
def test_nothing_is_read_where_nothing_is_enclosed(picture):
    scribble = drawn(picture)
    assert outside_ring(scribble, 0.5) is None and outside_hull(scribble) is None


def test_the_map_of_a_volume():
    only_background, empty = drawn(RING.replace("1", ".")), np.full((7, 9), UNLABELED, np.uint8)
    volume = np.stack([drawn(RING), drawn(OPEN), only_background, empty])
    ring, hull = enclosure(volume, 0.5, "ring"), enclosure(volume, 0.5, "hull")
    assert (ring[0] == 0).sum() == 63 - 25 and (ring[1] == UNLABELED).all() and (ring[3] == UNLABELED).all()
    assert (ring[2] == 0).sum() == 63 - 16 and ((ring[2] == 0) == (only_background == UNLABELED)).all()
    assert (hull[1] == 0).any() and (hull[0] == ring[0]).all() and (hull[3] == UNLABELED).all()
    assert ((ring == 0) <= (volume == UNLABELED)).all(), "strokes are not in it"


def test_the_rule_follows_the_share_of_slices_that_enclose():
    assert enclosing_slices(np.stack([drawn(RING), drawn(APART), drawn(RING.replace("1", "."))]), 0.5) == (1, 2)
    assert enclosing_slices(drawn(OPEN)[None], 0.5) == (1, 1), "the hull holds the stroke, though the ring is open"
    assert enclosing_slices(drawn(BESIDE)[None], 0.5) == (0, 1)
    assert enclosing_slices(drawn(BESIDE)[None], 1.5) == (1, 1), "the hull does not hold the stroke, the wide ring does"
    assert choose_rule([(9, 10), (1, 10)]) == ("hull", 0.5) and choose_rule([(4, 10)]) == ("off", 0.4)
    assert choose_rule([]) == choose_rule([(0, 0)]) == ("off", 0.0)


def test_the_term_is_the_mean_over_enclosed_pixels():
    torch.manual_seed(0)
    logits = torch.randn(2, 3, 4, 4, requires_grad=True)
    label = torch.full((2, 4, 4), UNLABELED)
    outside = label.clone()
    outside[0, :2] = 0
    batch = Batch(torch.zeros(2, 1, 4, 4), label, {"enclosure": outside})
    term = enclosure_term(logits, batch, weight=2.0)["enclosure"].detach()
    assert term == pytest.approx(2 * float(-logits.detach().log_softmax(1)[0, 0, :2].mean()))
    assert enclosure_term(logits, Batch(batch.image, label)) == {}
    assert term == 2 * partial_cross_entropy(logits, outside).detach()


@pytest.mark.parametrize("method", ["pce", "scn", "effdnet", "corral"])
def test_a_run_reads_the_ring_and_says_so(tmp_path, method):
    data = small_dataset(tmp_path / "data")
    changes = {"method": method, "iterations": 2, "size": 32, "batch": 4}
    with pytest.raises(InputError, match="in no slice do the background strokes enclose"):
        train(Train(data, tmp_path / "on", enclosure="on", **changes))
    assert not (tmp_path / "on").exists()
    run = train(Train(data, tmp_path / "run", enclosure="auto", **changes))
    assert read_plan(run)[1].fitted.enclosure == "off"


def test_a_method_without_the_term_refuses_it(tmp_path):
    with pytest.raises(InputError, match="tv has no term for the enclosed background"):
        train(Train(small_dataset(tmp_path / "data"), tmp_path / "run", method="tv", enclosure="on"))

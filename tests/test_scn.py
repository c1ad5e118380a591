"""SCN: its terms against their equations, and what its options do."""

import pytest
import torch
import torch.nn.functional as F
from test_correlation import refinement_by_loops

from scribbleseg.core.labels import UNLABELED
from scribbleseg.data.voxels import Batch
from scribbleseg.losses.correlation import class_contrast, correlation_map, propagate, update_threshold
from scribbleseg.methods.scn import SCN
from scribbleseg.networks.unet import UNet

torch.set_num_threads(1)

TERMS = {"pce", "pap", "pcl", "region", "cacl_scribble", "cacl_unlabel"}


def scn(**options):
    torch.manual_seed(0)
    network = UNet(1, 4, widths=(4, 8, 8, 8, 8), dropout=(0.0,) * 5)
    return SCN(network, **{"threshold": 0.3, "region_threshold": 0.0, "dim": 6, **options})


def make_batch(n=2, size=32):
    g = torch.Generator().manual_seed(5)
    truth = torch.randint(0, 4, (n, size // 8, size // 8), generator=g).repeat_interleave(8, 1).repeat_interleave(8, 2)
    scribble = torch.where(torch.rand(truth.shape, generator=g) < 0.05, truth, UNLABELED)
    return Batch(truth[:, None] / 3 + 0.1 * torch.rand(n, 1, size, size, generator=g), scribble, truth=truth)


def gradient(term, parameters):
    grads = torch.autograd.grad(term, list(parameters), retain_graph=True, allow_unused=True)
    return sum(float(g.abs().sum()) for g in grads if g is not None)


def test_every_term_reaches_the_network_and_pcl_the_projections():
    method = scn()
    terms = method.losses(make_batch(), torch.tensor(0.5))
    assert set(terms) == TERMS
    for name, term in terms.items():
        assert torch.isfinite(term) and gradient(term, method.network.encoder[:4].parameters()) > 0, name
        for projection in (method.query, method.key):
            assert (gradient(term, projection.parameters()) > 0) == (name == "pcl"), name
        assert (gradient(term, method.network.head.parameters()) > 0) == (name in {"pce", "pap", "region"}), name


@pytest.mark.parametrize(
    "options",
    [
        {},
        {
            "scale": "outside",
            "overlap": "mask",
            "temperature": 0.5,
            "lambda1": 2.0,
            "lambda2": 3.0,
            "lambda3": 5.0,
            "lambda4": 7.0,
        },
    ],
    ids=["defaults", "others"],
)
def test_terms_follow_their_equations(options):
    """Each term of `losses` against the same quantities put together here, with the regions of the loops."""
    method = scn(rows=16, **options)  # all 16 positions: nothing depends on the draw
    lambda1, lambda2, lambda3, lambda4 = (
        options.get(f"lambda{i}", default) for i, default in zip("1234", (1.0, 0.3, 0.25, 0.1))
    )
    batch = make_batch()
    with torch.no_grad():
        method.key.weight.copy_(method.key.weight.roll(1, 0))  # query and key differ
        terms = method.losses(batch, torch.tensor(0.0))
        maps = method.network.encode(batch.image)
        features = method.network.decode(maps)
        logits = method.network.head(features)
        c = correlation_map(method.query(maps[3]), method.key(maps[3]), options.get("scale", "inside"))
        coarse = F.interpolate(logits.softmax(1), scale_factor=1 / 8, mode="area")
        y = F.interpolate(propagate(c, coarse), scale_factor=8, mode="bilinear", align_corners=False)
        confidence, label = logits.softmax(1).max(1)
        drawn = batch.label < UNLABELED
        label[drawn] = batch.label[drawn]
        mask, overlap = drawn | (confidence > 0.3), options.get("overlap", "region")
        label, mask, _ = refinement_by_loops(c.view(2, 16, 4, 4), label, mask, torch.tensor(0.3), 4, overlap)
        label[drawn] = batch.label[drawn]
        log_probs = logits.log_softmax(1)

        def mean_of(table, where):
            return -table.gather(1, label[:, None])[:, 0][where].mean()

        expected = {
            "pce": lambda1 * mean_of(log_probs, drawn),
            "pap": lambda2 * F.nll_loss(log_probs, y.argmax(1)),
            "pcl": lambda3 * mean_of((y / y.sum(1, keepdim=True)).log(), mask),
            "region": lambda3 * mean_of(log_probs, mask),
        }
        pseudo = torch.where(mask, label, UNLABELED)
        contrast = class_contrast(features, batch.label, pseudo, 4, options.get("temperature", 0.1))
        expected["cacl_scribble"], expected["cacl_unlabel"] = lambda4 * contrast[0], lambda4 * contrast[1]
    assert torch.equal(method.latest["pseudo_label"], pseudo)
    for name, value in expected.items():
        assert terms[name].item() == pytest.approx(value.item(), rel=1e-4), name


def test_literal_forms_of_single_equations():
    """eq. 1: one map, no projections; eq. 9-10, 15-16 and 19: the printed denominators; eq. 13-14: dot products."""
    batch, now = make_batch(), torch.tensor(0.0)
    method = scn(rows=16, averages="printed", cosine=False, temperature=3.0)
    terms = method.losses(batch, now)
    usual = scn(rows=16).losses(batch, now)
    pseudo = method.latest["pseudo_label"]
    drawn, covered = (batch.label != UNLABELED).sum(), (pseudo != UNLABELED).float().mean()
    assert 0 < covered < 1
    torch.testing.assert_close(terms["pce"], usual["pce"] * drawn)
    for name in ("pcl", "region"):
        torch.testing.assert_close(terms[name], usual[name] * covered)
    features = method.network.decode(method.network.encode(batch.image))
    expected = class_contrast(features, batch.label, pseudo, 4, 3.0, cosine=False, by_class=True)
    torch.testing.assert_close(terms["cacl_scribble"], 0.1 * expected[0])
    torch.testing.assert_close(terms["cacl_unlabel"], 0.1 * expected[1])
    torch.testing.assert_close(terms["pap"], usual["pap"])

    method = scn(projections=False)
    maps, *_ = method.network.maps_features_and_logits(batch.image)
    torch.testing.assert_close(method.correlation(maps), correlation_map(maps[8], maps[8]))
    assert {name.split(".")[0] for name, _ in method.named_parameters()} == {"network"}
    assert gradient(method.losses(batch, now)["pcl"], method.network.encoder[:4].parameters()) > 0


def test_regions_are_cut_at_tau_and_grow_in_turn_if_asked():
    """The second position's normalised value is .7: in ĉ above .5, not above τ = .8."""
    correlation = torch.tensor([[1.0, 0.7, 0.0, 0.0]]).expand(1, 4, 4)
    unsure = torch.full((1, 3, 1, 4), 1 / 3)
    scribble = torch.tensor([[[2, UNLABELED, UNLABELED, UNLABELED]]])
    found = {}
    for cut in (0.5, 0.0):
        method = scn(threshold=0.8, stride=1, region_threshold=0.5, region_cut=cut, growth="one by one")
        found[cut] = method.refine(unsure, correlation, scribble)[0].flatten().tolist()
    assert found == {0.5: [2, 2, UNLABELED, UNLABELED], 0.0: [2, UNLABELED, UNLABELED, UNLABELED]}


def test_rows_dim_and_stride_reach_the_map_and_the_projections_start_alike():
    method = scn(rows=5, dim=3, stride=4)
    method.losses(make_batch(), torch.tensor(0.0))
    assert method.latest["accepted"].shape == (2, 5)
    assert method.query.weight.shape == method.key.weight.shape == (3, 8, 1, 1)
    assert torch.equal(method.query.weight, method.key.weight) and method.query.weight is not method.key.weight
    assert method.correlation(method.network.maps_features_and_logits(make_batch().image)[0]).shape == (2, 64, 64)


def test_unlabelled_pixels_outside_m_get_no_gradient():
    method = scn(threshold=1.0)  # M is the scribbles
    batch = make_batch()
    kept = {}
    method.network.head.register_forward_hook(lambda module, args, out: kept.update(features=args[0], logits=out))
    terms = method.losses(batch, torch.tensor(0.0))
    unlabelled = (batch.label == UNLABELED)[:, None].expand(-1, 4, -1, -1)
    cases = [
        ("pce", "logits", False),
        ("region", "logits", False),
        ("pap", "logits", True),
        ("cacl_scribble", "features", False),
    ]
    for name, where, everywhere in cases:
        grad = torch.autograd.grad(terms[name], kept[where], retain_graph=True)[0]
        assert bool((grad[unlabelled] != 0).any()) == everywhere, name
        assert (grad[~unlabelled] != 0).any(), name


@pytest.mark.parametrize("rsr", [True, False])
def test_scribbles_are_never_overwritten(rsr):
    method = scn(threshold=0.0, rsr=rsr)
    batch = make_batch()
    method.losses(batch, torch.tensor(0.0))
    drawn = batch.label != UNLABELED
    assert torch.equal(method.latest["pseudo_label"][drawn], batch.label[drawn])
    assert bool(method.latest["accepted"].any()) == rsr
    unsure = scn(threshold=1.0, rsr=rsr)
    unsure.losses(batch, torch.tensor(0.0))
    assert torch.equal(unsure.latest["before"] != UNLABELED, drawn)
    assert torch.equal(unsure.latest["pseudo_label"], batch.label)


def test_scribbles_vote_with_their_class_however_unsure_the_prediction():
    """A region of three pixels, two of them scribbled: as 2, where class 1 is predicted, once surely and once not."""
    method = scn(threshold=0.6, stride=1)
    correlation = torch.tensor([[1.0, 1, 1, 0]]).expand(1, 4, 4)
    probs = torch.tensor([[[0.1, 0.8, 0.1], [0.3, 0.4, 0.3], [0.4, 0.3, 0.3], [0.4, 0.3, 0.3]]]).transpose(1, 2)[
        :, :, None
    ]
    label, before, accepted = method.refine(probs, correlation, torch.tensor([[[2, 2, UNLABELED, UNLABELED]]]))
    assert before.flatten().tolist() == [2, 2, UNLABELED, UNLABELED] and accepted.all()
    assert label.flatten().tolist() == [2, 2, 2, UNLABELED]
    label, _, accepted = method.refine(
        probs, correlation, torch.full((1, 1, 4), UNLABELED)
    )  # a third of the region is in M
    assert not accepted.any() and label.flatten().tolist() == [1, UNLABELED, UNLABELED, UNLABELED]


@pytest.mark.parametrize("options, expected", [({}, [True, False]), ({"overlap": "mask"}, [False, True])])
def test_the_overlap_rule_is_the_one_asked_for(options, expected):
    """One of two confident pixels is all of the first slice's region; the only one is a third of the second's."""
    method = scn(threshold=0.6, stride=1, **options)
    correlation = torch.tensor([[1.0, 0, 0, 0], [1, 1, 1, 0]])[:, None].expand(2, 4, 4)
    nothing = torch.full((2, 3, 1, 4), 1 / 3)
    label, _, accepted = method.refine(
        nothing, correlation, torch.tensor([[[2, UNLABELED, 2, UNLABELED]], [[2, *[UNLABELED] * 3]]])
    )
    assert accepted.all(1).tolist() == accepted.any(1).tolist() == expected
    assert label[1, 0].tolist() == [2, *([2, 2] if expected[1] else [UNLABELED] * 2), UNLABELED]


def test_rsr_still_changes_pixels_after_a_long_run():
    """τ follows eq. 12 for the paper's 30 000 steps; every class has sure pixels (.9999), one in ten is unsure."""
    generator = torch.Generator().manual_seed(0)
    label = torch.arange(4).repeat_interleave(8)[None].expand(32, 32).clone()[None]  # four stripes
    confidence = torch.where(torch.rand(1, 32, 32, generator=generator) < 0.1, 0.6, 0.9999)
    probs = torch.full((1, 4, 32, 32), 0.0).scatter(1, label[:, None], confidence[:, None])
    probs = torch.where(probs == 0, ((1 - confidence) / 3)[:, None], probs)
    stripes = label.view(-1, 1) == label.view(1, -1)
    nothing = torch.full_like(label, UNLABELED)
    changed = {}
    for threshold in (0.0, 0.85):
        method = scn(threshold=0.85, stride=1, region_threshold=threshold)
        with torch.no_grad():
            for _ in range(30_000 // 100):
                method.threshold.copy_(update_threshold(method.threshold, probs, 0.999**100))
        assert method.threshold > 0.9998
        after, before, _ = method.refine(probs, stripes.float()[None], nothing)
        changed[threshold] = (after != before).float().mean().item()
    assert changed == {0.0: 0.0, 0.85: pytest.approx((confidence < 0.9).float().mean().item())}


@pytest.mark.parametrize("towards, expected", [("class mean", (0.75 + 0.8) / 2), ("pixel mean", 0.77)])
def test_other_readings_of_what_the_threshold_follows(towards, expected):
    """Class 0 has the confidences .6 and .9, class 1 .8, .75 and .8; class 2 is nowhere."""
    largest = torch.tensor([0.6, 0.9, 0.8, 0.75, 0.8])
    probs = torch.stack([largest, 1 - largest, torch.zeros(5)])
    probs[:, 2:] = probs[[1, 0, 2], 2:]
    found = update_threshold(torch.tensor(0.5), probs[None, :, None], momentum=0.0, towards=towards)
    by_class = {"class mean": (largest[:2].mean() + largest[2:].mean()) / 2, "pixel mean": largest.mean()}
    assert found.item() == pytest.approx(by_class[towards].item()) == pytest.approx(expected, abs=0.02)


def test_as_an_increment_the_threshold_rises_by_a_share_of_eq_12_and_stops_at_1():
    """The largest confidences of the two classes are .6 and .8, their mean is .7."""
    probs = torch.tensor([[[0.6, 0.2, 0.52], [0.4, 0.8, 0.48]]])
    found = update_threshold(torch.tensor(0.5), probs, momentum=0.9, towards="increment")
    assert found.item() == pytest.approx(0.5 + 0.1 * 0.7)
    assert update_threshold(torch.tensor(0.95), probs, momentum=0.9, towards="increment") == 1
    assert SCN(UNet(1, 2), towards="increment").towards == "increment"


@pytest.mark.parametrize("label", [UNLABELED, 2])
@pytest.mark.parametrize("threshold", [0.0, 1.0])
def test_no_scribble_or_one_class_is_finite(label, threshold):
    method = scn(threshold=threshold)
    batch = make_batch()
    terms = method.losses(Batch(batch.image, torch.where(batch.label == 2, label, UNLABELED)), torch.tensor(0.0))
    sum(terms.values()).backward()
    assert all(torch.isfinite(term) for term in terms.values())
    assert all(torch.isfinite(p.grad).all() for p in method.parameters() if p.grad is not None)
    method.after_step(torch.tensor(0.0))
    assert 0 <= method.threshold <= 1


def test_threshold_moves_once_per_step():
    method = scn(threshold=0.5, momentum=0.9)
    batch = make_batch()
    method.losses(batch, torch.tensor(0.0))
    method.losses(batch, torch.tensor(0.0))
    assert method.threshold == 0.5
    method.after_step(torch.tensor(0.0))
    with torch.no_grad():
        expected = update_threshold(torch.tensor(0.5), method.network(batch.image).softmax(1), 0.9)
    assert method.threshold.item() == pytest.approx(expected.item(), abs=1e-6) and method.threshold != 0.5
    assert "threshold" in method.state_dict()
    fixed = scn(threshold=0.5, cgtm=False)
    fixed.losses(batch, torch.tensor(0.0))
    fixed.after_step(torch.tensor(0.0))
    assert fixed.threshold == 0.5


@pytest.mark.parametrize(
    "off, terms",
    [
        (("pap", "rsr", "cacl"), {"pce"}),
        (("cacl",), TERMS - {"cacl_scribble", "cacl_unlabel"}),
        (("pap",), TERMS - {"pap"}),
        (("rsr",), TERMS - {"pcl", "region"}),
        (("pap", "rsr"), {"pce", "cacl_scribble", "cacl_unlabel"}),
    ],
)
def test_switches(off, terms):
    method = scn(**dict.fromkeys(off, False))
    got = method.losses(make_batch(), torch.tensor(0.0))
    method.after_step(torch.tensor(0.0))
    assert set(got) == terms
    assert bool(method.monitor()) == (terms != {"pce"})


def test_monitor_by_hand():
    method = scn()
    pseudo = torch.tensor([[[0, 1, 1, UNLABELED], [2, 2, 0, 0]]])
    method.latest = {
        "pseudo_label": pseudo,
        "before": torch.where(pseudo == 0, pseudo, UNLABELED),
        "accepted": torch.tensor([[True, False, False, False]]),
        "scribble": torch.tensor([[[0, UNLABELED, UNLABELED, UNLABELED], [UNLABELED] * 4]]),
        "truth": torch.tensor([[[0, 1, 2, 3], [2, UNLABELED, 0, 1]]]),
    }
    got = {name: value.item() for name, value in method.monitor().items()}
    expected = {"threshold": 0.3, "coverage": 3 / 8, "coverage_refined": 7 / 8, "changed": 4 / 8, "accepted": 1 / 4}
    assert got == pytest.approx(expected | {"pseudo_accuracy": 3 / 5, "pseudo_accuracy_foreground": 2 / 3})
    method.latest["truth"] = None
    assert {name: value.item() for name, value in method.monitor().items()} == pytest.approx(expected)


def test_pictures_show_what_training_uses():
    method = scn(rows=16).eval()
    batch = make_batch()
    with torch.no_grad():
        pictures = method.pictures(batch)
        method.losses(batch, torch.tensor(0.0))
    assert list(pictures) == ["image", "scribble", "confident", "pseudo_label"]
    assert {value.shape for value in pictures.values()} == {batch.label.shape}
    assert torch.equal(pictures["image"], batch.image[:, 0]) and torch.equal(pictures["scribble"], batch.label)
    assert torch.equal(pictures["confident"], method.latest["before"] != UNLABELED)
    assert torch.equal(pictures["pseudo_label"], method.latest["pseudo_label"])
    assert scn(pap=False, rsr=False, cacl=False).pictures(batch) == {}


@pytest.mark.slow  # test_methods.py compiles these losses too, with other settings
def test_losses_are_captured_whole():
    method = scn(rows=16)
    batch = make_batch()
    expected = method.losses(batch, torch.tensor(0.0))
    got = torch.compile(method.losses, fullgraph=True, backend="eager")(batch, torch.tensor(0.0))
    for name in TERMS:
        assert got[name].item() == pytest.approx(expected[name].item(), rel=1e-5), name

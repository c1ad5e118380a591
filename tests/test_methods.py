"""The contract of a method, over all of METHODS: a method that is added there is tested here."""

import dataclasses
import inspect

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from scribbleseg.core.errors import InputError
from scribbleseg.core.labels import UNLABELED
from scribbleseg.data.case import Volume
from scribbleseg.data.dataset import Case
from scribbleseg.data.volume import Grid
from scribbleseg.data.voxels import Batch, Slices, lay_out
from scribbleseg.methods import METHODS, method_class
from scribbleseg.methods.base import Method
from scribbleseg.networks import build_network
from scribbleseg.networks.dropout import Dropout
from scribbleseg.networks.scribformer import ScribFormerNetwork
from scribbleseg.networks.unet import UNet
from scribbleseg.networks.unet3d import UNet3D

SIZE, CLASSES = 32, 4
USES_TRUTH = {"fullsup"}
# terms that vanish at the start of training by their definition would be listed here, as (method, term): reason
CANNOT_REACH_NETWORK = {}
SMALL = {
    "rloss": {"radius": 1},
    "scn": {"stride": 2},
    "corral": {"taught": 1.0, "soft": 1.0},
}  # options for the small network
UNSURE = {"s2l": {"confidence": 0.3}}  # what an untrained network's eval mode passes
LEVELS = {"fddseg": 5}  # of the small network, where two are too few
POOR = ("empty", "one class", "foreground only", "background only")  # kinds of `volume`
COMPILED_OFTEN = ("pce", "scn", "corral")  # the others in the slow tests: seconds each

every_method = pytest.mark.parametrize("name", METHODS)
IN_3D = [name for name in METHODS if 3 in method_class(name).dims]
every_method_and_dims = pytest.mark.parametrize(
    ("name", "dims"), [(name, 2) for name in METHODS] + [(name, 3) for name in IN_3D]
)


def volume(case: str, kind: str = "scribbled", truth: bool = True) -> Volume:
    """Four slices with a ring (2) round a disc (3) beside a blob (1), and scribbles on some of their pixels."""
    rng = np.random.default_rng(len(case) + sum(map(ord, case)))
    rows, columns = np.mgrid[:SIZE, :SIZE]
    dense = np.zeros((4, SIZE, SIZE), np.uint8)
    for index, slice_ in enumerate(dense):
        radius = np.hypot(rows - 15 - index, columns - 18)
        slice_[np.hypot(rows - 14, columns - 6) < 5] = 1
        slice_[radius < 10] = 2
        slice_[radius < 6] = 3
    image = np.choose(dense, [0.1, 0.8, 0.4, 0.9]) + rng.normal(0, 0.05, dense.shape)
    scribble = np.where(rng.random(dense.shape) < 0.15, dense, UNLABELED).astype(np.uint8)
    dropped = {
        "scribbled": (),
        "empty": (0, 1, 2, 3),
        "one class": (0, 1, 3),
        "foreground only": (0,),
        "background only": (1, 2, 3),
    }[kind]
    scribble[np.isin(scribble, dropped)] = UNLABELED
    grid = Grid((SIZE, SIZE, 4), np.eye(4), None)
    image = image.clip(0, 1).astype(np.float32)[None]
    return Volume(Case(case, (), None, None), image, scribble, dense if truth else None, grid, CLASSES)


def make_method(name: str, seed: int = 0, full: bool = False, dims: int = 2) -> Method:
    """The method in train mode, its network sure of itself (as a trained one is) so that thresholds are passed.

    `full`: at its defaults, on a U-Net of full size; else on a small one, with the options in SMALL.
    """
    torch.manual_seed(seed)
    kind = method_class(name)
    levels = LEVELS.get(name, 2)
    if dims == 3:
        pytest.importorskip("monai")
        network = UNet3D(1, CLASSES, 2.0, (4, 8, 8, 8) if full else (4, 8))
    elif kind.network_name == "unet" and not full:
        network = UNet(1, CLASSES, (8, *[16] * (levels - 1)), (0.1,) * levels)
    elif kind.network_name == "scribformer":
        network = ScribFormerNetwork(1, CLASSES, width=16, dim=64, depth=6)
    else:
        network = build_network(kind.network_name, 1, CLASSES)
    with torch.no_grad():
        for convolution in network.head.modules():
            if isinstance(convolution, (torch.nn.Conv2d, torch.nn.Conv3d)):
                convolution.weight *= 8
                convolution.bias[0] += 3
    return kind(network, **UNSURE.get(name, {}), **({} if full else SMALL.get(name, {}))).train()


def make_batch(method: Method, kind: str = "scribbled", sweeps: int = 20) -> Batch:
    """The four slices of one case, with the method's own targets, after `sweeps` sweeps, or as many as the method has.

    In 3-D the case twice, the second time upside down.
    """
    case = volume("case", kind)
    targets = {key: torch.from_numpy(np.ascontiguousarray(value)) for key, value in method.targets(case).items()}
    image, truth = torch.from_numpy(case.image).movedim(0, 1), torch.from_numpy(case.truth)
    if method.network.dims == 3:
        return make_volumes(method, image[:, 0], targets, truth, sweeps)
    slices = Slices(image, targets.pop("label"), targets, truth)
    for _ in range(min(sweeps, method.sweeps)):
        method.sweep(slices, torch.tensor(0.5))
    maps = {key: value.long() for key, value in slices.maps.items()}
    return Batch(image, slices.label.long(), maps, slices.truth.long())


def make_volumes(method: Method, image: torch.Tensor, targets: dict, truth: torch.Tensor, sweeps: int) -> Batch:
    def two(value):
        return torch.stack([value, value.flip(0)]).flatten()

    maps = {key: two(value) for key, value in targets.items()}
    voxels = lay_out(two(image)[None].half(), maps, two(truth), [tuple(image.shape)] * 2, CLASSES)
    voxels.size = tuple(image.shape)
    for _ in range(min(sweeps, method.sweeps, 2)):
        method.sweep(voxels, torch.tensor(0.5))
    middle = (voxels.shape - 1) / 2
    return voxels.patches(torch.arange(2), middle, torch.eye(3).expand(2, 3, 3))


def seeded_losses(method, batch, progress=0.9, seed=7):
    torch.manual_seed(seed)
    return method.losses(batch, torch.tensor(progress))


def gradients(method, term):
    """Gradients of a term in the network's parameters, zeros where it has none."""
    parameters = list(method.network.parameters())
    found = torch.autograd.grad(term, parameters, retain_graph=True, allow_unused=True)
    return [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, found)]


def assert_same(one, other):
    assert one.keys() == other.keys()
    for key in one:
        torch.testing.assert_close(one[key], other[key], rtol=0, atol=0)


@every_method_and_dims
def test_every_term_sends_a_gradient_to_the_network(name, dims):
    method = make_method(name, full=True, dims=dims)
    terms = seeded_losses(method, make_batch(method))
    assert terms
    for key, term in terms.items():
        assert term.shape == () and term.dtype == torch.float32, key
        assert term.requires_grad, f"{key} is detached"
        if (name, key) not in CANNOT_REACH_NETWORK:
            found = gradients(method, term)
            assert all(g.isfinite().all() for g in found), key
            assert any(g.any() for g in found), f"{key} has no gradient in the network"


@every_method_and_dims
def test_terms_are_float32_under_autocast(name, dims):
    method = make_method(name, dims=dims)
    with torch.autocast("cpu", torch.bfloat16):
        terms = seeded_losses(method, make_batch(method))
    assert all(term.dtype == torch.float32 for term in terms.values()), {key: term.dtype for key, term in terms.items()}


@every_method_and_dims
@pytest.mark.parametrize("kind", POOR)
def test_terms_and_gradients_are_finite_on_poor_batches(name, dims, kind):
    stay_finite(make_method(name, dims=dims), kind, bfloat16=False)


@every_method
@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=pytest.mark.slow if kind != "empty" else ()) for kind in POOR]
)
def test_terms_and_gradients_are_finite_in_bfloat16(name, kind):
    """In 2-D: a CPU trains 3-D in float32 alone (`pick_machine`)."""
    stay_finite(make_method(name), kind, bfloat16=True)


def stay_finite(method, kind, bfloat16):
    batch = make_batch(method, kind)
    for progress in (0.0, 1.0):
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            terms = seeded_losses(method, batch, progress)
        assert all(term.isfinite() for term in terms.values()), terms
        assert all(g.isfinite().all() for g in gradients(method, sum(terms.values())))


@every_method_and_dims
def test_unscribbled_slices_train_through_unsupervised_terms_only(name, dims):
    method = make_method(name, dims=dims)
    for key, term in seeded_losses(method, make_batch(method, "empty")).items():
        if key.startswith("pce"):
            assert term == 0
            assert not any(g.any() for g in gradients(method, term)), key


@every_method_and_dims
def test_losses_repeat_under_a_seed(name, dims):
    method = make_method(name, dims=dims)
    batch = make_batch(method)
    assert_same(seeded_losses(method, batch), seeded_losses(method, batch))


@every_method_and_dims
def test_state_dict_holds_everything_that_a_step_depends_on(name, dims):
    method, other = make_method(name, dims=dims), make_method(name, seed=1, dims=dims)
    batch = make_batch(method)
    for _ in range(2):  # the second leaves the student away from its teacher
        seeded_losses(method, batch)
        method.after_step(torch.tensor(0.5))
        with torch.no_grad():
            for parameter in method.network.parameters():
                parameter += 0.01 * torch.randn_like(parameter)
    expected = seeded_losses(method, batch)
    assert seeded_losses(other, batch) != expected
    other.load_state_dict(method.state_dict())
    assert_same(seeded_losses(other, batch), expected)
    for one in (method, other):
        one.after_step(torch.tensor(0.6))
    assert_same(dict(method.named_parameters()), dict(other.named_parameters()))


class NoHostSync(TorchDispatchMode):
    """Refuses what would make a CUDA step wait for the device: reading a value, or a shape that depends on values."""

    forbidden = (
        "_local_scalar_dense",
        "nonzero",
        "masked_select",
        "unique",
        "bincount",
        "equal",
        "is_nonzero",
        "repeat_interleave",
    )

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        assert not name.startswith(self.forbidden) or name == "equal_", f"aten.{name} waits for the device"
        if name in ("index", "index_put", "index_put_"):
            assert all(i is None or i.dtype != torch.bool for i in args[1]), "indexing by a mask waits for the device"
        return func(*args, **(kwargs or {}))


@every_method_and_dims
def test_a_step_never_waits_for_the_device(name, dims):
    method = make_method(name, dims=dims)
    batch = make_batch(method)
    with NoHostSync():
        sum(seeded_losses(method, batch).values()).backward()
        method.after_step(torch.tensor(0.9))
        method.monitor()


def test_no_host_sync_notices():
    mask = torch.tensor([True, False])
    for waits in (
        lambda: mask.sum().item(),
        lambda: torch.arange(2)[mask],
        lambda: mask.nonzero(),
        lambda: bool(mask.any()),
    ):
        with pytest.raises(AssertionError, match="waits"), NoHostSync():
            waits()


@pytest.mark.parametrize(
    ("name", "dims"),
    [pytest.param(name, 2, marks=() if name in COMPILED_OFTEN else pytest.mark.slow) for name in METHODS]
    + [pytest.param(name, 3, marks=pytest.mark.slow) for name in IN_3D],
)
def test_losses_compile_into_one_graph(name, dims):
    torch._dynamo.reset()
    method = make_method(name, dims=dims)
    for module in method.modules():
        if isinstance(module, Dropout):  # drawn another way when compiled
            module.p = 0.0
    batch, progress = make_batch(method), torch.tensor(0.9)
    expected = seeded_losses(method, batch)
    compiled = torch.compile(method.losses, backend="eager", fullgraph=True)
    torch.manual_seed(7)
    found = compiled(batch, progress)
    for key, value in expected.items():
        torch.testing.assert_close(found[key], value)


@every_method
def test_hyperparameters_are_keyword_only_with_defaults(name):
    positional, *others = inspect.signature(method_class(name)).parameters.values()
    assert positional.name == "network"
    for parameter in others:
        assert parameter.kind is parameter.KEYWORD_ONLY, parameter
        assert isinstance(parameter.default, (bool, int, float, str)), parameter


@every_method
def test_after_step_moves_only_the_teacher_and_towards_the_student(name):
    method = make_method(name)
    with torch.no_grad():
        for parameter in method.network.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    student = [p.clone() for p in method.network.parameters()]
    seeded_losses(method, make_batch(method))
    for _ in range(3):
        teacher = [p.clone() for p in method.teacher.parameters()] if hasattr(method, "teacher") else []
        method.after_step(torch.tensor(0.5))
        for before, after, goal in zip(teacher, getattr(method, "teacher", method.network).parameters(), student):
            assert not after.requires_grad
            torch.testing.assert_close(
                after - goal, (before - goal) * ((after - goal).norm() / (before - goal).norm().clamp(min=1e-12))
            )
            assert (after - goal).norm() < (before - goal).norm() or torch.equal(before, goal)
    for before, after in zip(student, method.network.parameters()):
        assert torch.equal(before, after)


@every_method_and_dims
def test_losses_never_read_the_truth(name, dims):
    method = make_method(name, dims=dims)
    batch = make_batch(method)
    expected = seeded_losses(method, batch)
    for truth in (None, (batch.truth + 1) % CLASSES):
        assert_same(seeded_losses(method, dataclasses.replace(batch, truth=truth)), expected)


@every_method
def test_targets_never_read_the_truth(name):
    method = make_method(name)
    blind = volume("case", truth=False)
    if name in USES_TRUTH:
        with pytest.raises(InputError, match="labelsTr_dense"):
            method.targets(blind)
        return
    expected, found = method.targets(volume("case")), method.targets(blind)
    assert expected.keys() == found.keys() and "label" in found
    for key in found:
        assert np.issubdtype(found[key].dtype, np.integer) and found[key].shape == (4, SIZE, SIZE)
        np.testing.assert_array_equal(expected[key], found[key])


@every_method_and_dims
def test_network_gives_one_score_per_class_and_pixel(name, dims):
    if dims == 3:
        network = make_method(name, full=True, dims=3).network
    else:
        network = build_network(method_class(name).network_name, 1, CLASSES)
    space = (4, SIZE, SIZE)[3 - dims :]
    with torch.no_grad():
        assert network.eval()(torch.rand(2, 1, *space)).shape == (2, CLASSES, *space)


@pytest.mark.parametrize("name", [name for name in METHODS if name not in IN_3D])
def test_methods_of_slices_refuse_a_network_of_volumes(name):
    pytest.importorskip("monai")
    network = UNet3D(1, CLASSES, widths=(4, 8))
    with pytest.raises(InputError, match=r"(works in 2-D; UNet3D is 3-D|needs a network with)"):
        method_class(name)(network)

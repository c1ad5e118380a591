"""The training step: what recording it as a graph relies on, and which kind of step is taken where."""

import ctypes
import json
import subprocess
import sys

import pytest
import torch
from small import small_dataset
from test_methods import every_method, make_method, volume
from test_train import log, same_weights, settings

from scribbleseg.config import Train
from scribbleseg.core.errors import InputError
from scribbleseg.core.recipe import Recipe
from scribbleseg.data.reading import resident
from scribbleseg.data.voxels import Slices
from scribbleseg.methods.base import Method
from scribbleseg.training.augment import random_affine, random_intensity, upright_affine, warp
from scribbleseg.training.average import Average
from scribbleseg.training.machine import pick_machine
from scribbleseg.training.optimizer import make_optimizer
from scribbleseg.training.step import EAGER_STEPS, Step
from scribbleseg.training.train import train

on_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


def make_slices(method: Method) -> Slices:
    case = volume("case")
    targets = {key: torch.from_numpy(value.copy()) for key, value in method.targets(case).items()}
    return Slices(
        torch.from_numpy(case.image).movedim(0, 1), targets.pop("label"), targets, torch.from_numpy(case.truth)
    )


def make_step(name: str, device: str = "cpu", **kind) -> Step:
    method = make_method(name).to(device, memory_format=torch.channels_last)
    slices = make_slices(method).to(torch.device(device))
    optimizer = make_optimizer(Recipe(optimizer="adam"), method, torch.device(device))
    return Step(method, optimizer, slices, torch.float32, average=Average(method.network, 0.9), **kind)


def places(step: Step) -> dict[str, int]:
    state = {
        f"{number} {name}": value
        for number, values in enumerate(step.optimizer.state.values())
        for name, value in values.items()
    }
    average = {f"average {name}": value for name, value in step.average.state_dict(keep_vars=True).items()}
    return {
        name: value.data_ptr() for name, value in {**step.method.state_dict(keep_vars=True), **state, **average}.items()
    }


@every_method
def test_a_step_updates_everything_where_it_lies(name):
    step = make_step(name)
    index = torch.tensor([2, 0])
    step(index, 0.1, 0.01)
    before = places(step)
    weights = [parameter.clone() for parameter in step.method.network.parameters()]
    step(index, 0.2, 0.01)
    assert places(step) == before
    assert not all(torch.equal(*pair) for pair in zip(weights, step.method.network.parameters()))


@every_method
def test_a_step_is_told_slices_and_progress_by_tensors_only(name):
    """A replayed graph computes with the numbers of the step that was recorded, except for what lies in tensors."""
    rows = []
    for told in (0.75, 0.0):
        step = make_step(name)
        step(torch.tensor([3, 1]), 0.25, 0.01)
        step.index.copy_(torch.tensor([2, 0]))
        step.progress.fill_(0.75)
        torch.manual_seed(5)
        rows.append(step.whole(told))
    assert torch.equal(*rows)


def test_names_and_values_of_a_row():
    step = make_step("scn")
    torch.manual_seed(3)
    row = step(torch.tensor([1, 2]), 0.5, 0.0)
    assert row.dtype == torch.float32 and len(row) == len(step.names)
    assert step.names[:3] == ("pce", "pap", "pcl") and "threshold" in step.names
    again = make_step("scn")
    again.index, _ = torch.tensor([1, 2]), again.progress.fill_(0.5)
    torch.manual_seed(3)
    terms = again.forward(again.draw(0.5), 0.5)
    for name, value in terms.items():
        assert row[step.names.index(name)] == value


class Watched(Method):
    """Its loss is the mean of a 1×1 convolution; it keeps what it was shown."""

    def __init__(self):
        super().__init__(torch.nn.Conv2d(1, 1, 1))
        self.seen, self.followed = [], []

    def losses(self, batch, progress):
        self.seen.append((batch.image.clone(), progress.item()))
        return {"mean": self.network(batch.image).mean()}

    def after_step(self, progress):
        self.followed.append((self.network.weight.item(), progress.item()))


@pytest.mark.parametrize(
    "terms, got",
    [
        (torch.zeros(()), "Tensor"),
        ({}, r"\{\}"),
        ({"a": 0.5}, "dict"),
        ({"a": torch.zeros(()), "b": torch.zeros(2, 3)}, r"\{'a': \(\), 'b': \(2, 3\)\}"),
        (None, "NoneType"),
    ],
)
def test_what_losses_return_is_looked_at(terms, got):
    method = Watched()
    method.losses = lambda batch, progress: terms
    slices = Slices(torch.rand(4, 1, 16, 16), torch.zeros(4, 16, 16, dtype=torch.uint8), {}, None)
    step = Step(method, torch.optim.SGD(method.parameters(), lr=1.0), slices, torch.float32)
    with pytest.raises(
        InputError, match=f"Watched.losses returned {got}; expected named terms, each a tensor without axes"
    ):
        step(torch.tensor([0, 1]), 0.0, 0.1)
    del method.losses
    Step(method, torch.optim.SGD(method.parameters(), lr=1.0), slices, torch.float32)(torch.tensor([0, 1]), 0.0, 0.1)


def test_a_method_without_losses_is_named():
    class Half(Method):
        pass

    with pytest.raises(InputError, match="Half defines no losses"):
        Half(torch.nn.Identity()).losses(None, None)


def test_a_step_warps_slices_moves_weights_by_the_rate_and_then_lets_the_method_follow():
    slices = Slices(torch.rand(4, 1, 16, 16), torch.zeros(4, 16, 16, dtype=torch.uint8), {}, None)
    method = Watched()
    step = Step(method, torch.optim.SGD(method.parameters(), lr=1.0), slices, torch.float32)
    index = torch.tensor([3, 0, 2])
    torch.manual_seed(0)
    for progress, lr in ((0.25, 0.5), (0.75, 0.125)):
        weight, random = method.network.weight.item(), torch.get_rng_state()
        step(index, progress, lr)
        torch.set_rng_state(random)
        warped, _ = warp(
            slices.image[index], slices.label[index][:, None].long(), random_affine(3, torch.device("cpu"))
        )
        image, seen_progress = method.seen[-1]
        torch.testing.assert_close(image, warped)
        assert not torch.allclose(image, slices.image[index])
        expected = weight - lr * image.mean().item()  # the gradient of the mean of w·x + b in w
        assert method.network.weight.item() == pytest.approx(expected, abs=1e-6)
        assert method.followed[-1] == (method.network.weight.item(), progress) and seen_progress == progress


def test_an_upright_step_warps_image_and_labels_and_then_changes_the_grey_values_alone():
    torch.manual_seed(0)
    slices = Slices(torch.rand(4, 1, 16, 16), torch.randint(0, 3, (4, 16, 16)).to(torch.uint8), {}, None)
    method, index = Watched(), torch.tensor([3, 0, 2])
    optimizer = torch.optim.SGD(method.parameters(), lr=1.0)
    step = Step(method, optimizer, slices, torch.float32, augmentation="upright")
    step.gather(index)
    torch.manual_seed(0)
    batch = step.draw(0.5)
    torch.manual_seed(0)
    matrix = upright_affine(3, torch.device("cpu"))
    warped, labels = warp(slices.image[index], slices.label[index][:, None].long(), matrix)
    assert torch.equal(batch.label, labels[:, 0])
    torch.testing.assert_close(batch.image, random_intensity(warped))
    assert (batch.image - warped).abs().amax((1, 2, 3)).min() > 0.05, "each slice has other grey values than before"


@pytest.mark.parametrize("method", [pytest.param("effdnet", marks=pytest.mark.slow), "s2l"])
def test_where_the_slices_lie_changes_nothing(tmp_path, monkeypatch, capsys, method):
    """In memory, in a mapped file, and gathered for every step, as where they do not fit on the device."""
    dataset = small_dataset(tmp_path / "small")
    monkeypatch.setattr("scribbleseg.training.calendar.SWEEP_DISTANCE", 2)  # s2l sweeps after the second iteration
    changes = {"method": method, "iterations": 4, "val_share": 0.3, "validations": 1}
    runs = [train(settings(dataset, tmp_path / "memory", **changes))]
    assert "kept in a file" not in capsys.readouterr().err
    monkeypatch.setattr("scribbleseg.data.reading.free_memory", lambda device: 50_000)
    runs.append(train(settings(dataset, tmp_path / "mapped", **changes)))
    assert "kept in a file" in capsys.readouterr().err
    assert not [path.name for path in (dataset / ".scribbleseg").iterdir() if path.is_file() and "npz" not in path.name]
    monkeypatch.setattr("scribbleseg.training.train.Step", lambda *given, **named: host(Step(*given, **named)))
    runs.append(train(settings(dataset, tmp_path / "host", **changes)))
    logs = [without_times(run) for run in runs]
    assert logs[0] == logs[1] == logs[2]
    assert same_weights(runs[0], runs[1]) and same_weights(runs[0], runs[2])


def host(step: Step) -> Step:
    step.resident = False
    return step


def without_times(run) -> list[dict]:
    timed = ("seconds_per_iteration", "peak_memory_mib")
    return [{key: value for key, value in entry.items() if key not in timed} for entry in log(run)]


def test_slices_that_leave_no_room_on_the_device_stay_on_the_host(monkeypatch, capsys):
    slices = Slices(torch.zeros(4, 1, 8, 8), torch.zeros(4, 8, 8, dtype=torch.uint8), {}, None)  # 1280 bytes
    monkeypatch.setattr("scribbleseg.data.reading.free_memory", lambda device: 2500)
    assert resident(slices, torch.device("meta")).image.device.type == "cpu"
    assert "stay in main memory" in capsys.readouterr().err
    monkeypatch.setattr("scribbleseg.data.reading.free_memory", lambda device: 2600)
    assert resident(slices, torch.device("meta")).image.device.type == "meta"
    assert capsys.readouterr().err == ""


def test_which_step_is_taken(monkeypatch):
    monkeypatch.setattr("scribbleseg.training.machine.pick_device", torch.device)
    for device, compile, graph, deterministic, compiled, recorded in (
        ("cpu", "auto", "auto", False, False, False),
        ("cpu", "on", "auto", False, True, False),
        ("cuda", "auto", "auto", False, False, True),  # too short for a compiler
        ("cuda", "off", "auto", False, False, True),
        ("cuda", "off", "off", False, False, False),
        ("cuda", "on", "off", False, True, False),
        ("cuda", "on", "auto", False, True, True),
        ("cuda", "auto", "auto", True, False, False),
    ):
        wanted = {"device": device, "compile": compile, "graph": graph, "deterministic": deterministic}
        machine = pick_machine(Train("data", "run", **wanted), Recipe(iterations=100))
        assert (machine.compiled, machine.recorded) == (compiled, recorded), (device, compile, graph, deterministic)


def test_a_compiled_run_says_so(tmp_path, monkeypatch, capsys):
    compile = torch.compile
    monkeypatch.setattr(torch, "compile", lambda losses, dynamic: compile(losses, dynamic=dynamic, backend="eager"))
    run = train(settings(small_dataset(tmp_path / "small"), tmp_path / "run", compile="on", iterations=3))
    assert json.loads((run / "environment.json").read_text(encoding="utf-8"))["step"] == "compiled"
    assert "compiled in" in capsys.readouterr().err


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="only glibc's malloc is told to keep memory")
def test_freed_memory_stays_with_the_process():
    """After a few steps a tensor takes the pages of an earlier one."""
    code = """
import resource, torch
from scribbleseg.core.device import prepare_cpu
prepare_cpu()
faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(16):
    torch.ones(2**24)
before = faults()
torch.ones(2**24)
print(faults() - before)
"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(found.stdout) < 1000  # of 16384 pages


@on_cuda
@every_method
@pytest.mark.parametrize("compiled", [False, True])
def test_a_recorded_step_is_the_ordinary_one(name, compiled):
    curves, weights = {}, {}
    for recorded in (False, True):
        step = make_step(name, "cuda", compiled=compiled, recorded=recorded)
        torch.manual_seed(1)
        curves[recorded] = torch.stack(
            [step(torch.tensor([number % 4, 3]), number / 10, 1e-3).clone() for number in range(EAGER_STEPS + 5)]
        )
        weights[recorded] = torch.cat([parameter.flatten() for parameter in step.average.parameters()])
    torch.testing.assert_close(weights[True], weights[False], rtol=1e-2, atol=1e-3)
    torch.testing.assert_close(curves[True], curves[False], rtol=1e-3, atol=1e-4)


@on_cuda
@every_method
def test_a_cuda_step_never_waits(name):
    step = make_step(name, "cuda")
    indices = torch.tensor([[0, 1], [2, 3]]).pin_memory()
    step(indices[0], 0.1, 1e-3)
    torch.cuda.set_sync_debug_mode("error")
    try:
        step(indices[1], 0.2, 1e-3)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@on_cuda
def test_cuda_and_cpu_agree(tmp_path):
    dataset = small_dataset(tmp_path / "small")
    logs = []
    for device in ("cpu", "cuda"):
        run = train(settings(dataset, tmp_path / device, device=device, precision="float32", method="pce", set=()))
        logs.append([json.loads(line)["loss"] for line in (run / "log.jsonl").read_text(encoding="utf-8").splitlines()])
    assert logs[0][0] == pytest.approx(
        logs[1][0], rel=0.2
    )  # augmentation and dropout are drawn by each device's own generator


@every_method
def test_no_method_waits_for_values(name, capsys):
    step = make_step(name, foreign=True)
    step(torch.tensor([2, 0]), 0.5, 0.01)
    assert "waits for values" not in capsys.readouterr().err


@pytest.mark.parametrize(
    "waits",
    [
        lambda x: x.sum().item(),
        lambda x: 1 if x.sum() > 0 else 0,
        lambda x: x[x > 0].sum(),
        lambda x: x.nonzero().float().mean(),
        lambda x: x.masked_select(x > 0).mean(),
        lambda x: torch.bincount((x > 0).flatten().long()).float().mean(),
        lambda x: x.flatten().unique_consecutive().mean(),
        lambda x: x.flatten().repeat_interleave((x > 0).flatten().long()).sum(),
    ],
)
def test_code_of_others_that_waits_is_named_and_not_recorded(waits, capsys):
    step = make_step("pce", foreign=True)
    losses, step.graph = step.losses, object()  # as on CUDA

    def waiting(batch, progress):
        return {name: value + 0 * waits(batch.image) for name, value in losses(batch, progress).items()}

    step.losses = waiting
    step.gather(torch.tensor([2, 0]))
    step.whole(0.5)
    assert step.graph is None
    assert capsys.readouterr().err.startswith("test_step.py:")


def test_what_needs_no_value_is_let_pass(capsys):
    step = make_step("pce", foreign=True)
    losses = step.losses

    def filling(batch, progress):
        image = batch.image.clone()
        image[image > 0] = 0
        return {
            name: value + image.where(image > 1, 0).repeat_interleave(2).sum()
            for name, value in losses(batch, progress).items()
        }

    step.losses = filling
    step(torch.tensor([0, 1]), 0.5, 0.01)
    assert capsys.readouterr().err == ""


def test_in_3d_a_cpu_computes_in_float32(monkeypatch):
    monkeypatch.setattr("scribbleseg.core.device._cpu", lambda: {"avx512_bf16": True})
    config = Train("data", "run", device="cpu")
    assert pick_machine(config, Recipe(), 2).dtype == torch.bfloat16
    assert pick_machine(config, Recipe(), 3).dtype == torch.float32
    with pytest.raises(InputError, match="--precision bfloat16: in 3-D PyTorch's gradients are wrong on a CPU"):
        pick_machine(Train("data", "run", device="cpu", precision="bfloat16"), Recipe(), 3)

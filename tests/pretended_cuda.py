"""python tests/pretended_cuda.py LIBRARY: the step of every method on a CUDA device that is not there, for
test_pretended_cuda.py.

Fake tensors know their device and shape and hold no values; LIBRARY is pretended_cuda.cpp, which a CPU build of PyTorch
needs to make them, and which has to be there before PyTorch is. Prints, as JSON, what went wrong per method and number
format ("" for nothing).
"""

import ctypes
import json
import sys

ctypes.CDLL(sys.argv[1], mode=ctypes.RTLD_GLOBAL)

import torch
from test_methods import make_method
from test_step import make_slices
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from scribbleseg.data.voxels import Slices
from scribbleseg.methods import METHODS
from scribbleseg.training.average import Average
from scribbleseg.training.step import Step

CUDA = torch.device("cuda:0")  # with a number: without one PyTorch asks the driver for the current device
FORMATS = {"float32": torch.float32, "bfloat16": torch.bfloat16}
SWEEPS_ON_THE_HOST = {"corral"}  # twice in a run, by SciPy's random walker


class OnOneDevice(TorchDispatchMode):
    """Refuses a copy from or to the host, which a graph cannot have and any other step waits for, and tensors of two
    devices in one operation.

    Numbers (0-d tensors of the CPU) are no tensors here: they travel with the call. `convolved`: the formats that
    convolutions were given.
    """

    def __init__(self):
        super().__init__()
        self.convolved = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        found, name = func(*args, **(kwargs or {})), func.overloadpacket.__name__
        if name == "convolution":
            self.convolved.add(args[0].dtype)
        if name != "device":
            tensors = [value for value in tree_leaves((args, kwargs)) if isinstance(value, Tensor)]
            copied = tensors + [found] if name in ("_to_copy", "copy_") else [value for value in tensors if value.dim()]
            devices = {value.device.type for value in copied}
            assert len(devices) < 2, f"aten.{name} with tensors of {' and '.join(sorted(devices))}"
        return found


def moved(mode: FakeTensorMode, value: Tensor) -> Tensor:
    there = mode.from_tensor(value.detach())
    with mode:
        there = there.to(CUDA)
        return torch.nn.Parameter(there, value.requires_grad) if isinstance(value, torch.nn.Parameter) else there


def pretended_step(mode: FakeTensorMode, name: str, dtype: torch.dtype) -> Step:
    """The step of test_step.make_step, everything in it on the pretended device."""
    method = make_method(name)
    slices, average = make_slices(method), Average(method.network, 0.9)
    for module in (*method.modules(), *average.modules()):
        for table in (module._parameters, module._buffers):
            table.update({key: moved(mode, value) for key, value in table.items() if value is not None})
    image, label, truth = (moved(mode, layer) for layer in (slices.image, slices.label, slices.truth))
    slices = Slices(image, label, {key: moved(mode, value) for key, value in slices.maps.items()}, truth)
    with mode:
        optimizer = torch.optim.SGD(
            [p for p in method.parameters() if p.requires_grad], lr=0.01
        )  # the fused ones know no fake tensors
        step = Step(method, optimizer, slices, dtype, average=average)
        step.index = torch.zeros(2, dtype=torch.int64, device=CUDA)
    return step


def take_steps(name: str, format: str) -> None:
    """Two steps, a sweep that runs on the device, and pictures. Raises where something is not on the device."""
    mode, seen = FakeTensorMode(), OnOneDevice()
    step = pretended_step(mode, name, FORMATS[format])
    with mode, seen:
        for _ in range(2):
            row = step.whole(0.9)
            step.optimizer.zero_grad()
        assert seen.convolved == {FORMATS[format]}, f"convolutions in {seen.convolved}"
        assert (row.device, row.dtype, len(row)) == (CUDA, torch.float32, len(step.names)), (
            f"a row of {row.dtype} on {row.device}"
        )
        if step.method.sweeps and name not in SWEEPS_ON_THE_HOST:
            step.method.sweep(step.slices, torch.full((), 0.5, device=CUDA))
        with torch.no_grad(), torch.autocast("cuda", FORMATS[format], enabled=format != "float32"):
            step.method.eval().pictures(step.draw(0.5))


def check_that_it_notices() -> None:
    mode = FakeTensorMode()
    with mode:
        there, here = torch.ones(2, device=CUDA), torch.ones(2)
    for forbidden in (
        lambda: there + here,
        lambda: there.sum().item(),
        lambda: there[there > 0],
        lambda: here.to(CUDA),
        lambda: there.cpu(),
        lambda: there.copy_(here),
        lambda: torch.tensor([1.0, 2.0], device=CUDA),
        lambda: there[here.long()],
    ):
        try:
            with mode, OnOneDevice():
                forbidden()
        except (AssertionError, RuntimeError):
            continue
        raise SystemExit(f"not noticed: line {forbidden.__code__.co_firstlineno}")


def main() -> None:
    torch.cuda.amp.common.amp_definitely_not_available = lambda: False  # or autocast turns itself off
    torch.cuda.is_bf16_supported = lambda including_emulation=True: True
    torch.cuda.set_device = lambda device: None
    check_that_it_notices()
    wrong = {}
    for name in METHODS:
        for format in FORMATS:
            try:
                take_steps(name, format)
                wrong[f"{name} {format}"] = ""
            except (
                Exception
            ) as error:  # of any kind: the other methods are still tried, and the test of this one fails with it
                wrong[f"{name} {format}"] = f"{type(error).__name__}: {''.join(str(error).splitlines()[:1])}"
    print(json.dumps(wrong))


if __name__ == "__main__":
    main()

"""Count the least time of a training step on a machine of known rates.

python benchmarks/timing/floor.py --tflops 790 --tbs 4.3 [--size 256]

The script runs every method's step on fake tensors, which have shapes and no values. It counts multiply-adds (as two
operations) of convolutions and matrix products, and the bytes that operations read and write, in bfloat16 where
autocast computes in it. `fused` counts the bytes of convolutions and matrix products only, as if everything else
happened inside them. In `eager` every operation reads its inputs and writes its outputs. The floor is the larger of
operations over --tflops and bytes over --tbs. Nothing is measured. Writes benchmarks/results/floor-SIZE.csv and .md.
"""

import argparse
import shlex
import sys
from pathlib import Path

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from scribbleseg.core.labels import UNLABELED
from scribbleseg.data.voxels import Slices
from scribbleseg.methods import METHODS, method_class
from scribbleseg.networks import build_network
from scribbleseg.networks.dropout import Dropout
from scribbleseg.training.step import Step

sys.path.append(str(Path(__file__).parents[1]))

from common import RESULTS, markdown_table, write_csv, write_page

MAPS = {"s2l": ("ensemble",), "fddseg": ("superpixel",)}  # what they are trained on beside the scribbles
PRODUCTS = ("convolution", "convolution_backward", "mm", "addmm", "bmm", "baddbmm")
NO_WORK = ("device", "detach", "empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided")
COLUMNS = ("method", "batch", "gflop", "convolved_values", "fused_gb", "eager_gb", "operations")


class CudaDropout(nn.Module):
    """nn.Dropout as it is on CUDA: one operation."""

    def __init__(self, p: float):
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        return torch.native_dropout(x, self.p, self.training)[0] if self.p else x


class Traffic(TorchDispatchMode):
    """Bytes of what operations read and write, and how many operations, views aside; bytes of products alone; values
    that forward convolutions wrote."""

    def __init__(self):
        super().__init__()
        self.eager = self.fused = self.convolved = self.operations = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        found, name = func(*args, **(kwargs or {})), func.overloadpacket.__name__
        if not func.is_view and name not in NO_WORK:
            moved = sum(value.nbytes for value in tree_leaves((args, kwargs, found)) if isinstance(value, Tensor))
            self.eager += moved
            self.operations += 1
            self.fused += moved if name in PRODUCTS else 0
            self.convolved += found.numel() if name == "convolution" else 0
        return found


def make_step(mode: FakeTensorMode, name: str, size: int) -> Step:
    """The step as on CUDA."""
    kind = method_class(name)
    method = kind(build_network(kind.network_name, 1, 4)).train()
    for module in list(method.modules()):
        for key, child in module.named_children():
            if isinstance(child, Dropout):
                setattr(module, key, CudaDropout(child.p))
        for table in (module._parameters, module._buffers):
            for key, value in table.items():
                if value is not None:
                    fake = mode.from_tensor(value.detach())
                    table[key] = nn.Parameter(fake, value.requires_grad) if isinstance(value, nn.Parameter) else fake
    count = kind.recipe.batch
    with mode:
        label = torch.full((count, size, size), UNLABELED, dtype=torch.uint8)
        slices = Slices(torch.zeros(count, 1, size, size), label, dict.fromkeys(MAPS.get(name, ()), label), None)
        optimizer = torch.optim.SGD([p for p in method.parameters() if p.requires_grad], lr=0.01)
        step = Step(method, optimizer, slices, torch.bfloat16)
        step.index = torch.arange(count)
    return step


def count(name: str, size: int) -> dict:
    """A line of the table."""
    mode, flops, traffic = FakeTensorMode(), FlopCounterMode(display=False), Traffic()
    step = make_step(mode, name, size)
    with mode, flops, traffic, sdpa_kernel(SDPBackend.MATH):  # attention as matrix products, which are counted
        step.whole(0.9)
    return dict(
        zip(
            COLUMNS,
            (
                name,
                method_class(name).recipe.batch,
                flops.get_total_flops() / 1e9,
                traffic.convolved,
                traffic.fused / 1e9,
                traffic.eager / 1e9,
                traffic.operations,
            ),
        )
    )


def table(lines: list[dict], tflops: float, tbs: float) -> str:
    head = ["method", "batch", "GFLOP", "convolution outputs, millions", "GB fused", "GB eager", "operations"]
    head += ["arithmetic, ms", "memory fused, ms", "memory eager, ms", "floor, ms", "at most, it/s"]
    rows = []
    for line in lines:
        times = line["gflop"] / tflops, line["fused_gb"] / tbs, line["eager_gb"] / tbs
        floor = max(times[:2])
        cells = [line["method"], line["batch"], f"{line['gflop']:.0f}", f"{line['convolved_values'] / 1e6:.0f}"]
        cells += [f"{line['fused_gb']:.2f}", f"{line['eager_gb']:.2f}", line["operations"]]
        rows.append([*cells, *(f"{value:.2f}" for value in times), f"{floor:.2f}", f"{1000 / floor:.0f}"])
    return markdown_table(head, rows)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=256, help="rows and columns of a slice, pixels")
    parser.add_argument(
        "--tflops", type=float, required=True, help="rate of the machine in bfloat16, 10¹² operations per second"
    )
    parser.add_argument("--tbs", type=float, required=True, help="rate of its memory, 10¹² bytes per second")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder for the tables")
    given = parser.parse_args()
    lines = [count(name, given.size) for name in METHODS]
    about = (
        f"At {given.size}², batch of the method's recipe, bfloat16, {given.tflops:g} TFLOP/s and {given.tbs:g} TB/s. "
        f"Made by `python {shlex.join(sys.argv)}`; nothing is measured. `fused`: convolutions and matrix products "
        "alone read and write; `eager`: every operation does, and `operations` counts them: each is at least one "
        "kernel. `floor`: the larger of arithmetic and fused memory."
    )
    path, found = given.results / f"floor-{given.size}.md", table(lines, given.tflops, given.tbs)
    write_csv(path.with_suffix(".csv"), lines, COLUMNS)
    write_page(path, "# Counted floor of a training step", about, found)
    print(found)


if __name__ == "__main__":
    main()

"""One run on several processes, started by torchrun: ranks, parts of a batch, and sums over the whole batch.

Every process holds the whole model and all slices, and takes an equal part of every batch. DistributedDataParallel
averages the gradients. Losses pass their sums over the batch through `batch_sum`, so that a loss is that of the whole
batch. In one process these functions change nothing.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from .errors import InputError


@contextmanager
def joined() -> Iterator[None]:
    """Join the processes that torchrun started into one group: nccl between GPUs, gloo between CPUs.

    Without torchrun this does nothing. If processes end with an InputError, the first of them raises it and the
    others exit without a message.
    """
    if not dist.is_torchelastic_launched() or dist.is_initialized():
        yield
        return
    store, own, count = next(dist.rendezvous("env://"))
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() and dist.is_nccl_available() else "gloo"
    dist.init_process_group(backend, store=dist.PrefixStore("scribbleseg", store), rank=own, world_size=count)
    try:
        yield
        wait_for_all()
    except (InputError, KeyboardInterrupt) as error:
        if store.add("scribbleseg/failed", 1) > 1:
            raise SystemExit(1) from error
        raise  # torchrun ends the others
    dist.destroy_process_group()


def processes() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """The number of this process. Process 0 writes files, validates and prints messages."""
    return dist.get_rank() if dist.is_initialized() else 0


def wait_for_all() -> None:
    if processes() > 1:
        dist.all_reduce(torch.zeros(()))  # on the CPU: a barrier of nccl would guess a GPU


@contextmanager
def first_process_first() -> Iterator[None]:
    """Process 0 runs the block first, alone. Then the others run it and can read the files that process 0 wrote."""
    if rank():
        wait_for_all()
    yield
    if not rank():
        wait_for_all()


def own_device(name: str) -> str:
    """The --device of this process. On CUDA each has its own GPU. Raises InputError if one GPU is named for all."""
    if processes() == 1:
        return name
    if name.startswith("cuda:"):
        raise InputError(
            f"--device {name}: {processes()} processes cannot share one GPU. Use --device cuda; each takes its own."
        )
    cuda = name == "cuda" or (name == "auto" and torch.cuda.is_available())
    return f"cuda:{dist.get_node_local_rank()}" if cuda else name


def own_part(batch: int) -> slice:
    """Which slices of a batch this process takes. Raises InputError if the batch cannot be divided evenly."""
    count = processes()
    if batch % count:
        raise InputError(
            f"--batch {batch} is the batch of all {count} processes together; expected a multiple of {count}. "
            "Choose another --batch."
        )
    size = batch // count
    return slice(rank() * size, (rank() + 1) * size)


@contextmanager
def own_noise(seed: int, progress: float, device: torch.device) -> Iterator[None]:
    """In the block, which is one step, this process draws its own random numbers. Outside all draw the same ones."""
    if processes() == 1:
        yield
        return
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(hash((seed, progress, rank())))
        yield


class _Sum(torch.autograd.Function):
    """Sum over processes. Its gradient is a sum too: the loss of every process depends on the sum."""

    @staticmethod
    def forward(ctx: Any, part: Tensor) -> Tensor:
        total = part.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return _Sum.apply(gradient)


def batch_sum(part: Tensor) -> Tensor:
    """Σ over the whole batch, from the Σ over this process's part of it.

    A loss made of such sums has the value that one process would have found and, after averaging over processes,
    the gradient too. All processes must call it, in the same order. So only `Method.losses` and the loss functions
    that it calls may use it. Sweeps, pictures, monitoring and validation may run in one process alone, and that
    process would wait for the others forever.
    """
    return _Sum.apply(part) if processes() > 1 else part


def batch_cat(part: Tensor) -> Tensor:
    """Join the parts of all processes, which have equal shapes, along the first axis. For small tensors.

    Like `batch_sum` it may be called in `Method.losses` only.
    """
    if processes() == 1:
        return part
    places = part.new_zeros(processes(), *part.shape)
    places[rank()] = part
    return batch_sum(places).flatten(0, 1)


def process_mean(value: Tensor) -> Tensor:
    """Mean over processes, without a gradient."""
    if processes() == 1:
        return value
    total = value.clone()
    dist.all_reduce(total)
    return total / processes()


@torch.no_grad()
def agree(method: nn.Module) -> None:
    """Replace 0-d floating-point buffers (thresholds, counts) by their means over processes."""
    if processes() == 1:
        return
    buffers = [buffer for buffer in method.buffers() if buffer.is_floating_point() and not buffer.dim()]
    if buffers:
        for buffer, value in zip(buffers, process_mean(torch.stack([buffer.float() for buffer in buffers]))):
            buffer.copy_(value)


def spread(method: Any, device: torch.device) -> Callable[..., dict[str, Tensor]]:
    """`method.losses`, whose `backward` averages gradients over processes and whose batch norms see the whole batch."""
    if processes() == 1:
        losses: Callable[..., dict[str, Tensor]] = method.losses
        return losses
    if device.type == "cuda":
        torch.cuda.set_device(device)
        nn.SyncBatchNorm.convert_sync_batchnorm(method)
    else:
        for module in method.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.__class__ = _BatchNormOfAll
    # static: the graph is the same in every step, as a method never branches on values
    return DistributedDataParallel(_Losses(method), static_graph=True)


class _Losses(nn.Module):
    """A method's losses as a forward pass, and the parameters whose gradients DistributedDataParallel averages.

    It leaves out the buffers, which may be large.
    """

    def __init__(self, method: Any):
        super().__init__()
        self.trained = nn.ParameterList(p for p in method.parameters() if p.requires_grad)
        self.losses = method.losses

    def forward(self, *inputs: Any) -> Any:
        return self.losses(*inputs)


class _BatchNormOfAll(nn.BatchNorm2d):
    """Batch norm over the equal parts of all processes. For CPUs, because SyncBatchNorm needs GPUs."""

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor
    momentum: float

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        values = x.to(torch.promote_types(x.dtype, torch.float32))
        count = processes() * values.numel() // values.shape[1]
        mean = _Sum.apply(values.sum((0, 2, 3))) / count
        centred = values - mean[:, None, None]
        variance = _Sum.apply(centred.square().sum((0, 2, 3))) / count
        with torch.no_grad():
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * (count / (count - 1)), self.momentum)
        scale = self.weight * (variance + self.eps).rsqrt()
        return (centred * scale[:, None, None] + self.bias[:, None, None]).to(x.dtype)

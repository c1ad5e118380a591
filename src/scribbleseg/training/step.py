"""One optimiser step, from slice numbers to new weights: eager, compiled, or recorded as a CUDA graph and replayed."""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from ..core import distributed
from ..core.console import say
from ..core.errors import InputError
from ..data.voxels import Batch, Slices, Voxels
from ..methods.base import Method
from .augment import AUGMENTATIONS, own_augmentation, random_affine, random_intensity, upright_affine
from .average import Average
from .batches import augment_slices, augmented, draw_patches
from .waits import Waits

EAGER_STEPS = 3  # before the recording: they initialise libraries and the optimiser's state, and compile


class Step:
    """`step(index, progress, lr)` draws and augments a batch, sums the method's terms, and updates weights and method.

    Returns the terms and then what the method monitors, float32 [len(step.names)], valid until the next call; `names`
    are known after the first call. Nothing in a step waits for the device. `compiled`: the losses go through
    torch.compile in the first call. `recorded` (CUDA): after EAGER_STEPS ordinary steps one step is recorded as a
    graph, with its random numbers and the optimiser, and replayed from then on with one launch. Slices, weights,
    buffers and optimiser state then have to stay where they are in memory. Slices on another device than the method's
    are gathered there and copied in every step. `foreign`: method or network are somebody else's code; if it waits for
    values of tensors in the first step, this is said, and no step is recorded.
    """

    def __init__(
        self,
        method: Method,
        optimizer: torch.optim.Optimizer,
        slices: Slices | Voxels,
        dtype: torch.dtype,
        *,
        part: slice = slice(None),  # of the batch: this process's
        seed: int = 0,  # of what each process draws for itself
        layout: torch.memory_format = torch.channels_last,
        augmentation: str = "papers",
        average: Average | None = None,
        compiled: bool = False,
        recorded: bool = False,
        foreign: bool = False,
    ):
        self.method, self.optimizer, self.slices, self.dtype, self.seed = method, optimizer, slices, dtype, seed
        self.upright = augmentation == "upright"
        self.own = None if augmentation in AUGMENTATIONS else own_augmentation(augmentation)
        self.device = next(method.parameters()).device
        self.resident = slices.label.device == self.device
        self.losses: Callable[..., dict[str, Tensor]] = distributed.spread(method, self.device)
        self.compiled, self.part, self.layout, self.average = compiled, part, layout, average
        self.foreign = foreign and not compiled
        if compiled:
            self.losses = torch.compile(self.losses, dynamic=False)
        if self.device.type == "cuda":
            torch.cuda.set_device(self.device)  # a graph is recorded on the current one
        self.names: tuple[str, ...] = ()
        self.taken = 0
        self.graph = torch.cuda.CUDAGraph() if recorded else None
        self.progress, self.lr = torch.zeros(2, device=self.device).unbind()
        self.row = torch.zeros(0)
        self.index: Tensor | None = None
        self.drawn: Slices | None = None

    @property
    def kind(self) -> str:
        """eager, compiled, recorded, or compiled and recorded."""
        return " and ".join(["compiled"] * self.compiled + ["recorded"] * (self.graph is not None)) or "eager"

    def __call__(self, index: Tensor, progress: float, lr: float) -> Tensor:
        self.gather(index)
        self.progress.fill_(progress)
        self.lr.fill_(lr)
        for group in self.optimizer.param_groups:
            group["lr"] = lr if self.graph is None else self.lr
        if self.graph is None:
            self.row = self.whole(progress)
            self.optimizer.zero_grad()
        elif self.taken < EAGER_STEPS:
            self.row = self.aside(progress)
        else:
            if self.taken == EAGER_STEPS:
                with torch.cuda.graph(
                    self.graph
                ):  # no gradient is there: each gets its place in the graph's own memory
                    self.row = self.whole(progress)
            self.graph.replay()
        self.taken += 1
        return self.row

    def whole(self, progress: float) -> Tensor:
        batch = self.draw(progress)
        if self.names or not self.foreign:
            terms = self.forward(batch, progress)
        else:
            with Waits() as waits:
                terms = self.forward(batch, progress)
            self.leave_unrecorded(waits.found)
        if not self.names:
            check_terms(self.method, terms)
        torch.stack(list(terms.values())).sum().backward()
        self.update()
        row = {**terms, **self.method.monitor()}
        self.names = tuple(row)
        return torch.stack([value.detach().float() for value in row.values()])

    def leave_unrecorded(self, places: list[str]) -> None:
        """Say where the code waits, if it does, and record no step."""
        if not places:
            return
        self.graph = None
        if distributed.rank() == 0:
            say(
                f"{', '.join(places)}: waits for values of tensors (CONTRIBUTING.md). On CUDA such a step is not "
                "recorded as a graph, and slower"
            )

    def aside(self, progress: float) -> Tensor:
        """A step on another stream, as CUDA wants it before a recording."""
        here, stream = torch.cuda.current_stream(self.device), torch.cuda.Stream(self.device)
        stream.wait_stream(here)
        with torch.cuda.stream(stream):
            row = self.whole(progress)
            self.optimizer.zero_grad()
        here.wait_stream(stream)
        return row

    def gather(self, index: Tensor) -> None:
        """Copy batch indices (or host slices) into the CUDA graph's input buffers."""
        if self.index is None:
            self.index = torch.empty_like(index, device=self.device)
        self.index.copy_(index, non_blocking=True)
        if self.resident or isinstance(self.slices, Voxels):
            return
        found = self.slices.take(index[self.part])
        if self.drawn is None:
            self.drawn = found.to(self.device)
        for place, value in zip(self.drawn.layers(), found.layers()):
            place.copy_(value.pin_memory() if self.device.type == "cuda" else value, non_blocking=True)

    def draw(self, progress: float) -> Batch:
        """The augmented batch. Matrices are drawn for the whole batch, even if this process has only a part of it.

        An augmentation of the user sees the part, and each process draws its own random numbers for it.
        """
        assert self.index is not None
        if isinstance(self.slices, Voxels):
            batch = draw_patches(self.slices, self.index, self.part, self.layout, straight=self.own is not None)
            return batch if self.own is None else self.augment(batch, progress)
        drawn = self.slices.take(self.index[self.part]) if self.drawn is None else self.drawn
        if self.own is not None:
            return self.augment(drawn, progress)
        affine = upright_affine if self.upright else random_affine
        batch = augment_slices(drawn, affine(len(self.index), self.device)[self.part], self.layout)
        return replace(batch, image=random_intensity(batch.image)) if self.upright else batch

    def augment(self, drawn: Slices | Batch, progress: float) -> Batch:
        """What the user's own augmentation makes of it."""
        assert self.own is not None
        with distributed.own_noise(self.seed + 1, progress, self.device):  # other numbers than those of the losses
            return augmented(drawn, self.own, self.layout)

    def forward(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        noise = distributed.own_noise(self.seed, progress, self.device)
        with noise, torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
            return self.losses(batch, self.progress)

    def update(self) -> None:
        self.optimizer.step()
        self.method.after_step(self.progress)
        distributed.agree(self.method)
        if self.average is not None:
            self.average.update(self.method.network)


def check_terms(method: Method, terms: object) -> None:
    """Raises InputError unless `losses` returned named 0-d tensors, one at least, and `monitor` has other names."""
    got: object = type(terms).__name__
    if isinstance(terms, dict) and all(isinstance(value, Tensor) for value in terms.values()):
        if terms and all(value.ndim == 0 for value in terms.values()):
            if twice := sorted(terms.keys() & method.monitor().keys()):
                raise InputError(
                    f"{type(method).__name__}: {', '.join(twice)}: names of losses and of monitored values. "
                    "Give the monitored values other names."
                )
            return
        got = {name: tuple(value.shape) for name, value in terms.items()}
    raise InputError(
        f"{type(method).__name__}.losses returned {got}; expected named terms, each a tensor without axes, "
        'such as {"pce": loss.mean()}.'
    )

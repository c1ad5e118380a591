"""Find where the code of a step waits for values of tensors: such a step cannot be recorded as a CUDA graph."""

import traceback
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

ATEN = torch.ops.aten
READING = (
    *(ATEN._local_scalar_dense, ATEN.nonzero, ATEN.masked_select, ATEN.equal, ATEN._unique2, ATEN.unique_dim),
    *(ATEN.unique_consecutive, ATEN.bincount, ATEN.repeat_interleave),
)
INDEXING = (ATEN.index, ATEN.index_put, ATEN.index_put_, ATEN._index_put_impl_)
TORCH = str(Path(torch.__file__).parent)


class Waits(TorchDispatchMode):
    """In its block, `found` gets FILE:LINE of the code whose next line needs the value of a tensor, on any device.

    That is `.item()`, `float(tensor)`, `if tensor`, and results whose shape depends on values, such as those of
    `nonzero` and `image[mask]`. `.tolist()`, `.numpy()` and `.cpu()` are not seen.
    """

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.overloadpacket in READING or (func.overloadpacket in INDEXING and _by_mask(*args[1:3])):
            frames = [frame for frame in traceback.extract_stack()[:-1] if not frame.filename.startswith(TORCH)]
            place = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}"
            if place not in self.found:
                self.found.append(place)
        return func(*args, **(kwargs or {}))


def _by_mask(indices: Any, values: Any = None) -> bool:
    """Whether a mask is among the indices. `x[mask] = number` is filled in without counting the mask."""
    masks = any(isinstance(index, Tensor) and index.dtype in (torch.bool, torch.uint8) for index in indices)
    return masks and not (isinstance(values, Tensor) and values.numel() == 1)

"""Which slice is drawn next: orders of the slices that have no stroke yet, by how unsure the model is of them."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Suggested:
    """A slice, counted from 0, and the mean entropy of its prediction, 0 to 1."""

    case: str
    slice: int
    uncertainty: float


def least_sure(
    uncertainty: Mapping[str, Sequence[float]], drawn: Mapping[str, Collection[int]], spread: bool = False
) -> Suggested | None:
    """The slice without strokes whose mean entropy is the highest; None if every slice has strokes.

    uncertainty: case → mean entropy of each slice. drawn: case → its slices with strokes. `spread`: only slices of the
    cases that have the fewest drawn slices.
    """
    open_ = {
        name: [index for index in range(len(values)) if index not in drawn.get(name, ())]
        for name, values in uncertainty.items()
    }
    names = [name for name, indices in open_.items() if indices]
    if spread and names:
        fewest = min(len(drawn.get(name, ())) for name in names)
        names = [name for name in names if len(drawn.get(name, ())) == fewest]
    found = [Suggested(name, index, uncertainty[name][index]) for name in names for index in open_[name]]
    return max(found, key=lambda each: each.uncertainty, default=None)

"""Which slice is drawn next: at random, cases in turn. docs/draw.md says what other orders gained."""

import random
from collections.abc import Callable, Collection, Mapping


def next_slice(drawn: Mapping[str, Collection[int]], depth: Callable[[str], int]) -> tuple[str, int] | None:
    """A case with the fewest drawn slices, and one of its slices without strokes; None if every slice has strokes.

    drawn: case → its slices with strokes, counted from 0. depth: how many slices a case has. Both are chosen at random,
    and stay the same until `drawn` changes.
    """
    generator = random.Random(sum(map(len, drawn.values())))
    names = generator.sample(sorted(drawn), len(drawn))
    for name in sorted(names, key=lambda name: len(drawn[name])):
        free = sorted(set(range(depth(name))) - set(drawn[name]))
        if free:
            return name, generator.choice(free)
    return None

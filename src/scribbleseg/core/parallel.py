"""Process several cases at once, on threads."""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

from .progress import Progress

Item = TypeVar("Item")
Result = TypeVar("Result")


def for_each(label: str, function: Callable[[Item], Result], items: Iterable[Item], shown: bool = True) -> list[Result]:
    """Apply `function` to every item on threads and show progress. Reading and unpacking files release the GIL."""
    items = list(items)
    results = []
    with (
        ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool,
        Progress(label, len(items), "cases", shown=shown) as bar,
    ):
        for result in pool.map(function, items):
            results.append(result)
            bar.advance()
    return results


def ahead(pool: ThreadPoolExecutor, function: Callable, items: Sequence, count: int) -> Iterator:
    """`map` on a thread pool, which computes at most `count` results before they are taken."""
    rest = iter(items)
    waiting = [pool.submit(function, item) for item in islice(rest, count)]
    while waiting:
        yield waiting.pop(0).result()
        waiting += [pool.submit(function, item) for item in islice(rest, 1)]

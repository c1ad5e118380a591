"""SIGTERM, which schedulers send, and SIGHUP, which a closed terminal sends, stop a verb as Ctrl-C does."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def stops(handler: Callable[[int, FrameType | None], object] = signal.default_int_handler) -> Iterator[None]:
    """In the block `handler` takes the signals of STOPS; by default they raise KeyboardInterrupt.

    A SIGHUP that is ignored (nohup) stays ignored. In a thread that is not the main one nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {}
    for number in STOPS:
        if not (number == signal.SIGHUP and signal.getsignal(number) is signal.SIG_IGN):
            before[number] = signal.signal(number, handler)
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)

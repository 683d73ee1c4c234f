"""SIGTERM in the middle of long work: it waits for a good moment, and then ends the process as it always does."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def sigterm_waits() -> Iterator[Callable[[], bool]]:
    """Let SIGTERM wait for the block's end. The block is given a function that says whether it came: it asks often,
    saves what it has, and leaves.

    At the end of the block the signal does what it did before: it ends the process, or calls the handler that was
    there. Where the block does not run in the main thread, which alone may change handlers, nothing waits.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    came = threading.Event()
    before = signal.signal(signal.SIGTERM, lambda number, frame: came.set())
    try:
        yield came.is_set
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL if before is None else before)
        if came.is_set():
            signal.raise_signal(signal.SIGTERM)

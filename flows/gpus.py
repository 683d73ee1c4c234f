"""GPUs of this machine: what they are called, and one job at a time on each, whatever run the job is of."""

from __future__ import annotations

import logging
import os
import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

logger = logging.getLogger(__name__)
VISIBLE = "CUDA_VISIBLE_DEVICES"


def names_of(numbers: Sequence[int]) -> tuple[str, ...]:
    """What `CUDA_VISIBLE_DEVICES` calls the GPUs that a process counts as `numbers`, of those that it may see."""
    seen = [name.strip() for name in os.environ.get(VISIBLE, "").split(",") if name.strip()]
    return tuple(seen[number] if seen else str(number) for number in numbers)


@contextmanager
def held(names: Sequence[str]) -> Iterator[None]:
    """Hold GPUs for as long as the block lasts, after every other job of this user that does. The locks are the
    operating system's, and die with their process; a GPU that is named in two ways has two."""
    with ExitStack() as locks:
        for name in sorted(names):
            lock = FileLock(Path(tempfile.gettempdir()) / f"radaug-gpu-{re.sub(r'[^A-Za-z0-9-]', '_', name)}.lock")
            try:
                lock.acquire(timeout=0)
            except Timeout:
                logger.info("waits for GPU %s, on which another run computes", name)
                lock.acquire()
            except PermissionError:  # another user's
                continue
            locks.callback(lock.release)
        yield

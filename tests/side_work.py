"""Work for other processes, and a parent of such to be ended."""

from __future__ import annotations

import os
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from pipeline.core.errors import UnreadableImage
from pipeline.core.workers import side_by_side


@dataclass(frozen=True)
class Squared:
    """Squares numbers; cannot read some, and is killed at others."""

    unreadable: tuple[int, ...] = ()
    killed: tuple[int, ...] = ()

    def __call__(self, number: int) -> int:
        if number in self.killed:
            os.kill(os.getpid(), signal.SIGKILL)
        if number in self.unreadable:
            raise UnreadableImage(f"{number}.png", "it is odd")
        return number**2


@dataclass(frozen=True)
class Sleeping:
    """Writes the process's number into a file, and sleeps for ever; the first item is done at once."""

    folder: Path

    def __call__(self, number: int) -> int:
        if number:
            (self.folder / str(os.getpid())).touch()
            time.sleep(3600)
        return number


if __name__ == "__main__":
    with side_by_side(Sleeping(Path(sys.argv[1])), range(1, 9), processes=2, name_of=str) as results:
        list(results)

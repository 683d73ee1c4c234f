"""Unexpected faults: their traceback may hold a patient's id, so it goes to a file, not to a terminal or a server."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.core.errors import RadaugError, UserError, is_out_of_memory
from pipeline.core.files import clear_disk_errors, write_text

DEBUG = "RADAUG_DEBUG"
"""Environment variable: when set, tracebacks are printed too (`radaug --debug`)."""


@contextmanager
def faults_kept_in(log: Path, doing: str) -> Iterator[None]:
    """Let radaug's own errors pass without the chain of their causes; turn any other into one that names `log`.

    Raises:
        UserError: memory ran out, or the disk is so full that not even the traceback can be kept.
        RadaugError: an unexpected exception; its message gives the type alone, since its text may hold a patient's id.
    """
    try:
        yield
    except RadaugError as error:
        raise error from None
    except Exception as error:
        text = traceback.format_exc()
        with clear_disk_errors(log.parent):  # what fills the disk fails here once more
            write_text(log, text)
            log.chmod(0o600)
        if os.environ.get(DEBUG):
            print(text, file=sys.stderr)
        if is_out_of_memory(error):
            raise UserError(
                f"{doing}: memory ran out. Use a smaller batch or smaller images, compute.workers: 1, or a machine or "
                "a limit with more memory. Finished stages and checkpoints are kept."
            ) from None
        raise RadaugError(
            f"{doing}: {type(error).__name__}, a fault of radaug's. The traceback is in {log} "
            "(it may name patients: read it before you send it)."
        ) from None

"""Where memory runs out, the same batch is computed in more parts."""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from pipeline.config.families import GanSettings
from pipeline.core.errors import is_out_of_memory
from pipeline.core.files import write_text
from pipeline.core.records import Record

logger = logging.getLogger(__name__)
PARTS = "parts.txt"
"""In a half-written directory: in how many parts its batches are computed, where these are more than was asked."""
_FEWEST = 2
"""Images a part, at least: batch norm has nothing to go by with one."""


def within_memory(
    gan: GanSettings, out_dir: Path, name: str, attempt: Callable[[GanSettings], Record], devices: int = 1
) -> Record:
    """What `attempt` returns; where memory runs out in it, that of an attempt with twice as many parts a batch.

    A later attempt goes on at the last checkpoint, or begins anew: nothing of the step that failed is left. Images a
    batch, and so what a step learns from, stay as they are, but for batch norm and adaptive augmentation, whose
    statistics are those of a part. A training that is killed and goes on keeps its parts.

    Raises:
        MemoryError, RuntimeError: what ran out of memory, where a batch cannot be divided further: parts have two
            images, several processes train together, or it is private and has batches of random size.
    """
    asked, gan = gan.accumulate, _as_left(gan, out_dir)
    while True:
        try:
            record = attempt(gan)
        except Exception as error:
            parts = _more_parts(gan) if is_out_of_memory(error) and devices == 1 else None
            if parts is None:
                raise
        else:
            (out_dir / PARTS).unlink(missing_ok=True)
            return record if gan.accumulate == asked else replace(record, notes=(*record.notes, _note(gan, name)))
        # outside the handler, which holds what the failed step made
        gc.collect()
        torch.cuda.empty_cache()
        gan = gan.model_copy(update={"accumulate": parts})
        write_text(out_dir / PARTS, str(parts))
        logger.warning("%s: memory ran out; on with batches of %d in %d parts of %d. To spare the attempt: "
                       "gan.accumulate: %d.", name, gan.batch_size, parts, gan.batch_size // parts, parts)  # fmt: skip


def _note(gan: GanSettings, name: str) -> str:
    size = gan.batch_size // gan.accumulate
    return f"{name}: memory ran out, so batches of {gan.batch_size} were computed in {gan.accumulate} parts of {size}."


def _as_left(gan: GanSettings, out_dir: Path) -> GanSettings:
    try:
        parts = int((out_dir / PARTS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return gan
    return gan.model_copy(update={"accumulate": parts})


def _more_parts(gan: GanSettings) -> int | None:
    """At least twice as many parts as before, the fewest that divide the batch; None where there are none."""
    if gan.dp is not None:
        return None
    most = gan.batch_size // _FEWEST
    return next((n for n in range(2 * gan.accumulate, most + 1) if gan.batch_size % n == 0), None)

"""Where memory runs out, a classifier is trained anew with the same batches in more parts."""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

import numpy as np
import torch

from pipeline.core.errors import is_out_of_memory
from pipeline.supervised.batches import Mixed

logger = logging.getLogger(__name__)
Result = TypeVar("Result")
_FEWEST = 2
"""Images a part, at least: batch norm has nothing to go by with one."""
_noted: ContextVar[list[int] | None] = ContextVar("noted", default=None)


def in_parts_that_fit(attempt: Callable[[int], Result], batch_size: int) -> Result:
    """What `attempt` returns of the fewest parts a batch, 1, 2, 4 and so on, with which memory does not run out.

    Every attempt begins anew, so its result is that of a training which had these parts from the start.

    Raises:
        MemoryError, RuntimeError: what ran out of memory, where parts would have less than two images.
    """
    parts = 1
    while True:
        try:
            result = attempt(parts)
        except Exception as error:
            if not is_out_of_memory(error) or 2 * parts * _FEWEST > batch_size:
                raise
        else:
            if parts > 1 and (noted := _noted.get()) is not None:
                noted.append(parts)
            return result
        # outside the handler, which holds what the failed step made
        gc.collect()
        torch.cuda.empty_cache()
        parts *= 2
        told = "memory ran out while a classifier was trained; anew with batches of %d in %d parts of %d or less."
        logger.warning(told, batch_size, parts, -(-batch_size // parts))


@contextmanager
def divided_batches() -> Iterator[list[int]]:
    """In how many parts batches were computed, of each training within the block that had to divide them."""
    noted: list[int] = []
    before = _noted.set(noted)
    try:
        yield noted
    finally:
        _noted.reset(before)


def divided_note(arm: str, fits: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """A sentence for the report where batches of an arm's classifiers had to be divided.

    Args:
        fits: the facts of each; "parts" of those that were divided.
    """
    parts = [fit["parts"] for fit in fits if "parts" in fit]
    if not parts:
        return ()
    return (
        f"{arm}: memory ran out, so {len(parts)} of its {len(fits)} classifiers were trained with every batch in up to "
        f"{max(parts)} parts. What a step learns from is the same, but batch norm saw a part at a time: compare it "
        "with care to an arm whose batches were whole.",
    )


def in_parts(batch: Mixed, parts: int) -> Iterator[Mixed]:
    """The batch in parts, each with about as many images of every domain and class, and of every share."""
    if parts == 1:
        yield batch
        return
    order = np.lexsort((batch.target.argmax(dim=1).cpu().numpy(), batch.domain.cpu().numpy()))
    for number in range(parts):
        rows = torch.from_numpy(order[number::parts]).to(batch.target.device)
        yield batch.at(rows)

"""Processes that start ready, and end with the one that started them."""

from __future__ import annotations

import multiprocessing
import os
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerContext, SpawnContext
from typing import Any, TypeVar

Result = TypeVar("Result")


def ready_context(*modules: str) -> ForkServerContext | SpawnContext:
    """Processes forked from a server that has `modules` in memory; started anew where a system has none."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["__main__", *modules])
    return context


def end_with_parent() -> None:
    """End this process when its parent does, however that happens; for a process that `multiprocessing` started."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    sentinel = parent.sentinel

    def watch() -> None:
        wait([sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


@contextmanager
def computed_beside(work: Callable[[], Result]) -> Iterator[Callable[[], Result]]:
    """Do `work` in a fork of this process while the block goes on. What the block is given waits for the result, and
    raises what `work` raised.

    `work` must not compute on a GPU, which a fork cannot do. Where a system has no fork, or the fork dies, it is done
    in this process when the result is asked for.
    """
    if "fork" not in multiprocessing.get_all_start_methods():
        yield work
        return
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)
    child = context.Process(target=_send_outcome, args=(theirs, work), daemon=True)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*multi-threaded.*fork", category=DeprecationWarning)
        child.start()
    theirs.close()

    def outcome() -> Result:
        try:
            found: Result | Exception = ours.recv()
        except (EOFError, OSError):
            return work()
        if isinstance(found, Exception):
            raise found
        return found

    try:
        yield outcome
    finally:
        child.kill()
        child.join()
        ours.close()


def _send_outcome(connection: Connection, work: Callable[[], Any]) -> None:
    end_with_parent()
    try:
        outcome = work()
    except Exception as error:  # raised again by the parent
        outcome = error
    connection.send(outcome)

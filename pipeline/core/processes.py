"""Processes that start ready, and end with the one that started them."""

from __future__ import annotations

import multiprocessing
import os
import threading
from multiprocessing.connection import wait
from multiprocessing.context import ForkServerContext, SpawnContext


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

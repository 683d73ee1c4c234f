"""One step in a process of its own: started ready, followed by its log, and never left behind.

Children are forked from a server that has the libraries in memory ("forkserver"), or started anew where a system has
none. A child ends when its parent is gone, however that happened; Ctrl-C reaches the parent alone, which ends them.
"""

from __future__ import annotations

import logging
import os
import queue
import signal
import threading
import time
from collections.abc import Mapping
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from logging.handlers import QueueHandler
from multiprocessing import forkserver
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerContext, SpawnContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from flows.faults import faults_kept_in
from flows.gpus import VISIBLE, held, names_of
from flows.plan import Step
from pipeline.core.cache import Execution, execute, execute_part
from pipeline.core.errors import Killed, RadaugError
from pipeline.core.processes import end_with_parent, ready_context

LOGGED = ("flows", "pipeline", "radaug")
"""Loggers whose records come from a child to its parent."""
GRACE_S = 10.0
MEND = "Run the same command again: finished stages and checkpoints are kept."
_READY = ["flows.ready"]
_PAUSES_S = (0.0, 0.1, 0.5, 2.0)
"""Before each attempt to start a child: a server that was killed is not gone at once."""
_running: dict[int, BaseProcess] = {}
_changing = threading.Lock()


def job_name(step: Step, part: str) -> str:
    """What a step, or one of its parts, is called in logs and errors."""
    return f"{step.name}: {part}" if part else step.name


@dataclass(frozen=True)
class Work:
    """What a child is to do.

    Attributes:
        part: of the step; empty for the step itself.
        directories: of the steps that it needs.
        fault_log: takes the traceback of an unexpected fault.
        threads: to compute with.
        gpus: numbers of those that it may see; None = all.
    """

    step: Step
    part: str
    directories: Mapping[str, Path]
    cache: Path
    fault_log: Path
    threads: int
    gpus: tuple[int, ...] | None = None

    @property
    def name(self) -> str:
        return job_name(self.step, self.part)

    def do(self) -> Execution | None:
        """Do it in this process; a part has no execution of its own.

        Raises:
            RadaugError: the stage's own error, or an unexpected one without its text (see `flows.faults`).
        """
        with faults_kept_in(self.fault_log, self.name):
            stage = self.step.stage(self.directories)
            if self.part:
                execute_part(stage, self.part, self.cache, self.threads)
                return None
            return execute(stage, self.cache, self.threads)


def in_child(work: Work) -> Execution | None:
    """Do `work` in a child process; what the child logs is logged here.

    Raises:
        RadaugError: as of `Work.do`.
        Killed: the child ended before the work did.
    """
    context = ready_context(*_READY)
    ours, theirs = context.Pipe(duplex=False)
    with _changing:
        child = _started(context, theirs, work)
        assert child.pid is not None
        _running[child.pid] = child
    theirs.close()
    try:
        outcome = _followed(ours)
    finally:
        child.join()
        with _changing:
            _running.pop(child.pid)
        ours.close()
    if isinstance(outcome, _Ended):
        raise Killed(_how_it_ended(work.name, child.exitcode))
    if isinstance(outcome, RadaugError):
        raise outcome
    return outcome


def _started(context: ForkServerContext | SpawnContext, theirs: Connection, work: Work) -> BaseProcess:
    """A child at work. Where the server that forks children was killed, another one is started and asked.

    Raises:
        Killed: that one was killed too, and the next ones.
    """
    levels = {name: logging.getLogger(name).getEffectiveLevel() for name in LOGGED}
    for pause in _PAUSES_S:
        time.sleep(pause)
        child = context.Process(target=_child, args=(theirs, work, dict(os.environ), levels), name=work.name)
        try:
            child.start()
        except (EOFError, ConnectionError):
            continue
        return child
    raise Killed(f"{work.name}: the process that starts the others was killed, {len(_PAUSES_S)} times. {MEND}")


def warm_up() -> None:
    """Let the server of children load its libraries while this process does other things."""
    if isinstance(ready_context(*_READY), ForkServerContext):
        forkserver.ensure_running()


def end_children(grace_s: float = GRACE_S) -> None:
    """End all children: ask them, and kill after `grace_s` seconds those that are still there."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with _changing:
            alive = dict(_running)
        for pid in alive:
            with suppress(ProcessLookupError):
                os.kill(pid, number)
        end = time.monotonic() + grace_s
        while alive and time.monotonic() < end:
            wait([child.sentinel for child in alive.values()], timeout=end - time.monotonic())
            alive = {pid: child for pid, child in alive.items() if _is_there(pid)}
        if not alive:
            return


def _is_there(pid: int) -> bool:
    with _changing:
        return pid in _running


class _Ended:
    """A child that said nothing more."""


def _followed(connection: Connection) -> Any:
    """The child's outcome, after its log records were handled."""
    while True:
        try:
            message = connection.recv()
        except (EOFError, OSError):
            return _Ended()
        if not isinstance(message, logging.LogRecord):
            return message
        logging.getLogger(message.name).handle(message)


def _how_it_ended(name: str, code: int | None) -> str:
    if code == -signal.SIGKILL:
        return (
            f"{name}: its process was killed, most often because memory ran out. Set compute.workers: 1, a smaller "
            f"batch or smaller images, or ask for more memory. {MEND}"
        )
    if code is not None and code < 0:
        return f"{name}: its process was ended by signal {-code} ({signal.Signals(-code).name}). {MEND}"
    return f"{name}: its process ended with code {code} before the work did. {MEND}"


def _child(connection: Connection, work: Work, environment: dict[str, str], levels: dict[str, int]) -> None:
    for one in (signal.SIGINT, signal.SIGHUP):  # which a terminal sends to all: the parent ends its children
        signal.signal(one, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.environ.clear()
    os.environ.update(environment)  # the server's is that of its own start
    gpus = names_of(work.gpus or ())
    if work.gpus is not None:
        os.environ[VISIBLE] = ",".join(gpus)
    end_with_parent()
    handler = _Sender(connection, work.name)
    for name, level in levels.items():
        logger = logging.getLogger(name)
        logger.setLevel(level)
        logger.handlers, logger.propagate = [handler], False
    try:
        with held(gpus):
            outcome: Execution | RadaugError | None = work.do()
    except RadaugError as error:
        outcome = error
    handler.enqueue(outcome)


class _Sender(QueueHandler):
    """Sends log records, each with the name of its job, and at last the outcome, to the parent."""

    def __init__(self, connection: Connection, job: str) -> None:
        super().__init__(queue.SimpleQueue())  # never used: a record goes out at once
        self.connection, self.job = connection, job

    def prepare(self, record: logging.LogRecord) -> Any:
        prepared = super().prepare(record)
        prepared.job = self.job
        prepared.template = record.msg  # `prepare` puts its arguments in
        return prepared

    def enqueue(self, record: Any) -> None:
        with self.lock or nullcontext(), suppress(BrokenPipeError):  # the parent is gone, and this process will be
            self.connection.send(record)

"""A run that is cancelled in Prefect's pages. Schedules and workers end those that they have started, and no other."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import StateType

logger = logging.getLogger(__name__)
_LOOKS_S = 5.0
"""Between two questions to the server."""


@contextmanager
def ended_when_cancelled(flow_run: str) -> Iterator[None]:
    """Send SIGTERM to this process once somebody has cancelled its flow run while the block lasts."""
    over = threading.Event()
    threading.Thread(target=_watch, args=(UUID(flow_run), over), name="cancelled", daemon=True).start()
    try:
        yield
    finally:
        over.set()


def _watch(flow_run: UUID, over: threading.Event) -> None:
    while not over.wait(_LOOKS_S):
        if _is_cancelled(flow_run) and not over.is_set():
            logger.warning("cancelled in Prefect's pages")
            os.kill(os.getpid(), signal.SIGTERM)
            return


def _is_cancelled(flow_run: UUID) -> bool:
    with suppress(Exception), get_client(sync_client=True) as client:  # a server may go away: see `flows.gone`
        state = client.read_flow_run(flow_run).state
        return state is not None and state.type in (StateType.CANCELLING, StateType.CANCELLED)
    return False

"""A Prefect server that lives and dies with its run. Prefect's own temporary server outlives a killed run."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import uvicorn
from prefect.server.api.server import create_app
from prefect.settings import PREFECT_API_URL, get_current_settings, temporary_settings

from pipeline.core.errors import RadaugError

HOST = "127.0.0.1"
START_S = 180.0
_STOP_S = 10.0


@contextmanager
def prefect_server() -> Iterator[None]:
    """Use the server that `PREFECT_API_URL` names, or else one of this process's own until the block ends.

    Raises:
        RadaugError: the server could not be started.
    """
    if PREFECT_API_URL.value():
        yield
        return
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "flows.server", str(port)],
        env=os.environ | get_current_settings().to_environment_variables(exclude_unset=True),
        stdin=subprocess.PIPE,  # closed when this process ends, however it ends
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # Ctrl-C is for the run, which then ends the server
    )
    try:
        url = f"http://{HOST}:{port}/api"
        _wait_until_healthy(process, url)
        with temporary_settings(updates={PREFECT_API_URL: url}):
            yield
    finally:
        process.communicate()


def free_port() -> int:
    """A port that nothing listens on at this moment."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def _wait_until_healthy(process: subprocess.Popen[bytes], url: str) -> None:
    end = time.monotonic() + START_S
    while time.monotonic() < end and process.poll() is None:
        try:
            if httpx.get(f"{url}/health", timeout=5, trust_env=False).is_success:
                return
        except httpx.HTTPError:
            time.sleep(0.1)
    raise RadaugError(
        "The local Prefect server did not start. Try `prefect server start` in another terminal to see why, "
        "or set PREFECT_API_URL to a server that runs."
    )


def _serve(port: int) -> None:
    """Serve until standard input ends, that is until the process that started this one is gone."""
    settings = uvicorn.Config(
        create_app(ephemeral=True, final=True), HOST, port, log_level="error", timeout_graceful_shutdown=2
    )
    server = uvicorn.Server(settings)

    def end_with_parent() -> None:
        sys.stdin.buffer.read()
        server.should_exit = True
        time.sleep(_STOP_S)
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()
    server.run()


if __name__ == "__main__":
    _serve(int(sys.argv[1]))

"""A Prefect server that lives and dies with its run. Prefect's own temporary server outlives a killed run."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time

API_URL = "PREFECT_API_URL"
OWN = "RADAUG_OWN_SERVER"
"""Environment variable: set where API_URL is that of `start_server`."""
HOST = "127.0.0.1"
START_S = 180.0
_STOP_S = 10.0


def start_server() -> subprocess.Popen[bytes] | None:
    """Start a server for this process, unless `PREFECT_API_URL` names one; set that variable to it.

    It ends when this process ends, however that happens: its standard input is then closed. Call it before prefect
    is imported, which reads the variable, and `wait_for_server` before the flow.
    """
    if os.environ.get(API_URL):
        return None
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "flows.server", str(port)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # Ctrl-C is for the run alone, which then tells the server how it ended
    )
    os.environ[API_URL] = f"http://{HOST}:{port}/api"
    os.environ[OWN] = "1"
    return process


def has_pages() -> bool:
    """Whether `PREFECT_API_URL` names a server of the user's, with pages that stay; a run's own has none."""
    return bool(os.environ.get(API_URL)) and not os.environ.get(OWN)


def wait_for_server(process: subprocess.Popen[bytes] | None) -> bool:
    """Wait until the server of `start_server` answers; False where it ended, or did not answer in three minutes."""
    end = time.monotonic() + START_S
    while process is not None and not server_answers(os.environ[API_URL]):
        if process.poll() is not None or time.monotonic() > end:
            process.kill()
            del os.environ[API_URL]
            os.environ.pop(OWN, None)
            return False
        time.sleep(0.1)
    return True


def server_answers(url: str) -> bool:
    import httpx  # here, because every command imports this module

    try:
        return httpx.get(f"{url}/health", timeout=10).is_success
    except httpx.HTTPError:
        return False


def free_port() -> int:
    """A port that nothing listens on at this moment."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def _serve(port: int) -> None:
    """Serve until standard input ends, that is until the process that started this one is gone."""
    import uvicorn
    from prefect.server.api.server import create_app

    app = create_app(ephemeral=True, final=True)
    server = uvicorn.Server(uvicorn.Config(app, HOST, port, log_level="error", timeout_graceful_shutdown=2))

    def end_with_parent() -> None:
        sys.stdin.buffer.read()
        server.should_exit = True
        time.sleep(_STOP_S)
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()
    server.run()


if __name__ == "__main__":
    _serve(int(sys.argv[1]))

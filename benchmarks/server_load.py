"""What a run asks of a Prefect server: bytes over the network, connections, the server's computing, its database.

Run: .venv/bin/python benchmarks/server_load.py [--runs 2]        (about 2 minutes a run on an idle machine)

A server of its own on SQLite; the run (the demo, made tiny) talks to it through a proxy that counts. `idle` is the
server's computing over 30 s when nobody asks anything, which is taken off that of the runs.
"""

from __future__ import annotations

import argparse
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import httpx
import psutil

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))
from tiny_run import TINY  # noqa: E402

from flows.server import free_port, server_answers  # noqa: E402

_IDLE_S = 30.0
_CHUNK = 65_536


class Proxy:
    """Hands connections on to a port of this machine and counts what goes through."""

    def __init__(self, to: int) -> None:
        self.to, self.counts, self._changing = to, Counter[str](), threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            here, _ = self._listener.accept()
            there = socket.create_connection(("127.0.0.1", self.to))
            self._count("connections", 1)
            for one, other, what in ((here, there, "sent"), (there, here, "received")):
                threading.Thread(target=self._hand_on, args=(one, other, what), daemon=True).start()

    def _hand_on(self, one: socket.socket, other: socket.socket, what: str) -> None:
        with suppress(OSError):
            while data := one.recv(_CHUNK):
                other.sendall(data)
                self._count(what, len(data))
        for end in (one, other):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def _count(self, what: str, number: int) -> None:
        with self._changing:
            self.counts[what] += number


def computing(server: psutil.Process) -> float:
    """Seconds of the server's processes so far."""
    spent = [one.cpu_times() for one in (server, *server.children(recursive=True))]
    return sum(one.user + one.system for one in spent)


def database(home: Path) -> int:
    return sum(path.stat().st_size for path in home.glob("prefect.db*"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=2)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        home, port = Path(folder) / "prefect", free_port()
        home.mkdir()
        environment = os.environ | {"PREFECT_HOME": str(home), "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}
        prefect = [str(Path(sys.executable).parent / "prefect"), "server", "start", "--port", str(port)]
        with subprocess.Popen(prefect, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
            try:
                while not server_answers(f"http://127.0.0.1:{port}/api"):
                    time.sleep(1)
                measure(asked.runs, Path(folder), port, psutil.Process(server.pid), home, environment)
            finally:
                server.terminate()


def measure(runs: int, place: Path, port: int, server: psutil.Process, home: Path, environment: dict[str, str]) -> None:
    before = computing(server)
    time.sleep(_IDLE_S)
    idle = (computing(server) - before) / _IDLE_S
    print(f"idle: {idle:.3f} s of computing a second, {psutil.Process(server.pid).memory_info().rss / 2**20:.0f} MiB")
    changes = [token for one in TINY for token in ("--set", one)]
    for number in range(runs):
        proxy, size = Proxy(port), database(home)
        before, started = computing(server), time.monotonic()
        command = ["run", str(ROOT / "configs" / "demo.yaml"), "--out", str(place / str(number) / "run"), *changes]
        address = {"PREFECT_API_URL": f"http://127.0.0.1:{proxy.port}/api", "PYTHONPATH": str(ROOT)}
        whole = [sys.executable, "-m", "flows.cli", *command]
        subprocess.run(whole, env=environment | address, check=True, stdout=subprocess.DEVNULL)
        seconds = time.monotonic() - started
        answer = httpx.post(f"http://127.0.0.1:{port}/api/task_runs/count", json={}, timeout=30)
        spent, grown = computing(server) - before - idle * seconds, (database(home) - size) / 1e6
        print(
            f"run {number}: {seconds:.0f} s, tasks so far {answer.json()}, sent {proxy.counts['sent'] / 1e6:.2f} MB, "
            f"received {proxy.counts['received'] / 1e6:.2f} MB, {proxy.counts['connections']} connections, "
            f"server {spent:.1f} s, database {grown:.2f} MB",
            flush=True,
        )


if __name__ == "__main__":
    main()

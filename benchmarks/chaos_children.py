"""Does a graph ever hang when its children are killed? Small jobs, hit again and again, and the seconds until it ends.

Run: .venv/bin/python benchmarks/chaos_children.py [--hits 100] [--seed 0]     (half a minute a hit on a loaded machine)

A graph of thirteen small jobs, three of them parts of one stage, two at a time; at a random
moment one of its processes, whichever but the first (a child at work, the server that forks them, the one that tracks
their resources), gets SIGKILL or SIGTERM. The graph must end within two minutes: whole, or with the error of the job
that was hit, and no process of it may be left. A row a hit goes to benchmarks/results/chaos_children.csv.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import psutil
from rows import append
from runs_to_hit import ROOT, executed

TABLE = ROOT / "benchmarks" / "results" / "chaos_children.csv"
COLUMNS = ["seed", "number", "hit", "signal", "after_s", "exit", "ended_s", "left", "said"]
LIMIT_S, LONGEST_S = 120.0, 8.0
GRAPH = """
import sys
from pathlib import Path
import flows.children
from graph_stages import step
from test_graph import DEMO, Notes, run_graph
from pipeline.config.loading import load_experiment
from pipeline.core.errors import RadaugError

flows.children._READY.clear()  # these stages need no libraries
if __name__ == "__main__":
    chains = [step(f"{name}{n}", *([f"{name}{n - 1}"] if n else []), what="nap") for name in "abc" for n in range(3)]
    steps = [*chains, step("whole", "a0", parts=("x", "y", "z"))]
    try:
        made = run_graph(load_experiment(DEMO, ["compute.device=cpu"]), Path(sys.argv[1]), steps, Notes())
        print(f"whole: {len(made)} stages")
    except RadaugError as error:
        print(error)
        sys.exit(1)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--hits", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    dice = random.Random(asked.seed)
    for number in range(asked.hits):
        with tempfile.TemporaryDirectory() as folder:
            row = {"seed": asked.seed, "number": number} | one_hit(Path(folder), dice)
        append(TABLE, [row], COLUMNS)
        print(*(f"{name} {value}" for name, value in row.items()), sep=", ", flush=True)


def one_hit(place: Path, dice: random.Random) -> dict[str, object]:
    """Start the graph, wait for its first child, hit one of its processes, and see how it ends."""
    (place / "graph.py").write_text(GRAPH)
    paths = f"{ROOT}:{ROOT / 'tests'}"
    run = executed([sys.executable, str(place / "graph.py"), str(place)], {"PYTHONPATH": paths})
    after, kind = dice.uniform(0.0, LONGEST_S), dice.choice((signal.SIGKILL, signal.SIGTERM))
    while not list((place / "cache").glob("*")) and run.process.is_alive():
        time.sleep(0.05)
    time.sleep(after)
    others = [one for one in run.members() if one.pid != run.process.pid]
    chosen = dice.choice(others) if others else None
    what = "nothing: it had ended"
    if chosen is not None:
        with suppress(psutil.Error):
            what = _kind_of(chosen)
            os.kill(chosen.pid, kind)
    began = time.monotonic()
    code, said, left = run.ended(LIMIT_S)
    return {"hit": what, "signal": kind.name, "after_s": f"{after:.1f}", "exit": "HUNG" if code is None else code,
            "ended_s": f"{time.monotonic() - began:.1f}", "left": left, "said": said[:120]}  # fmt: skip


def _kind_of(process: psutil.Process) -> str:
    """What a process is: the tracker of resources, the server that forks children, or one of these."""
    command = " ".join(process.cmdline())
    if "resource_tracker" in command:
        return "tracker"
    parent = process.parent()
    return "child" if parent is not None and "forkserver" in " ".join(parent.cmdline()) else "server of children"


if __name__ == "__main__":
    main()

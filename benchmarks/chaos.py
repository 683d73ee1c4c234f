"""Is anything lost when a run is killed anywhere, or its disk or memory ends? A small run, killed again and again.

Run: .venv/bin/python benchmarks/chaos.py [--kills 100] [--seed 0] | table

A chain begins with an empty cache. Its run is started, hit at a random moment, and started again, until it ends by
itself; then every stage's digest, the tables and the decisions must be those of a run that nobody hit. What is hit is
the run, one of its children, or all of them, by SIGTERM or SIGKILL. After each hit no process of the run may be left.

`--places` (as root) then tries a disk that is too small (tmpfs from 1 MiB on, made larger later), one that may only be
read, and less memory than is needed: the run must end with a sentence that says so and exit code 2, and the same run on
a good machine must end in the right bytes. Rows are added to benchmarks/results/chaos.csv as they come.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import psutil
from rows import append

from pipeline.core.files import digest_file, read_json
from pipeline.core.layout import METRICS_FILE, PREDICTIONS, STAGES, VERDICT
from pipeline.core.records import load_record

ROOT = Path(__file__).resolve().parents[1]
TABLE = ROOT / "benchmarks" / "results" / "chaos.csv"
COLUMNS = ["kind", "seed", "chain", "number", "hit", "signal", "after_s", "making", "exit", "said", "left", "outcome"]
MARK = "RADAUG_CHAOS"
SETTINGS = [
    "data.spatial_size=16", "data.source.cysts=20", "data.source.metastases=24", "data.source.haemangiomas=24",
    "gan.num_images=3000", "gan.batch_size=16", "gan.generator_width=8", "gan.discriminator_width=8",
    "synthesis.samples_per_class=60", "classifier.steps=60", "classifier.seeds=2", "verdict.bootstrap=100",
    "quality.classifier_steps=20", "quality.draws=5", "quality.pairs=20", "quality.extractor=classifier",
    "gan.watch.checks=3", "gan.watch.images=60", "anomaly.gan_images=1000", "anomaly.steps=20",
    "anomaly.detectors=[discriminator-average, padim]", "compute.threads=1", "compute.workers=2",
]  # fmt: skip
GRACE_S = 60.0
SMALL_MIB = (1, 2, 4, 8, 16)
SHORT_MIB = (700, 1200, 2000)
HITS = ("run", "child", "all")


@dataclass
class Started:
    """A run that was started: its process and the mark that all its processes bear."""

    process: subprocess.Popen[str]
    mark: str
    began: float

    def members(self) -> list[psutil.Process]:
        """All processes that bear the mark, whoever their parent is."""
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if process.environ().get(MARK) == self.mark and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return found


def start(place: Path, mebibytes: int | None = None) -> Started:
    mark = uuid.uuid4().hex
    command = [sys.executable, "-m", "flows.cli", "run", str(ROOT / "configs" / "demo.yaml"), "--engine", "direct"]
    command += ["--yes", "--out", str(place / "run"), *(token for one in SETTINGS for token in ("--set", one))]
    if mebibytes:
        command = ["prlimit", f"--as={mebibytes * 2**20}", *command]
    environment = os.environ | {MARK: mark, "RADAUG_CACHE": str(place / "cache"), "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )
    return Started(process, mark, time.monotonic())


def ended(run: Started, limit_s: float) -> tuple[int | None, str, int]:
    """Exit code (None: it did not end), the last line that it said, and how many of its processes are left."""
    try:
        said, _ = run.process.communicate(timeout=limit_s)
        code: int | None = run.process.returncode
    except subprocess.TimeoutExpired:
        said, code = "", None
    end = time.monotonic() + GRACE_S
    while run.members() and time.monotonic() < end:
        time.sleep(0.2)
    left = run.members()
    for process in left:
        with suppress(psutil.Error):
            process.kill()
    lines = [line for line in said.splitlines() if line.strip()]
    return code, (lines[-1] if lines else "")[:160], len(left)


def bytes_of(place: Path) -> dict[str, str]:
    """Digests of all that a finished run left and that may not differ."""
    run = place / "run"
    found = {path.name: load_record(path).digest for path in sorted((run / STAGES).iterdir())}
    found |= {name: digest_file(run / name) for name in (METRICS_FILE, PREDICTIONS)}
    verdict = read_json(run / VERDICT)
    return found | {part: str(verdict[part]) for part in ("utility", "release")}


def outcome_of(place: Path, right: dict[str, str], code: int | None, said: str, left: int) -> str:
    if code != 0 or left:
        return f"WRONG: exit {code}, {left} left: {said}"
    found = bytes_of(place)
    unlike = sorted(name for name in found.keys() | right.keys() if found.get(name) != right.get(name))
    return f"WRONG: other bytes in {' '.join(unlike)}" if unlike else "right bytes"


def hit(run: Started, what: str, number: int, dice: random.Random) -> None:
    members = run.members()
    children = [one for one in members if one.pid != run.process.pid]
    chosen = {"run": [run.process.pid], "all": [one.pid for one in members]}.get(what)
    for pid in chosen or [dice.choice(children).pid if children else run.process.pid]:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def making(place: Path) -> str:
    """Stages that are half-written at this moment."""
    partial = ".partial-"
    names = [path.name.removeprefix(partial).rpartition("-")[0] for path in (place / "cache").glob(f"{partial}*")]
    return " ".join(sorted(names))


def reference(folder: Path) -> tuple[dict[str, str], float]:
    run = start(folder)
    code, said, left = ended(run, 3600)
    if code != 0 or left:
        sys.exit(f"the run that nobody hits ended with {code}, {left} processes left: {said}")
    return bytes_of(folder), time.monotonic() - run.began


def chains(kills: int, seed: int) -> None:
    dice, done, chain = random.Random(seed), 0, 0
    with tempfile.TemporaryDirectory() as folder:
        right, takes = reference(Path(folder))
    print(f"nobody hits: {takes:.1f} s", flush=True)
    while done < kills:
        with tempfile.TemporaryDirectory() as folder:
            done = one_chain(Path(folder), right, takes, dice, done, {"kind": "kill", "seed": seed, "chain": chain})
        chain += 1


def one_chain(
    place: Path, right: dict[str, str], takes: float, dice: random.Random, done: int, key: dict[str, Any]
) -> int:
    """Hit one run again and again until it ends by itself; gives the number of hits so far."""
    rows: list[dict[str, Any]] = []
    while True:
        run, after = start(place), dice.uniform(1.0, takes)
        what, number = dice.choice(HITS), dice.choice((signal.SIGTERM, signal.SIGKILL))
        try:
            run.process.wait(timeout=after)
            break
        except subprocess.TimeoutExpired:
            at_work = making(place)
            hit(run, what, number, dice)
        code, said, left = ended(run, GRACE_S + 3 * takes)  # after a hit at a child the run does all the rest
        rows.append(key | {"number": done + len(rows), "hit": what, "signal": number.name, "after_s": f"{after:.1f}",
                           "making": at_work, "exit": code, "said": said, "left": left})  # fmt: skip
    code, said, left = ended(run, takes)
    outcome = outcome_of(place, right, code, said, left)
    append(TABLE, [row | {"outcome": outcome} for row in rows], COLUMNS)
    print(f"{len(rows)} hits: {outcome}", flush=True)
    return done + len(rows)


def places(seed: int) -> None:
    """A disk that is full or may only be read, and memory that is short."""
    with tempfile.TemporaryDirectory() as folder:
        right, takes = reference(Path(folder))
    for size in SMALL_MIB:
        with tmpfs(f"size={size}m") as place:
            cut_off(place, right, takes, f"disk of {size} MiB", seed, ["-o", "remount,size=1g"])
    with tmpfs("size=1g") as place:
        (place / "cache").mkdir()
        (place / "run").mkdir()
        subprocess.run(["mount", "-o", "remount,ro", place], check=True)
        cut_off(place, right, takes, "disk that may only be read", seed, ["-o", "remount,rw"])
    for size in SHORT_MIB:
        with tempfile.TemporaryDirectory() as folder:
            cut_off(Path(folder), right, takes, f"{size} MiB of memory", seed, [], size)


def cut_off(
    place: Path,
    right: dict[str, str],
    takes: float,
    what: str,
    seed: int,
    mend: list[str],
    mebibytes: int | None = None,
) -> None:
    code, said, left = ended(start(place, mebibytes), 20 * takes)
    if mend:
        subprocess.run(["mount", *mend, place], check=True)
    again, last, over = ended(start(place), 20 * takes)
    outcome = outcome_of(place, right, again, last, left + over)
    if code not in (0, 2):
        outcome = f"UNCLEAR: exit {code}; then {outcome}"
    append(TABLE, [{"kind": "place", "seed": seed, "hit": what, "exit": code, "said": said.replace(str(place), "PLACE"),
                    "left": left, "outcome": outcome}], COLUMNS)  # fmt: skip
    print(f"{what}: exit {code}: {said} -> {outcome}", flush=True)


@contextmanager
def tmpfs(options: str) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], check=True)
        try:
            yield Path(folder)
        finally:
            subprocess.run(["umount", "-l", folder], check=True)


def table() -> None:
    """Hits by what was hit and by which signal, and what came of the chains."""
    found = pd.read_csv(TABLE)
    kills = found[found["kind"] == "kill"].assign(right=lambda rows: rows["outcome"] == "right bytes")
    print(kills.groupby(["hit", "signal"]).agg(hits=("right", "size"), right=("right", "sum"), left=("left", "sum")))
    stages = kills["making"].dropna().str.split().explode().value_counts()
    print("half-written at the moment of a hit:", ", ".join(f"{name} {number}" for name, number in stages.items()))
    print(found[found["kind"] == "place"][["hit", "exit", "said", "outcome"]].to_string(index=False))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", nargs="?", choices=["table"])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--places", action="store_true")
    asked = parser.parse_args()
    if asked.what == "table":
        table()
    elif asked.places:
        places(asked.seed)
    else:
        chains(asked.kills, asked.seed)


if __name__ == "__main__":
    main()

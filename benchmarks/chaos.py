"""Is anything lost when a run is killed anywhere, or its disk or memory ends? A small run, killed again and again.

Run: .venv/bin/python benchmarks/chaos.py [--kills 100] [--seed 0] | table

A chain begins with an empty cache. Its run is started, hit at a random moment (by the processor seconds that it has
taken, so that load does not matter), and started again, until it ends by itself; then every stage's digest, the tables
and the decisions must be those of a run that nobody hit. What is hit is the run, one of its children, or all of them,
by SIGTERM or SIGKILL. After each hit no process of the run may be left.

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
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pandas as pd
from rows import append
from runs_to_hit import GRACE_S, ROOT, Started, executed, launched

import flows.ready  # what a run's children have in memory, and so its forks here
import flows.running  # noqa: F401
from pipeline.core.files import digest_file, read_json
from pipeline.core.layout import METRICS_FILE, PREDICTIONS, STAGES, VERDICT
from pipeline.core.records import load_record
from pipeline.core.sources import reach_of

TABLE = ROOT / "benchmarks" / "results" / "chaos.csv"
COLUMNS = ["kind", "seed", "chain", "number", "hit", "signal", "after_s", "making", "exit", "said", "left", "outcome"]
SETTINGS = [
    "data.spatial_size=16", "data.source.cysts=20", "data.source.metastases=24", "data.source.haemangiomas=24",
    "gan.num_images=640", "gan.batch_size=16", "gan.generator_width=4", "gan.discriminator_width=4",
    "gan.checkpoints=4", "quality.classifier_steps=10", "quality.draws=5", "quality.pairs=10",
    "synthesis.samples_per_class=40", "classifier.steps=20", "classifier.seeds=2", "verdict.bootstrap=100",
    "quality.extractor=classifier", "gan.watch.checks=2", "gan.watch.images=30", "anomaly.gan_images=320",
    "anomaly.steps=8", "anomaly.detectors=[discriminator-average, pca]", "compute.threads=1",
    "compute.workers=2", "arms=[real, real+classical, real+classical+synthetic@1]",
]  # fmt: skip
SMALL_MIB = (1, 2, 4, 8, 16)
SHORT_MIB = (700, 1200)
HITS = ("run", "child", "all")
HITS_A_RUN, POLL_S = 5, 0.1
RIGHT = "right bytes"


def start(place: Path, mebibytes: int | None = None) -> Started:
    """The run into `place`, as a user starts it, with so much address space; else as a fork of this process."""
    tokens = ["run", str(ROOT / "configs" / "demo.yaml"), "--engine", "direct", "--yes", "--out", str(place / "run")]
    settings = [*SETTINGS, f"data.patient_register={place / 'register.json'}"]
    tokens += [token for one in settings for token in ("--set", one)]
    environment = {"RADAUG_CACHE": str(place / "cache"), "PYTHONPATH": str(ROOT)}
    if mebibytes is None:
        return launched(tokens, environment)
    limit = ["prlimit", f"--as={mebibytes * 2**20}"] if mebibytes else []
    return executed([*limit, sys.executable, "-m", "flows.cli", *tokens], environment)


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
    return f"WRONG: other bytes in {' '.join(unlike)}" if unlike else RIGHT


def hit(run: Started, what: str, number: int, dice: random.Random) -> None:
    members = run.members()
    children = [one for one in members if one.pid != run.process.pid]
    chosen = {"run": [run.process.pid], "all": [one.pid for one in members]}.get(what)
    for pid in chosen or [dice.choice(children).pid if children else run.process.pid]:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def told(said: str, place: Path) -> str:
    return said.replace(str(place), "PLACE")[:160]


def making(place: Path) -> str:
    """Stages that are half-written at this moment."""
    partial = ".partial-"
    names = [path.name.removeprefix(partial).rpartition("-")[0] for path in (place / "cache").glob(f"{partial}*")]
    return " ".join(sorted(names))


def reference(folder: Path) -> tuple[dict[str, str], float, float]:
    """What a run leaves that a user starts; the seconds and the processor seconds that a fork takes for the same."""
    reach_of(frozenset({"pipeline.report.page"}))  # digests of code are another thing that a fork has
    code, said, left = start(folder, 0).ended(3600)
    if code != 0 or left:
        sys.exit(f"the run that nobody hits ended with {code}, {left} processes left: {said}")
    with tempfile.TemporaryDirectory() as other:
        run, computed = start(Path(other)), 0.0
        while run.process.is_alive():
            computed = max(computed, run.computed())
            time.sleep(POLL_S)
        takes = time.monotonic() - run.began
        code, said, left = run.ended(1)
        outcome = outcome_of(Path(other), bytes_of(folder), code, said, left)
        if outcome != RIGHT:
            sys.exit(f"a fork of this process does not leave what a run leaves that a user starts: {outcome}")
    print(f"nobody hits: {takes:.1f} s, {computed:.1f} processor seconds", flush=True)
    return bytes_of(folder), takes, computed


def chains(kills: int, seed: int) -> None:
    dice, done, chain = random.Random(seed), 0, 0
    with tempfile.TemporaryDirectory() as folder:
        right, takes, computed = reference(Path(folder))
    while done < kills:
        with tempfile.TemporaryDirectory() as folder:
            key = {"kind": "kill", "seed": seed, "chain": chain}
            hits, outcome = one_chain(Path(folder), right, takes, computed / HITS_A_RUN, dice, key)
            append(TABLE, [key | {"kind": "end", "number": hits, "outcome": outcome}], COLUMNS)
            print(f"{hits} hits: {outcome}", flush=True)
        done, chain = done + hits, chain + 1


def one_chain(
    place: Path, right: dict[str, str], takes: float, most: float, dice: random.Random, key: dict[str, Any]
) -> tuple[int, str]:
    """Hit one run again and again until it ends by itself; gives the number of hits and what came of it."""
    hits = 0
    while True:
        run, after = start(place), dice.uniform(0.2, 2 * most)
        what, number = dice.choice(HITS), dice.choice((signal.SIGTERM, signal.SIGKILL))
        while run.process.is_alive() and run.computed() < after:
            time.sleep(POLL_S)
        if not run.process.is_alive():
            return hits, outcome_of(place, right, *run.ended(takes))
        at_work = making(place)
        hit(run, what, number, dice)
        code, said, left = run.ended(GRACE_S + 10 * takes)  # after a hit at a child the run does all the rest
        row = {"number": hits, "hit": what, "signal": number.name, "after_s": f"{after:.1f}", "making": at_work,
               "exit": code, "said": told(said, place), "left": left}  # fmt: skip
        append(TABLE, [key | row], COLUMNS)
        hits += 1


def places(seed: int) -> None:
    """A disk that is full or may only be read, and memory that is short."""
    with tempfile.TemporaryDirectory() as folder:
        right, takes, _ = reference(Path(folder))
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
    code, said, left = start(place, mebibytes).ended(20 * takes)
    if mend:
        subprocess.run(["mount", *mend, place], check=True)
    again, last, over = start(place).ended(20 * takes)
    outcome = outcome_of(place, right, again, last, left + over)
    if code not in (0, 2):
        outcome = f"UNCLEAR: exit {code}; then {outcome}"
    append(TABLE, [{"kind": "place", "seed": seed, "hit": what, "exit": code, "said": told(said, place),
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
    """Hits by what was hit and by which signal, and what came of the chains that have ended."""
    found = pd.read_csv(TABLE)
    ends = found[found["kind"] == "end"].set_index(["seed", "chain"])["outcome"]
    print(f"{len(ends)} chains ended; {(ends == RIGHT).sum()} in the right bytes")
    kills = found[found["kind"] == "kill"].join(ends.rename("outcome_of_chain"), on=["seed", "chain"])
    kills = kills.assign(
        right=kills["outcome_of_chain"] == RIGHT, wrong=kills["outcome_of_chain"].str.startswith("WRONG"),
        fault=kills["said"].str.contains("a fault of radaug"), hung=kills["exit"].isna(),
    )  # fmt: skip
    counts = {name: (name, "sum") for name in ("right", "wrong", "fault", "hung", "left")}
    print(kills.groupby(["hit", "signal"]).agg(hits=("left", "size"), **counts))
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

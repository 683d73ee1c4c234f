"""Repetitions of a benchmark: those that the table lacks, in parts for several processes, and its summary."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import torch


def repeat(
    about: str | None, table: Path, default: int, make: Callable[[int], None], summary: Callable[[pd.DataFrame], str]
) -> None:
    """Make the repetitions that `table` lacks, by the command line, on one thread, and print the summary of all rows.

    Args:
        about: what the benchmark does, for `--help`.
        default: how many repetitions there shall be.
        make: adds the rows of a repetition to the table.
    """
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--repetitions", type=int, default=default)
    parser.add_argument("--part", default="0/1", help="K/N: every N-th repetition from the K-th on")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    part, parts = (int(number) for number in arguments.part.split("/"))
    for number in range(part, arguments.repetitions, parts):
        done = set(pd.read_csv(table)["repetition"]) if table.is_file() else set()
        if number not in done:
            make(number)
    print(summary(pd.read_csv(table)))

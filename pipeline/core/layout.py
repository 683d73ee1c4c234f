"""The names of what a run leaves: its stages, its files and its folders."""

from __future__ import annotations

METRICS_FILE = "metrics.csv"

TIMED_LOG = "stats.jsonl"
"""A log with wall-clock times: the one file that may differ between two makings of the same directory."""


def stage_name(kind: str, fold: int | None = None, gan_seed: int | None = None) -> str:
    """`KIND[-fold-k][-gan-s]`: how a stage is called in logs, and the name of its directory in a run.

    Made from what is known, never taken apart: `kind`, `fold` and `gan_seed` stand in the stage's record.
    """
    return "-".join((kind, *_place(fold, gan_seed)))


def gan_name(fold: int | None, gan_seed: int | None) -> str:
    """`fold-k-gan-s`: the folder of a generator, or of its images, below `checkpoints` and `synthetic`."""
    return "-".join(_place(fold, gan_seed))


def _place(fold: int | None, gan_seed: int | None) -> list[str]:
    return [f"{word}-{number}" for word, number in (("fold", fold), ("gan", gan_seed)) if number is not None]

"""The names of what a run leaves: its files, its folders and its stages. Nothing else spells them out.

A run directory holds CONFIG, the final tables, VERDICT, the pages and FIGURES as files, and links: STAGES to the
directory of every stage, CHECKPOINTS and SYNTHETIC to generators and their images once more, where users look for them.
"""

from __future__ import annotations

# a run's own files
CONFIG = "config.yaml"
VERDICT = "verdict.json"
METRICS_FILE = "metrics.csv"
PREDICTIONS = "predictions.csv"
LEDGER = "ledger.csv"
LOOKS = "looks.json"
REPORT = "report.html"
SHAREABLE_REPORT = "report-shareable.html"
SUMMARY = "summary.html"
SHAREABLE_SUMMARY = "summary-shareable.html"
CURVE = "curve.html"
CURVE_TABLE = "curve.csv"
CURVE_POINTS = "points.csv"
CURVE_LEFT_OUT = "left_out.csv"
CURVE_REPRESENTATIONS = "representations.csv"
FAULT_LOG = "error.log"
LOCK = "run.lock"
HOLDER = "running.json"
NOTIFIED = "notified.json"

# its folders
STAGES = "stages"
CHECKPOINTS = "checkpoints"
SYNTHETIC = "synthetic"
FIGURES = "figures"

# files of stages
RECORD = "record.json"
TIMED_LOG = "stats.jsonl"
"""A log with wall-clock times: the one file that may differ between two makings of the same directory."""
MANIFEST = "manifest.csv"
IMAGES = "images.npy"
MASKS = "masks.npy"
SPLITS_FILE = "splits.csv"
AUDIT = "audit.csv"
REJECTED = "rejected.csv"
REGISTER = "register.json"
MODEL = "model.json"
CERTIFICATE = "certificate.json"
GRIDS = "grids"
FILM_STRIP = "film_strip.png"
SNAPSHOTS = "snapshots"
SWEEPS = "sweeps.csv"
SWEPT_PLANES = "sweeps.npy"
ATTENTION = "attention.csv"
ATTENTION_MAPS = "attention.npy"
QUALITY_CURVES = "curves.csv"
ANOMALY_SCORES = "anomaly.csv"
WORKLIST = "worklist.csv"
WORKLIST_PICTURE = "worklist.png"
MEMORISATION = "memorisation.csv"
ATTACK_SCORES = "attack.csv"
SHADOW_MEMBERS = "shadow.csv"
CLOSEST_PAIRS = "closest_pairs.png"
ACQUISITION = "acquisition.json"


def stage_name(kind: str, fold: int | None = None, gan_seed: int | None = None, variant: str = "") -> str:
    """`KIND[-VARIANT][-fold-k][-gan-s]`: how a stage is called in logs, and the name of its directory in a run.

    Made from what is known, never taken apart: `kind`, `variant`, `fold` and `gan_seed` stand in the stage's record.
    """
    return "-".join((kind, *([variant] if variant else []), *_place(fold, gan_seed)))


def gan_name(fold: int | None, gan_seed: int | None) -> str:
    """`fold-k-gan-s`: the folder of a generator, or of its images, below `checkpoints` and `synthetic`."""
    return "-".join(_place(fold, gan_seed))


def _place(fold: int | None, gan_seed: int | None) -> list[str]:
    return [f"{word}-{number}" for word, number in (("fold", fold), ("gan", gan_seed)) if number is not None]

"""What the report reads: the files of a run directory, and nothing else."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from pipeline.config.experiment import Experiment
from pipeline.config.loading import load_experiment
from pipeline.core.decisions import Verdicts
from pipeline.core.errors import UserError
from pipeline.core.files import dangling_link, read_json
from pipeline.core.layout import CONFIG, LEDGER, MANIFEST, PREDICTIONS, RECORD, SPLITS_FILE, STAGES, VERDICT
from pipeline.core.metrics import read_metrics, table_of
from pipeline.core.patients import known_patients
from pipeline.core.records import Record, load_record

STAGE_ORDER = (
    "ingest", "split", "prepare", "fit-gan", "fit-normals", "synthesise", "quality", "downstream", "detect", "shift",
    "privacy", "fit-shadow", "synthesise-shadow", "attack", "verdict",
)  # fmt: skip
_NUMBERS = ("value", "ci_low", "ci_high")


@dataclass(frozen=True)
class StageEntry:
    """A finished stage of the run: its record and its directory."""

    record: Record
    directory: Path

    @property
    def name(self) -> str:
        return self.record.name

    @property
    def kind(self) -> str:
        return self.record.kind

    @property
    def fold(self) -> int | None:
        return self.record.fold

    @property
    def gan_seed(self) -> int | None:
        return self.record.gan_seed

    def file(self, name: str) -> Path:
        """Path of one of the stage's files.

        Raises:
            UserError: it is not there.
        """
        return _present(self.directory / name, f"{STAGES}/{self.name}/{name}")

    def table(self, name: str, columns: Iterable[str] = ()) -> pd.DataFrame:
        """One of the stage's CSV files, as text."""
        return _read_table(self.file(name), f"{STAGES}/{self.name}/{name}", columns)

    @property
    def title(self) -> str:
        """Fold and GAN seed in words."""
        parts = [
            f"{word} {number}"
            for word, number in (("fold", self.fold), ("GAN seed", self.gan_seed))
            if number is not None
        ]
        return ", ".join(parts)


@dataclass(frozen=True)
class Run:
    """Everything that the report is made from. Tables are text, but for the numbers of `metrics` and the scores."""

    root: Path
    experiment: Experiment
    config_text: str
    verdict: Verdicts
    metrics: pd.DataFrame
    predictions: pd.DataFrame
    manifest: pd.DataFrame
    stages: tuple[StageEntry, ...]
    ledger: pd.DataFrame | None

    def of_kind(self, kind: str) -> tuple[StageEntry, ...]:
        return tuple(stage for stage in self.stages if stage.kind == kind)

    def only(self, kind: str) -> StageEntry:
        """The one stage of this kind that every run has.

        Raises:
            UserError: it is not there.
        """
        found = self.of_kind(kind)
        if not found:
            raise UserError(f"{STAGES}/{kind}: is missing from the run {self.root.name}. {_MEND}")
        return found[0]

    def released(self, kind: str) -> StageEntry | None:
        """The stage of this kind that belongs to the generator named for release, if the run has one."""
        wanted = (self.experiment.release.fold, self.experiment.release.gan_seed)
        return next((stage for stage in self.of_kind(kind) if (stage.fold, stage.gan_seed) == wanted), None)

    @property
    def splits(self) -> pd.DataFrame:
        return self.only("split").table(SPLITS_FILE, ("fold", "image_id", "split"))

    @property
    def missing_patients(self) -> int:
        """Number of images without a patient id."""
        return int((known_patients(self.manifest) == "").sum())


_MEND = "Do `radaug run` again: finished stages are kept."


def read_run(root: Path) -> Run:
    """Read a finished run.

    Raises:
        UserError: a file is missing or lacks a column; the message names it.
    """
    if not root.is_dir():
        raise UserError(f"{root}: there is no such run directory.")
    config = _present(root / CONFIG, CONFIG)
    verdict_path = _present(root / VERDICT, VERDICT)
    experiment = load_experiment(config)
    scores = [f"score_{name}" for name in experiment.data.classes]
    return Run(
        root=root,
        experiment=experiment,
        config_text=config.read_text(encoding="utf-8"),
        verdict=_read_verdict(verdict_path),
        metrics=_with_numbers(table_of(read_metrics(root)), _NUMBERS),
        predictions=_with_numbers(
            _read(root, PREDICTIONS, ("arm", "fold", "seed", "gan_seed", "split", "image_id", "label", *scores)), scores
        ),
        manifest=_read(root, MANIFEST, ("image_id", "label", "patient_id", "fate")),
        stages=_read_stages(root),
        ledger=_read(root, LEDGER, ()) if (root / LEDGER).is_file() else None,
    )


def mean_rows(metrics: pd.DataFrame, split: str) -> pd.DataFrame:
    """Rows of the arms that are the mean over fits on `split`, over all patients."""
    whole = (metrics[["fold", "seed", "gan_seed", "subgroup"]] == "").all(axis=1)
    return metrics[whole & (metrics["arm"] != "") & (metrics["split"] == split)]


def fit_rows(metrics: pd.DataFrame, split: str) -> pd.DataFrame:
    """Rows of the arms that belong to one fit (one fold, seed and, where it used synthetic images, GAN) on `split`."""
    single = (metrics["fold"] != "") & (metrics["seed"] != "") & (metrics["subgroup"] == "")
    return metrics[single & (metrics["arm"] != "") & (metrics["split"] == split)]


def disease_label(run: Run) -> str:
    """The `label` under which metrics.csv gives the disease side against the rest."""
    positive = run.experiment.data.positive
    joined = "+".join(positive)
    present = set(run.metrics.loc[run.metrics["metric"] == "sensitivity", "label"])
    if joined in present or len(positive) == 1:
        return joined
    others = sorted(present - {"macro", *run.experiment.data.classes})
    return others[0] if others else joined


def ordered_arms(run: Run, present: Iterable[str]) -> list[str]:
    """Arms among `present`, in the order of the configuration; unknown ones last."""
    found = set(present)
    known = [arm for arm in run.experiment.arms if arm in found]
    return known + sorted(found - set(known))


def _read_verdict(path: Path) -> Verdicts:
    found = read_json(path)
    for part in ("utility", "release"):
        if not {"decision", "reasons", "evidence"} <= set(found.get(part, {})):
            raise UserError(f"verdict.json: '{part}' needs decision, reasons and evidence. {_MEND}")
    verdicts: Verdicts = found
    return verdicts


def _read_stages(root: Path) -> tuple[StageEntry, ...]:
    folder = root / STAGES
    names = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    entries = [_read_stage(folder / name) for name in names if not name.startswith(".")]
    return tuple(
        sorted(entries, key=lambda entry: (_rank(entry.kind), entry.fold or 0, entry.gan_seed or 0, entry.name))
    )


def _read_stage(directory: Path) -> StageEntry:
    _present(directory / RECORD, f"{STAGES}/{directory.name}/{RECORD}")
    return StageEntry(load_record(directory), directory)


def _rank(kind: str) -> int:
    return STAGE_ORDER.index(kind) if kind in STAGE_ORDER else len(STAGE_ORDER)


def _present(path: Path, name: str) -> Path:
    if not path.is_file() and dangling_link(path) is not None:
        raise UserError(
            f"{name}: the run's link leads to nothing: the run was copied or moved without the cache that it points "
            "into. Copy it with its content (`cp -rL`), or do `radaug run` again."
        )
    if not path.is_file():
        raise UserError(f"{name}: is missing from the run. {_MEND}")
    return path


def _read(root: Path, name: str, columns: Iterable[str]) -> pd.DataFrame:
    return _read_table(_present(root / name, name), name, columns)


def _read_table(path: Path, name: str, columns: Iterable[str]) -> pd.DataFrame:
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    lacking = [column for column in columns if column not in table.columns]
    if lacking:
        raise UserError(f"{name}: has no column {', '.join(lacking)}. {_MEND}")
    return table


def read_numbers(root: Path, name: str, numbers: Iterable[str], texts: Iterable[str]) -> pd.DataFrame:
    """A CSV file with the columns of `numbers` as numbers and all others as text.

    Raises:
        UserError: it is missing, or lacks one of the columns.
    """
    return _with_numbers(_read(root, name, (*numbers, *texts)), numbers)


def _with_numbers(table: pd.DataFrame, columns: Iterable[str]) -> pd.DataFrame:
    return table.assign(**{column: pd.to_numeric(table[column], errors="coerce") for column in columns})

"""What the arms of one fold are trained on: real images, the pool, and the images of one generator."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from filelock import FileLock

from pipeline.config.arm_facts import Look
from pipeline.config.experiment import ClassifierConfig
from pipeline.core.compute import Hardware
from pipeline.core.errors import DataError, LeakageError
from pipeline.core.files import atomic_path
from pipeline.core.seeds import derive_seed
from pipeline.data.batches.dataset import DataSet, open_dataset
from pipeline.data.cohort.cells import CELL_COLUMNS, cell_counts, cells_of
from pipeline.data.cohort.folds import open_fold, split_ids
from pipeline.downstream.beside import translations
from pipeline.downstream.curation import Curation, curate
from pipeline.downstream.feature_models import Predict, fit_feature_model
from pipeline.downstream.looks import Seen, seen_through
from pipeline.supervised.fit import Phase, Share, apply_classifier, fit_classifier

_LOOKED_AT = 100


@dataclass(frozen=True)
class Material:
    """A fold's images as shares of batches; what takes time is made once, at the first question.

    Attributes:
        inputs: the stage's directories: prepare, split and, with a generator, synthesise and fit-gan.
        parts: a directory for what processes share and a killed stage keeps.
        seed: of the ensemble that gives soft labels.
        site: the manifest's column of the site; "" = there is none.
        archives: the unlabelled sites.
        look: how every image is seen; None = as it is.
    """

    config: ClassifierConfig
    classes: tuple[str, ...]
    fold: int
    inputs: Mapping[str, Path]
    parts: Path
    hardware: Hardware
    seed: int
    site: str = ""
    archives: tuple[str, ...] = ()
    look: Look | None = None

    @cached_property
    def plain(self) -> DataSet:
        """All prepared images of the run; those in the fold's pool have no label."""
        return open_fold(self.inputs["prepare"], self.inputs["split"], self.fold)

    @cached_property
    def dataset(self) -> DataSet:
        """The same as `look` shows them."""
        if self.look is None:
            return self.plain
        target = self.target_rows if self.archives else np.empty(0, dtype=np.int64)
        learnt = np.concatenate([self.rows("train"), self.rows("unlabelled")])
        seen = Seen(self.plain, self.sites, learnt, target, self.seed)
        with FileLock(self.parts / f".lock-{self.look}"):
            return seen_through(self.look, seen, self.parts / f"{self.look}.npy")

    def seen_as(self, look: Look | None) -> Material:
        """The same images under another look."""
        return self if look == self.look else replace(self, look=look)

    @cached_property
    def generated(self) -> DataSet:
        """All synthetic images of the generator.

        Raises:
            LeakageError: it is another fold's, and may have seen this fold's test patients.
        """
        found = open_dataset(self.inputs["synthesise"])
        others = set(found.manifest["fold"]) - {str(self.fold)}
        if others:
            raise LeakageError(
                f"fold {self.fold}: the synthetic images come from a generator of fold {min(others)}, which may have "
                "seen patients that are tested here. Use each fold's own generator."
            )
        return found

    def rows(self, split: str) -> np.ndarray:
        """Positions of the fold's images of `split`."""
        return self.plain.rows(split_ids(self.inputs["split"], self.fold, split))

    @cached_property
    def sites(self) -> np.ndarray:
        """[N] the site of every image."""
        table = self.plain.manifest
        return np.asarray(table[self.site] if self.site else [""] * len(table), dtype=str)

    @cached_property
    def target_rows(self) -> np.ndarray:
        """Positions of the unlabelled images of unlabelled sites.

        Raises:
            DataError: there are none.
        """
        rows = self.rows("unlabelled")
        rows = rows[np.isin(self.sites[rows], self.archives)]
        if not len(rows):
            raise DataError(
                f"arms: some adapt to an unlabelled site, and fold {self.fold} has no image of one. Set "
                "data.sources.NAME.unlabelled: true, or leave these arms out."
            )
        return rows

    def domains(self, rows: np.ndarray) -> np.ndarray:
        """[len(rows)] numbers of the sites, the same for every question."""
        learnt = np.concatenate([self.rows("train"), self.rows("unlabelled")])
        return np.unique(self.sites[learnt]).searchsorted(self.sites[rows]).astype(np.int64)

    @cached_property
    def pool_rows(self) -> np.ndarray:
        """Positions of the fold's unlabelled images.

        Raises:
            DataError: there are none.
        """
        rows = self.rows("unlabelled")
        if not len(rows):
            raise DataError(
                f"arms: some learn from unlabelled images, and fold {self.fold} has none. Set data.surplus: unlabelled "
                "beside data.train_per_class, or unlabelled: true of a site, add images with an empty label, or leave "
                "these arms out."
            )
        return rows

    @cached_property
    def held_cells(self) -> pd.DataFrame:
        """`site` and `cell` (rare or common among the fold's labelled training images) of val and test images by id."""
        known = self.dataset.manifest
        own = known[["image_id", "label"]].assign(site=known[self.site])
        trained = own.iloc[self.rows("train")]
        counts = cell_counts(trained["site"], trained["label"])
        held = own.iloc[np.concatenate([self.rows("val"), self.rows("test")])]
        return held.assign(cell=cells_of(held["site"], held["label"], counts)).set_index("image_id")[list(CELL_COLUMNS)]

    @cached_property
    def known_cells(self) -> pd.DataFrame:
        """`held_cells`, and the site of each synthetic image where it was asked for by site."""
        made = self.generated.manifest
        asked = made.assign(cell="").reindex(columns=["image_id", *CELL_COLUMNS], fill_value="").set_index("image_id")
        return pd.concat([self.held_cells, asked])

    @cached_property
    def some_synthetic(self) -> np.ndarray:
        """Positions of the synthetic images that arms with such images are applied to: up to 100 a class (and site)."""
        table = self.generated.manifest
        cell = table["label"] + "\n" + table["site"] if "site" in table else table["label"]
        members = [np.flatnonzero(cell == name) for name in dict.fromkeys(cell)]
        return np.sort(np.concatenate([rows[:: -(-len(rows) // _LOOKED_AT)] for rows in members]))

    @cached_property
    def real(self) -> Share:
        """The labelled training images, class-balanced."""
        return Share(self.dataset, self.rows("train"))

    @cached_property
    def natural(self) -> Share:
        """The labelled training images, classes as frequent as they are; the share's weight is their number."""
        return replace(self.real, weight=float(len(self.real.rows)), balanced=False)

    @cached_property
    def cells(self) -> Share:
        """The labelled training images, every cell of site and class as frequent as the others.

        Raises:
            DataError: there are no sites.
        """
        if not self.site:
            raise DataError("arms: some balance cells of site and class. Name the column of the site in data.site.")
        known = self.dataset.manifest.iloc[self.real.rows]
        groups = pd.factorize(known[self.site].astype(str) + "\n" + known["label"].astype(str), sort=True)[0]
        return replace(self.real, groups=groups.astype(np.int64), domains=self.domains(self.real.rows))

    @cached_property
    def target(self) -> Share:
        """The unlabelled images of unlabelled sites; no label of theirs is read, and the loss of classes has none."""
        return Share(self.dataset, self.target_rows, domains=self.domains(self.target_rows), labelled=False)

    @cached_property
    def pool(self) -> Share:
        """Unlabelled images under the ensemble's probabilities; labels that the manifest may hold are not read."""
        return Share(self.dataset, self.pool_rows, soft=self.judged("pool", self.dataset, self.pool_rows))

    @cached_property
    def synthetic(self) -> Share:
        """All synthetic images under the classes that were asked for, class-balanced."""
        return Share(self.generated, np.arange(len(self.generated.images)))

    @cached_property
    def synthetic_cells(self) -> Share:
        """All synthetic images, every cell of site and class that was asked for as frequent as the others."""
        table = self.generated.manifest
        groups = pd.factorize(table["site"].astype(str) + "\n" + table["label"].astype(str), sort=True)[0]
        return replace(self.synthetic, groups=groups.astype(np.int64))

    @cached_property
    def cells_twice(self) -> Share:
        """`cells`, each image beside itself."""
        return replace(self.cells, beside=(self.dataset, self.cells.rows))

    @cached_property
    def cells_translated(self) -> Share:
        """`cells`, each image beside its translation to the other site."""
        return replace(self.cells, beside=(self.generated, translations(self.dataset, self.cells.rows, self.generated)))

    @cached_property
    def rare_cells(self) -> Share:
        """Synthetic images of the rarer cells of site and class; the share's weight is how many images they lack.

        Raises:
            DataError: no cell is rarer than another.
        """
        names = pd.Index(dict.fromkeys(_cell_names(self.generated.manifest, "site")))
        trained = names.get_indexer(pd.Index(_cell_names(self.dataset.manifest.iloc[self.real.rows], self.site)))
        counts = np.bincount(trained[trained >= 0], minlength=len(names))
        lacking = counts.max() - counts
        if not lacking.any():
            raise DataError(
                "arms: minority-translated fills up rare cells of site and class, and all have equally many training "
                "images. Leave it out."
            )
        asked = names.get_indexer(pd.Index(_cell_names(self.generated.manifest, "site")))
        return Share(self.generated, filling(asked, lacking), float(lacking.sum()), balanced=False)

    @cached_property
    def judged_synthetic(self) -> Share:
        """All synthetic images under the ensemble's probabilities."""
        return replace(self.synthetic, soft=self._synthetic_scores)

    @cached_property
    def minority(self) -> Share:
        """Synthetic images of the rarer classes; the share's weight is how many images they lack to be balanced.

        Raises:
            DataError: no class is rarer than another.
        """
        labels = self.dataset.labels(self.real.rows, self.classes).numpy()
        counts = np.bincount(labels, minlength=len(self.classes))
        lacking = counts.max() - counts
        if not lacking.any():
            raise DataError(
                "arms: minority-synthetic fills up a rare class, and all classes have equally many training images. "
                "Leave it out, or use real+classical+synthetic@1."
            )
        asked = self.generated.labels(self.synthetic.rows, self.classes).numpy()
        return Share(self.generated, filling(asked, lacking), float(lacking.sum()), balanced=False)

    def curated(self, images_a_batch: float) -> Share:
        """Synthetic images that passed three filters, class-balanced; see `curation`.

        Args:
            images_a_batch: for how many there is room in a batch; of every class two batches' worth must be left.

        Raises:
            DataError: of a class too few are left.
        """
        fewest = int(np.ceil(2 * images_a_batch / len(self.classes)))
        return replace(self.synthetic, rows=self._curation.kept(fewest))

    @property
    def curation_counts(self) -> dict[str, Any]:
        """Class -> how many synthetic images there were, and how many passed each filter."""
        return self._curation.counts

    @cached_property
    def _curation(self) -> Curation:
        asked = self.generated.labels(self.synthetic.rows, self.classes).numpy()

        def passed() -> dict[str, np.ndarray]:
            scores, fit_dir = self._synthetic_scores, self.inputs["fit-gan"]
            return curate(self.dataset, self.real.rows, self.generated, scores, self.classes, fit_dir).passed

        return Curation(self.classes, asked, self._once("curation", passed, len(asked)))

    @cached_property
    def _synthetic_scores(self) -> np.ndarray:
        return self.judged("synthetic", self.generated, self.synthetic.rows)

    @cached_property
    def _ensemble(self) -> list[Predict]:
        """`classifier.seeds` reference classifiers, fitted on the labelled training images alone."""
        return [self._reference(derive_seed(self.seed, "ensemble", number)) for number in range(self.config.seeds)]

    def _reference(self, seed: int) -> Predict:
        if self.config.on_features:
            phase = Phase((self.real,), self.config.steps)
            return fit_feature_model(self.config, phase, self.classes, self.hardware, seed=seed)
        net = fit_classifier(self.config, [self.real], self.classes, self.hardware, classical=True, seed=seed)
        return lambda dataset, rows: apply_classifier(net, dataset, rows, self.hardware)

    def judged(self, name: str, dataset: DataSet, rows: np.ndarray) -> np.ndarray:
        """Mean probabilities [len(rows), num_classes] of the ensemble."""

        def scores() -> dict[str, np.ndarray]:
            return {"scores": np.mean([predict(dataset, rows) for predict in self._ensemble], axis=0)}

        return self._once(f"ensemble-{name}", scores, len(rows))["scores"]

    def _once(self, name: str, make: Callable[[], dict[str, np.ndarray]], length: int) -> dict[str, np.ndarray]:
        """Arrays of `length` entries each, made by the first process that asks and kept for others and for a resumed
        stage."""
        path = self.parts / f"{name}.npz"
        with FileLock(self.parts / f".lock-{name}"):
            found = _kept(path, length)
            if found is None:
                found = make()
                with atomic_path(path) as temporary, temporary.open("wb") as handle:
                    np.savez(handle, **found)  # type: ignore[arg-type]  # its stub takes an array for `allow_pickle`
        return found


def _cell_names(table: pd.DataFrame, site: str) -> list[tuple[str, str]]:
    return list(zip(table[site].astype(str), table["label"].astype(str), strict=True))


def _kept(path: Path, length: int) -> dict[str, np.ndarray] | None:
    """What lies whole at `path`."""
    try:
        with path.open("rb") as handle, np.load(handle, allow_pickle=False) as arrays:
            found = dict(arrays)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile):
        return None
    return found if found and all(len(array) == length for array in found.values()) else None


def filling(asked: np.ndarray, lacking: np.ndarray) -> np.ndarray:
    """Rows of images of classes `asked` [N], each class as frequent among them as `lacking` [num_classes] says.

    Every image of a lacking class is there at least once; some may be there more often.
    """
    members = {number: np.flatnonzero(asked == number) for number in np.flatnonzero(lacking)}
    times = max(int(np.ceil(len(rows) / lacking[number])) for number, rows in members.items())
    return np.concatenate([np.resize(rows, times * lacking[number]) for number, rows in members.items()])

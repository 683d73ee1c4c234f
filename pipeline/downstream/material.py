"""What the arms of one fold are trained on: real images, the pool, and the images of one generator."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from filelock import FileLock

from pipeline.core.errors import DataError
from pipeline.core.files import atomic_path
from pipeline.core.guard import SOURCE_COLUMN
from pipeline.core.seeds import derive_seed
from pipeline.data.batches.dataset import DataSet
from pipeline.downstream.beside import require_sources, translations
from pipeline.downstream.curation import Curation, curate
from pipeline.downstream.feature_models import Predict, fit_feature_model
from pipeline.downstream.fold_images import FoldImages
from pipeline.supervised.fit import Phase, Share, apply_classifier, fit_classifier


@dataclass(frozen=True)
class Material(FoldImages):
    """A fold's images as shares of batches; what takes time is made once, at the first question."""

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
    def unlabelled(self) -> Share:
        """The same without a label; none that the manifest may hold is read, and the loss of classes has none."""
        return Share(self.dataset, self.pool_rows, labelled=False)

    @cached_property
    def synthetic(self) -> Share:
        """All synthetic images under the classes that were asked for, class-balanced."""
        return Share(self.generated, np.arange(len(self.generated.images)))

    @cached_property
    def synthetic_cells(self) -> Share:
        """All synthetic images, every cell of site and class that was asked for as frequent as the others.

        Raises:
            LeakageError: something else than training images was translated.
        """
        table = self.generated.manifest
        if SOURCE_COLUMN in table:
            require_sources(self.dataset, self.real.rows, self.generated)
        groups = pd.factorize(table["site"].astype(str) + "\n" + table["label"].astype(str), sort=True)[0]
        domains = self.domains_of(table["site"].to_numpy(dtype=str))
        return replace(self.synthetic, groups=groups.astype(np.int64), domains=domains)

    @cached_property
    def cells_twice(self) -> Share:
        """`cells`, each image beside itself."""
        return replace(self.cells, beside=(self.dataset, self.cells.rows))

    @cached_property
    def cells_translated(self) -> Share:
        """`cells`, each image beside its translation to the other site."""
        return replace(self.cells, beside=(self.generated, translations(self.dataset, self.cells.rows, self.generated)))

    @cached_property
    def as_target(self) -> Share:
        """Translations of labelled images to unlabelled sites, class-balanced.

        Raises:
            DataError: there are none.
        """
        table = self.generated.manifest
        known = SOURCE_COLUMN in table and "site" in table
        rows = np.flatnonzero(table["site"].isin(self.archives)) if known else np.empty(0, dtype=np.int64)
        if not len(rows):
            raise DataError(
                "arms: adapted learns from translations to an unlabelled site, and the GAN made none. Set gan.between: "
                "archives and data.sources.NAME.unlabelled: true, or leave the arm out."
            )
        require_sources(self.dataset, self.real.rows, self.generated)
        return replace(self.synthetic, rows=rows)

    @cached_property
    def target_judged(self) -> Share:
        """`target` under the probabilities of an ensemble that learnt from `as_target`; no label of theirs is read."""

        def scores() -> dict[str, np.ndarray]:
            seeds = (derive_seed(self.seed, "adapted-ensemble", number) for number in range(self.config.seeds))
            judges = [self._reference(seed, self.as_target) for seed in seeds]
            return {"scores": np.mean([predict(self.dataset, self.target_rows) for predict in judges], axis=0)}

        found = self._once("ensemble-adapted", scores, len(self.target_rows))["scores"]
        return Share(self.dataset, self.target_rows, soft=found)

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
        seeds = (derive_seed(self.seed, "ensemble", number) for number in range(self.config.seeds))
        return [self._reference(seed, self.real) for seed in seeds]

    def _reference(self, seed: int, share: Share) -> Predict:
        if self.config.on_features:
            phase = Phase((share,), self.config.steps)
            return fit_feature_model(self.config, phase, self.classes, self.hardware, seed=seed)
        net = fit_classifier(self.config, [share], self.classes, self.hardware, classical=True, seed=seed)
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

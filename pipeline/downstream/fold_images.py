"""The images of one fold: who trains, validates and tests, of which site, and what a generator made."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Self

import numpy as np
import pandas as pd
from filelock import FileLock

from pipeline.config.arm_facts import Look
from pipeline.config.experiment import ClassifierConfig
from pipeline.core.compute import Hardware
from pipeline.core.errors import DataError, LeakageError
from pipeline.data.batches.dataset import DataSet, open_dataset
from pipeline.data.batches.intensities import Images
from pipeline.data.cohort.cells import CELL_COLUMNS, cell_counts, cells_of
from pipeline.data.cohort.folds import open_fold, split_ids
from pipeline.downstream.harmonised import harmoniser
from pipeline.downstream.looks import Seen, seen_through

_LOOKED_AT = 100


@dataclass(frozen=True)
class FoldImages:
    """A fold's images: who is where, as a look shows them, and those of one generator.

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
        seen = Seen(self.plain, self.sites, self.learnt_rows, target, self.seed, self._harmonise)
        with FileLock(self.parts / f".lock-{self.look}"):
            return seen_through(self.look, seen, self.parts / f"{self.look}.npy")

    @property
    def _harmonise(self) -> Callable[[Images, np.ndarray], Images] | None:
        """Through the generator to the unlabelled site, if there is one."""
        if self.look != "harmonised":
            return None
        return harmoniser(self.inputs["fit-gan"], self.fold, "".join(self.archives[:1]), self.hardware.device)

    def seen_as(self, look: Look | None) -> Self:
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
    def learnt_rows(self) -> np.ndarray:
        """Positions of the images that may be learnt from, labelled or not."""
        return np.concatenate([self.rows("train"), self.rows("unlabelled")])

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
        return self.domains_of(self.sites[rows])

    def domains_of(self, sites: np.ndarray) -> np.ndarray:
        """The numbers of sites [N] that are known by name, such as those that synthetic images were asked for."""
        return np.unique(self.sites[self.learnt_rows]).searchsorted(sites).astype(np.int64)

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

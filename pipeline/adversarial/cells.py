"""`gan.by_site`: a generator that is asked by site and class; to the nets a cell is a class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from pipeline.config.gan import GanConfig
from pipeline.core.errors import ConfigError, DataError
from pipeline.data.batches.dataset import DataSet
from pipeline.data.cohort.cells import cell_name
from pipeline.data.cohort.folds import labelled_by_cell

if TYPE_CHECKING:
    from pipeline.config.experiment import Experiment


def cells_of_generator(experiment: Experiment) -> dict[str, tuple[str, str]]:
    """What the generator is asked for with `gan.by_site`: the name of each cell -> site and class; else nothing."""
    sites = experiment.data.named_sites if experiment.gan.by_site else ()
    return {cell_name(site, label): (site, label) for site in sites for label in experiment.data.classes}


def target_cells(experiment: Experiment, cells: Mapping[str, tuple[str, str]]) -> tuple[str, ...]:
    """The cells that a family of two domains calls domain b: those of the positive classes, or of the second site.

    Raises:
        ConfigError: a translator between sites has not two of them.
    """
    if not between_sites(experiment.gan):
        return tuple(name for name, (_, label) in cells.items() if label in experiment.data.positive)
    sites = list(dict.fromkeys(site for site, _ in cells.values()))
    if len(sites) != 2:
        raise ConfigError(f"gan.between: sites translates between two sites, and there are {len(sites)}: {sites}.")
    return tuple(name for name, (site, _) in cells.items() if site == sites[1])


def between_sites(gan: GanConfig) -> bool:
    """Whether it translates from site to site within a class."""
    return getattr(gan, "between", "classes") == "sites"


def sources_within_class(
    gan: GanConfig, classes: Sequence[str], cells: Mapping[str, tuple[str, str]]
) -> dict[int, tuple[int, ...]] | None:
    """Number of each of `classes` -> numbers of those that its source may be of, where that is not the other domain's
    choice: the same class at the other site."""
    if not between_sites(gan):
        return None
    facts = [tuple(cells[name]) for name in classes]
    return {
        own: tuple(other for other, (there, same) in enumerate(facts) if same == label and there != site)
        for own, (site, label) in enumerate(facts)
    }


def by_cell(dataset: DataSet, site: str, train: Sequence[str], cells: Sequence[str], fold: int) -> DataSet:
    """The data set with the names of cells in place of its labels.

    Args:
        site: the manifest's column of the site.
        train: ids of the training images.

    Raises:
        DataError: a cell has no training image.
    """
    found = labelled_by_cell(dataset, site)
    absent = sorted(set(cells) - set(found.manifest["label"].iloc[found.rows(train)]))
    if absent:
        raise DataError(
            f"gan.by_site: fold {fold} has no training image of {', '.join(absent)}, so the GAN cannot learn what it "
            "is asked for. Train with some (data.correlation), or set gan.by_site: false."
        )
    return found

"""`gan.by_site`: a generator that is asked by site and class; to the nets a cell is a class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pipeline.core.errors import DataError
from pipeline.data.batches.dataset import DataSet
from pipeline.data.cohort.cells import cell_name
from pipeline.data.cohort.folds import labelled_by_cell

if TYPE_CHECKING:
    from pipeline.config.experiment import Experiment


def cells_of_generator(experiment: Experiment) -> dict[str, tuple[str, str]]:
    """What the generator is asked for with `gan.by_site`: the name of each cell -> site and class; else nothing."""
    sites = experiment.data.named_sites if experiment.gan.by_site else ()
    return {cell_name(site, label): (site, label) for site in sites for label in experiment.data.classes}


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

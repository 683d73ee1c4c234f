"""`gan.by_site`: a generator that is asked by site and class; to the nets a cell is a class."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch

from pipeline.config.gan import GanConfig
from pipeline.core.errors import ConfigError, DataError
from pipeline.data.batches.dataset import DataSet
from pipeline.data.batches.streams import StoredImages
from pipeline.data.cohort.cells import cell_name, cells_named
from pipeline.data.cohort.folds import labelled_by_cell
from pipeline.nets.sizes import ImageShape

if TYPE_CHECKING:
    from pipeline.config.experiment import Experiment


def cells_of_generator(experiment: Experiment) -> dict[str, tuple[str, str]]:
    """What the generator is asked for with `gan.by_site`: the name of each cell -> site and class; else nothing."""
    sites = experiment.data.named_sites if experiment.gan.by_site else ()
    return {cell_name(site, label): (site, label) for site in sites for label in experiment.data.classes}


def nets_classes(experiment: Experiment, cells: Mapping[str, tuple[str, str]]) -> tuple[str, ...]:
    """What the nets call classes: classes, cells with `gan.by_site`, or sites where they know no classes."""
    if blind(experiment.gan):
        return sites_of(cells)
    return tuple(cells) or experiment.data.classes


def nets_positive(experiment: Experiment, cells: Mapping[str, tuple[str, str]]) -> tuple[str, ...]:
    """Those of them that a family of two domains calls domain b: of the positive classes, or of all sites but
    the first.

    Raises:
        ConfigError: a translator between sites has not two of them.
    """
    if not between_sites(experiment.gan):
        positive = experiment.data.positive
        return tuple(name for name, (_, label) in cells.items() if label in positive) or positive
    sites = sites_of(cells)
    several = getattr(experiment.gan, "several_sites", False)
    if len(sites) < 2 or (len(sites) > 2 and not several):
        mend = "" if len(sites) < 2 else " gan.family: stargan translates between several."
        raise ConfigError(
            f"gan.between: sites and archives translate between two sites, and there are {len(sites)}: {list(sites)}."
            f"{mend}"
        )
    own = tuple(name for name, (site, _) in cells.items() if site != sites[0])
    return sites[1:] if blind(experiment.gan) else own


def sites_of(cells: Mapping[str, tuple[str, str]]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(site for site, _ in cells.values()))


def between_sites(gan: GanConfig) -> bool:
    """Whether it translates from site to site and keeps the class."""
    return getattr(gan, "between", "classes") != "classes"


def blind(gan: GanConfig) -> bool:
    """Whether it translates from site to site and knows no classes."""
    return getattr(gan, "between", "classes") == "archives"


def classes_a_site(gan: GanConfig, cells: Mapping[str, Sequence[str]]) -> int:
    """How many classes of images a site has, for a translator between sites; else 0."""
    return len({label for _, label in cells.values()}) if between_sites(gan) else 0


def nets_shape(
    gan: GanConfig,
    spatial_size: tuple[int, ...],
    channels: int,
    classes: Sequence[str],
    positive: Sequence[str],
    cells: Mapping[str, tuple[str, str]],
) -> ImageShape:
    """What the nets must fit.

    Args:
        classes, positive: of `nets_classes` and `nets_positive`.
    """
    return ImageShape(
        spatial_size,
        channels,
        num_classes=len(classes),
        num_attributes=len(gan.attributes),
        positive=tuple(classes.index(name) for name in positive),
        classes_a_site=classes_a_site(gan, cells),
    )


def sources_within_class(
    gan: GanConfig, classes: Sequence[str], cells: Mapping[str, tuple[str, str]]
) -> dict[int, tuple[int, ...]] | None:
    """Number of each of `classes` -> numbers of those that its source may be of, where that is not the other domain's
    choice: the same class at another site, if `classes` are cells; another site, if they are sites."""
    if not between_sites(gan):
        return None
    facts = [tuple(cells.get(name, (name, ""))) for name in classes]
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
    require_every_cell(found.manifest["label"].iloc[found.rows(train)], cells, fold)
    return found


def require_every_cell(found: Iterable[str], cells: Iterable[str], fold: int) -> None:
    """Check that a fold's training images, whose cells are `found`, have each of `cells`.

    Raises:
        DataError: a cell has no training image.
    """
    if absent := sorted(set(cells) - set(found)):
        raise DataError(
            f"gan.by_site: fold {fold} has no training image of {', '.join(absent)}, so the GAN cannot learn what it "
            "is asked for. Train with some (data.correlation), set gan.by_site: false, or let a translator learn "
            "without labels (gan.between: archives)."
        )


def by_site_alone(dataset: DataSet, site: str, learnt: Sequence[str], sites: Sequence[str], fold: int) -> DataSet:
    """The data set with the names of sites in place of its labels, of unlabelled images too, and `cell` beside them.

    Args:
        learnt: ids of the images that may be learnt from, labelled or not.

    Raises:
        DataError: a site has none of them.
    """
    known = dataset.manifest
    found = replace(dataset, manifest=known.assign(label=known[site].astype(str), cell=cells_named(known, site)))
    absent = sorted(set(sites) - set(found.manifest["label"].iloc[found.rows(learnt)]))
    if absent:
        raise DataError(f"gan.between: archives: fold {fold} has no image of {', '.join(absent)} to learn from.")
    return found


def with_cell_numbers(
    images: StoredImages, dataset: DataSet, rows: np.ndarray, cells: Mapping[str, tuple[str, str]]
) -> StoredImages:
    """The images at `rows` with the number of the cell of site and class of each; -1 where the class is unknown.

    Args:
        dataset: of `by_site_alone`.
        cells: in the order of the sites.
    """
    numbers = pd.Index(list(cells)).get_indexer(pd.Index(dataset.manifest["cell"].iloc[rows]))
    return replace(images, cell=torch.from_numpy(numbers.astype(np.int64)).to(images.device))

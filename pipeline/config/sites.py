"""Several sites that train together: what their configuration must agree on."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from pipeline.config.by_name import or_nearest

SITE_COLUMN = "site"
"""The manifest's column in which `data.sources` names the site of every image."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def check_by_site(named: Sequence[str], arms: Sequence[str], detectors: Sequence[str], attacks: Sequence[str]) -> None:
    """A generator of cells is asked by site and class, which what looks through a GAN by class alone does not do.

    Args:
        named: the sites whose names the configuration has.
        arms, detectors, attacks: those that look through the run's GAN.

    Raises:
        ValueError: as above.
    """
    if not named:
        raise ValueError(
            "gan.by_site needs the names of the sites: set data.site_names (or data.sources, or data.correlation)"
        )
    if looking := [*arms, *detectors, *attacks]:
        raise ValueError(
            f"gan.by_site: {', '.join(looking)} look through a GAN by class alone; leave them out (without detectors: "
            "anomaly.detectors: []), or by_site"
        )


def check_site_names(names: Iterable[str]) -> None:
    """Names become parts of image ids and of folders.

    Raises:
        ValueError: a name will not do.
    """
    for name in names:
        if not _NAME.fullmatch(name) or name == "external":
            raise ValueError(
                f"sources: {name!r} cannot be a site's name: use letters, digits, `.`, `_` and `-`, and not `external`"
            )


def check_labels(labels: Mapping[str, str], classes: Sequence[str], where: str) -> None:
    """Labels of a site lead to classes.

    Raises:
        ValueError: one leads elsewhere.
    """
    unknown = sorted(set(labels.values()) - {*classes, ""})
    if unknown:
        raise ValueError(
            f"{where}.labels must lead to one of {list(classes)} or to an empty name; it leads to {unknown}"
            f"{or_nearest(unknown[0], list(classes))}"
        )


def check_correlation(cells: Mapping[str, Mapping[str, int]], classes: Sequence[str], sites: Iterable[str]) -> None:
    """Every site names every class once, and every class has two images at least.

    Args:
        sites: the names that `data.sources` has; none where only the manifest knows them.

    Raises:
        ValueError: as above.
    """
    known = set(sites)
    if known and set(cells) != known:
        raise ValueError(f"correlation must name each of the sites {sorted(known)} once; it names {sorted(cells)}")
    if len(cells) < 2:
        raise ValueError("correlation is about two sites at least, such as {a: {normal: 10, ill: 190}, b: …}")
    for name, row in cells.items():
        if set(row) != set(classes):
            raise ValueError(f"correlation.{name} must name each of {list(classes)} once; it names {list(row)}")
    few = [name for name in classes if sum(row[name] for row in cells.values()) < 2]
    if few:
        raise ValueError(f"correlation leaves fewer than two training images of {', '.join(few)}")

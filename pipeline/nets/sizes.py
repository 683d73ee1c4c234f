"""The image's shape that nets must fit, and how an image size is reached by doublings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

_SMALLEST_GRID = 4


@dataclass(frozen=True)
class ImageShape:
    """What the nets must fit.

    Attributes:
        spatial_size: *spatial of the images.
        positive: numbers of the classes on the disease side; translators call them domain b.
        classes_a_site: of a translator between sites: how many classes of images a site has; else 0.
    """

    spatial_size: tuple[int, ...]
    channels: int
    num_classes: int
    num_attributes: int = 0
    positive: tuple[int, ...] = (1,)
    classes_a_site: int = 0

    @property
    def spatial_dims(self) -> int:
        return len(self.spatial_size)

    @property
    def levels(self) -> int:
        """How often the grid is halved or doubled; see `doublings`."""
        return doublings(self.spatial_size)

    @property
    def grid(self) -> tuple[int, ...]:
        """The first grid of a generator; see `first_grid`."""
        return first_grid(self.spatial_size)

    @property
    def last_grid(self) -> tuple[int, ...]:
        """The grid that a discriminator ends at, after `levels` halvings that round down."""
        return tuple(side >> self.levels for side in self.spatial_size)


def doublings(spatial_size: Sequence[int]) -> int:
    """How often the shortest side can be halved before it falls below 4 voxels (at least once)."""
    levels = 1
    while min(spatial_size) >> (levels + 1) >= _SMALLEST_GRID:
        levels += 1
    return levels


def first_grid(spatial_size: Sequence[int]) -> tuple[int, ...]:
    """The grid from which `doublings` reach at least `spatial_size`; what is over is cropped."""
    scale = 2 ** doublings(spatial_size)
    return tuple(-(-side // scale) for side in spatial_size)


def doubling_widths(width: int, count: int) -> list[int]:
    """Channels of `count` layers: `width`, and twice as many with each halving of the grid."""
    return [width * 2**level for level in range(count)]

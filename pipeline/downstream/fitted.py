"""Networks that were trained, as what predicts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from torch import nn

from pipeline.core.compute import Hardware
from pipeline.data.batches.dataset import DataSet
from pipeline.downstream.material import Material
from pipeline.supervised.fit import apply_classifier
from pipeline.supervised.norms import with_statistics_of


@dataclass(frozen=True)
class Fitted:
    """One network for all images."""

    net: nn.Module
    hardware: Hardware

    def __call__(self, dataset: DataSet, rows: np.ndarray) -> np.ndarray:
        return apply_classifier(self.net, dataset, rows, self.hardware)


@dataclass(frozen=True)
class FittedBySite:
    """A network for every unlabelled site, and the trained one for all others.

    Attributes:
        column: the manifest's, of the site.
        by_site: site -> its network.
    """

    net: nn.Module
    by_site: Mapping[str, nn.Module]
    column: str
    hardware: Hardware

    def __call__(self, dataset: DataSet, rows: np.ndarray) -> np.ndarray:
        site = dataset.manifest[self.column].to_numpy(dtype=str)[rows]
        found = apply_classifier(self.net, dataset, rows, self.hardware)
        for name, net in self.by_site.items():
            if (own := site == name).any():
                found[own] = apply_classifier(net, dataset, rows[own], self.hardware)
        return found


def by_target_norms(net: nn.Module, material: Material) -> FittedBySite:
    """The network with batch norms of their own for the images of each unlabelled site.

    Raises:
        DataError: no site has unlabelled images.
        ConfigError: the network has no batch norm.
    """
    rows, sites = material.target_rows, material.sites
    nets = {
        str(name): with_statistics_of(net, material.dataset, rows[sites[rows] == name], material.hardware)
        for name in np.unique(sites[rows])
    }
    return FittedBySite(net, nets, material.site, material.hardware)

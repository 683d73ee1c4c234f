"""Batch norms with the statistics of other images than those that a network was trained on."""

from __future__ import annotations

import copy

import numpy as np
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from pipeline.core.compute import Hardware, autocast
from pipeline.core.errors import ConfigError
from pipeline.data.batches.dataset import DataSet
from pipeline.supervised.batches import channels_last

_BATCH = 256


@torch.no_grad()
def with_statistics_of(net: nn.Module, dataset: DataSet, rows: np.ndarray, hardware: Hardware) -> nn.Module:
    """A copy of the network whose batch norms have the means and variances of the images at `rows`: AdaBN.

    Li et al., "Revisiting Batch Normalization For Practical Domain Adaptation", 2017. No weight changes and no label is
    read. Images go through in equal batches of at most 256, without augmentation, and statistics are means over these:
    exact for one batch.

    Raises:
        ConfigError: the network has no batch norm that keeps statistics.
    """
    adapted = copy.deepcopy(net).eval()
    norms = [module for module in adapted.modules() if isinstance(module, _BatchNorm) and module.track_running_stats]
    if not norms:
        raise ConfigError(
            f"arms: adabn gives batch norms the statistics of the unlabelled site, and {type(net).__name__} has no "
            "batch norm. Choose another classifier.network, or leave the arm out."
        )
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the plain mean over batches
        norm.train()
    for part in np.array_split(rows, -(-len(rows) // _BATCH)):
        with autocast(hardware):
            adapted(channels_last(dataset.tensor(part).to(hardware.device)))
    return adapted.eval()

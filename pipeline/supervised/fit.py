"""Fit a classifier on a mixture of data sets, and apply it. Every arm goes through here with equal steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.config.experiment import ClassifierConfig
from pipeline.core.compute import Hardware, autocast, place
from pipeline.core.errors import NonFiniteLoss
from pipeline.core.seeds import derive_seed
from pipeline.data.augmentation import Augmenter
from pipeline.data.dataset import DataSet
from pipeline.data.draws import Draws
from pipeline.data.streams import StoredImages, Stream
from pipeline.nets.classifiers import make_classifier

_APPLY_BATCH = 256


@dataclass(frozen=True)
class Share:
    """A data set's part in every training batch.

    Attributes:
        rows: positions of the images that may be seen.
        weight: parts of the batch, relative to the other shares.
    """

    dataset: DataSet
    rows: np.ndarray
    weight: float = 1.0


def fit_classifier(
    config: ClassifierConfig,
    shares: Sequence[Share],
    classes: Sequence[str],
    hardware: Hardware,
    *,
    classical: bool,
    seed: int,
) -> nn.Module:
    """Train a classifier for `config.steps` steps of class-balanced batches and return it in evaluation mode.

    AdamW with a one-cycle learning rate and cross-entropy; no early stopping, so that every arm takes equal steps.

    Args:
        shares: what the batches are mixed from, synthetic data sets beside real ones.
        classical: apply `config.augment` to every image, real or synthetic.
        seed: of weights, order, dropout and augmentation.

    Raises:
        NonFiniteLoss: the loss became NaN or infinite; the weights of the step before are untouched.
    """
    streams = _streams(config, shares, classes, hardware, seed)
    augment = Augmenter(config.augment)
    draws = Draws(torch.Generator(hardware.device).manual_seed(derive_seed(seed, "augment")))
    images = shares[0].dataset.images
    with torch.random.fork_rng(devices=[hardware.device] if hardware.device == "cuda" else []):
        torch.manual_seed(derive_seed(seed, "weights"))
        net = make_classifier(
            config.network, spatial_dims=images.ndim - 2, channels=images.shape[1], num_classes=len(classes)
        )
        net = place(net, hardware).train()
        optimizer = torch.optim.AdamW(net.parameters(), lr=config.lr, weight_decay=config.weight_decay, fused=True)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, max_lr=config.lr, total_steps=config.steps + 1, cycle_momentum=False
        )
        for step in range(config.steps):
            batches = [stream.next() for stream in streams]
            seen = torch.cat([batch.images for batch in batches])
            label = torch.cat([batch.label for batch in batches])
            seen = augment(seen, draws) if classical else seen
            with autocast(hardware):
                logits = net(seen)
            loss = nn.functional.cross_entropy(logits.float(), label)
            if not torch.isfinite(loss):
                raise NonFiniteLoss(f"the classifier's loss became {float(loss)} at step {step}. Lower classifier.lr.")
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
    return net.eval()


@torch.no_grad()
def apply_classifier(net: nn.Module, dataset: DataSet, rows: np.ndarray, hardware: Hardware) -> np.ndarray:
    """Class probabilities [len(rows), num_classes], float32, of the images at `rows`, without augmentation."""
    parts: list[Tensor] = []
    for start in range(0, len(rows), _APPLY_BATCH):
        images = dataset.tensor(rows[start : start + _APPLY_BATCH]).to(hardware.device)
        with autocast(hardware):
            logits = net(images)
        parts.append(torch.softmax(logits.float(), dim=1).cpu())
    return torch.cat(parts).numpy()


def _streams(
    config: ClassifierConfig, shares: Sequence[Share], classes: Sequence[str], hardware: Hardware, seed: int
) -> list[Stream]:
    streams = []
    for number, (share, size) in enumerate(zip(shares, batch_sizes(config.batch_size, shares), strict=True)):
        stored = torch.from_numpy(np.ascontiguousarray(share.dataset.images[share.rows])).to(hardware.device)
        label = share.dataset.labels(share.rows, classes).to(hardware.device)
        order = derive_seed(seed, "order", number)
        streams.append(Stream(StoredImages(stored, label, share.dataset.scaling), size, order))
    return streams


def batch_sizes(batch_size: int, shares: Sequence[Share]) -> list[int]:
    """Divide a batch by the shares' weights; every share gets at least one image and the sum is `batch_size`."""
    total = sum(share.weight for share in shares)
    room = batch_size - len(shares) + 1
    sizes = [min(room, max(1, round(batch_size * share.weight / total))) for share in shares[1:]]
    return [batch_size - sum(sizes), *sizes]

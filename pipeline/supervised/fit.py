"""Fit a classifier on mixtures of data sets, and apply it. Every arm goes through here."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.config.arm_facts import Align, Classical, Loss, Mixing
from pipeline.config.augment import strong, with_appearance
from pipeline.config.experiment import ClassifierConfig
from pipeline.core.compute import Hardware, autocast, place
from pipeline.core.seeds import derive_seed, numpy_generator
from pipeline.data.batches.augmentation import Augmenter
from pipeline.data.batches.dataset import DataSet
from pipeline.data.batches.draws import Draws
from pipeline.nets.classifiers import last_layer, make_classifier
from pipeline.supervised.alignment import inputs_of, make_alignment
from pipeline.supervised.batches import Batches, Mixed, Share, batch_sizes, channels_last, share_labels
from pipeline.supervised.loop import minimise
from pipeline.supervised.losses import (
    GroupDro,
    balancing_weights,
    fixmatch,
    jensen_shannon,
    log_prior,
    mixed_amplitudes,
    mixed_pairs,
    weighted_cross_entropy,
)
from pipeline.supervised.memory import in_parts, in_parts_that_fit

__all__ = ["Phase", "Regimen", "Share", "apply_classifier", "batch_sizes", "fit", "fit_classifier"]
_APPLY_BATCH = 256
MIXUP_ALPHA, ACROSS_SITES_ALPHA = 0.4, 2.0
"""Of Beta; each is its paper's."""


@dataclass(frozen=True)
class Phase:
    """A stretch of training with an optimiser and a one-cycle schedule of its own.

    Attributes:
        shares: what its batches are mixed from.
        classical: apply the classical transforms to every image, real or synthetic; `appearance`: stronger ones of
            intensities and sharpness too.
        mixup: mix the images of a batch in pairs, shares from Beta(0.4, 0.4), after the classical transforms;
            `across_sites`: each with one of its class and another domain, shares from Beta(2, 2); `amplitudes`: each
            gets Fourier amplitudes of one of another domain, shares from 0 to 1.
        loss: `class_weights` = rarer classes weigh more; `logit_adjustment` = logits carry the log frequencies. Both
            are of the labelled images of its shares. `group_dro` = groups with high losses weigh more; all shares then
            have groups.
        agreement: weight of the Jensen-Shannon divergence between the answers on an image and on the one beside it.
        fixmatch: add the loss of FixMatch, weight 1, of the images without a label; their strongly transformed copies
            are shown beside the batch.
        align: is added to the loss so that features of different domains are alike; all shares then have domains.
        head: the last layer is `kept` as it is, `fresh`, or fresh and trained `alone`, all else being frozen.
    """

    shares: tuple[Share, ...]
    steps: int
    classical: Classical = True
    mixup: Mixing = False
    loss: Loss = "plain"
    agreement: float = 0.0
    fixmatch: bool = False
    align: Align | None = None
    head: Literal["kept", "fresh", "alone"] = "kept"


@dataclass(frozen=True)
class Regimen:
    """How a classifier is trained.

    Attributes:
        phases: one after the other, on the same network.
        network: another network than the config's.
        lr: another highest learning rate than the config's.
        net: a network to start from, on the CPU; it is trained in place.
    """

    phases: tuple[Phase, ...]
    network: str | None = None
    lr: float | None = None
    net: nn.Module | None = None


def fit_classifier(
    config: ClassifierConfig,
    shares: Sequence[Share],
    classes: Sequence[str],
    hardware: Hardware,
    *,
    classical: bool,
    seed: int,
) -> nn.Module:
    """Train a classifier for `config.steps` steps in one phase; see `fit`."""
    regimen = Regimen((Phase(tuple(shares), config.steps, classical=classical),))
    return fit(config, regimen, classes, hardware, seed=seed)


def fit(
    config: ClassifierConfig, regimen: Regimen, classes: Sequence[str], hardware: Hardware, *, seed: int
) -> nn.Module:
    """Train a classifier through the phases of `regimen` and return it in evaluation mode.

    The same loop and as many steps for every arm; see `minimise`. Where memory runs out, it begins anew with batches in
    more parts (`in_parts_that_fit`), unless a phase's loss is no mean over images: `group_dro`, `align`, `fixmatch`.

    Args:
        seed: of weights, order, dropout, augmentation and mixtures.

    Raises:
        NonFiniteLoss: the loss became NaN or infinite; the weights of the step before are untouched.
    """
    given = regimen.net
    start = copy.deepcopy(given.state_dict()) if given is not None else {}

    def attempt(parts: int) -> nn.Module:
        if given is not None:
            given.load_state_dict(start)
        with torch.random.fork_rng(devices=["cuda"] if hardware.device == "cuda" else []):
            torch.manual_seed(derive_seed(seed, "weights"))  # of dropout too, which draws from torch's global generator
            training = ClassifierTraining(config, regimen, classes, hardware, seed, parts)
            for phase in regimen.phases:
                training.run(phase)
        return training.net.eval()

    if all(_is_mean_over_images(phase) for phase in regimen.phases):
        return in_parts_that_fit(attempt, config.batch_size)
    return attempt(1)


def _is_mean_over_images(phase: Phase) -> bool:
    return phase.loss != "group_dro" and phase.align is None and not phase.fixmatch


class ClassifierTraining:
    """A classifier with the random numbers that go on from one phase to the next.

    Args:
        parts: that every batch is computed in, to save memory. Its gradient is that of the whole batch; batch norm sees
            a part at a time.
    """

    def __init__(
        self,
        config: ClassifierConfig,
        regimen: Regimen,
        classes: Sequence[str],
        hardware: Hardware,
        seed: int,
        parts: int = 1,
    ) -> None:
        self.config, self.classes, self.hardware, self.seed, self.parts = config, classes, hardware, seed, parts
        self.lr = regimen.lr or config.lr
        self.draws = Draws(torch.Generator(hardware.device).manual_seed(derive_seed(seed, "augment")))
        self.random = numpy_generator(seed, "mixup")
        self.orders = 0
        images = regimen.phases[0].shares[0].dataset.images
        net = regimen.net or make_classifier(
            regimen.network or config.trained_network,
            spatial_dims=images.ndim - 2,
            channels=images.shape[1],
            num_classes=len(classes),
        )
        self.net: nn.Module = place(net, hardware)

    def run(self, phase: Phase) -> None:
        """Train through one phase, on batches of its own."""
        if not phase.steps:
            return
        device = self.hardware.device
        batches = Batches(phase.shares, self.config.batch_size, self.classes, device, self.seed, self.orders)
        self.orders += len(phase.shares)
        class_weight, shift = class_terms(phase, self.classes, device)
        robust = GroupDro(num_groups(phase), device) if phase.loss == "group_dro" else None
        trained, aligned = self._trained(phase), self._alignment(phase)

        def loss_of(batch: Mixed, progress: float) -> Tensor:
            with autocast(self.hardware), inputs_of(last_layer(self.net)) as features:
                logits = self.net(channels_last(shown_together(batch)))
            if phase.fixmatch:
                logits, copies = logits.float().tensor_split([len(batch.images)])
                told = weighted_cross_entropy(logits, batch.target, batch.weight, class_weight)
                return told + fixmatch(logits[batch.weight == 0], copies)
            if batch.beside is not None:
                logits, other = logits.float().chunk(2)
                told = weighted_cross_entropy(logits + shift, batch.target, batch.weight, class_weight)
                return told + phase.agreement * jensen_shannon(logits, other)
            if robust is not None:
                return robust(logits.float(), batch.target, batch.group)
            loss = weighted_cross_entropy(logits.float() + shift, batch.target, batch.weight, class_weight)
            return loss if aligned is None else loss + aligned(features[0].float(), batch.domain, progress)

        def losses_at(step: int) -> Iterator[Tensor]:
            batch = self._shown(phase, batches.next(step / phase.steps))
            for part in in_parts(batch, self.parts):
                yield part.weight.sum() / batch.weight.sum() * loss_of(part, step / phase.steps)

        if aligned is not None:
            trained += aligned.parameters()
        minimise(
            losses_at, trained, steps=phase.steps, lr=self.lr, weight_decay=self.config.weight_decay,
            what="the classifier",
        )  # fmt: skip

    def _alignment(self, phase: Phase) -> nn.Module | None:
        if phase.align is None:
            return None
        domains = 1 + max(int(share.domains.max()) for share in phase.shares if share.domains is not None)
        made = make_alignment(phase.align, last_layer(self.net).in_features, domains)
        return made.to(self.hardware.device)

    def _trained(self, phase: Phase) -> list[nn.Parameter]:
        """Set the network up for a phase; returns what is trained. A frozen trunk's norms stand still too."""
        head = last_layer(self.net)
        if phase.head != "kept":
            head.reset_parameters()
        alone = phase.head == "alone"
        self.net.train(not alone).requires_grad_(not alone)
        head.requires_grad_(True)
        return [parameter for parameter in self.net.parameters() if parameter.requires_grad]

    def _shown(self, phase: Phase, batch: Mixed) -> Mixed:
        """The batch with classical transforms, mixed in pairs, as the phase says."""
        if phase.fixmatch:
            copies = Augmenter(strong(self.config.augment))(batch.images[batch.weight == 0], self.draws)
            return replace(batch, images=transforms_of(self.config, phase)(batch.images, self.draws), beside=copies)
        if phase.classical:
            augment = transforms_of(self.config, phase)
            batch = replace(batch, images=augment(batch.images, self.draws))
            if batch.beside is not None:
                batch = replace(batch, beside=augment(batch.beside, self.draws))
        return self._mixed(phase, batch) if phase.mixup else batch

    def _mixed(self, phase: Phase, batch: Mixed) -> Mixed:
        images, count = batch.images, len(batch.images)
        if phase.mixup == "amplitudes":
            share = torch.from_numpy(self.random.random(count)).float().to(images.device)
            partner = partners_across(np.zeros(count), batch.domain.cpu().numpy(), self.random)
            given = mixed_amplitudes(images, share, torch.from_numpy(partner).to(images.device))
            return replace(batch, images=given)
        alpha = ACROSS_SITES_ALPHA if phase.mixup == "across_sites" else MIXUP_ALPHA
        share = torch.from_numpy(self.random.beta(alpha, alpha, count)).float().to(images.device)
        if phase.mixup == "across_sites":
            label, domain = batch.target.argmax(dim=1).cpu().numpy(), batch.domain.cpu().numpy()
            partner = partners_across(label, domain, self.random)
        else:
            partner = self.random.permutation(count)
        images, target = mixed_pairs(images, batch.target, share, torch.from_numpy(partner).to(images.device))
        return replace(batch, images=images, target=target)


def transforms_of(config: ClassifierConfig, phase: Phase) -> Augmenter:
    """What a phase with classical transforms does to its images."""
    return Augmenter(with_appearance(config.augment) if phase.classical == "appearance" else config.augment)


def partners_across(label: np.ndarray, domain: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """For each of the images [B] one of its class and another domain, by lot; itself where there is none."""
    fits = (label[:, None] == label) & (domain[:, None] != domain)
    drawn = np.where(fits, random.random(fits.shape), -1).argmax(axis=1)
    return np.where(fits.any(axis=1), drawn, np.arange(len(label)))


def shown_together(batch: Mixed) -> Tensor:
    """The images, and behind them those beside them."""
    return batch.images if batch.beside is None else torch.cat([batch.images, batch.beside])


def num_groups(phase: Phase) -> int:
    """Of the shares of a phase, all of which have groups."""
    groups = [share.groups for share in phase.shares]
    assert all(one is not None for one in groups), "group DRO needs the group of every image"
    return 1 + max(int(one.max()) for one in groups if one is not None)


def class_terms(phase: Phase, classes: Sequence[str], device: str) -> tuple[Tensor, Tensor]:
    """Weights of the classes in the loss and what is added to the logits, [num_classes] each."""
    ones, zeros = torch.ones(len(classes), device=device), torch.zeros(len(classes), device=device)
    if phase.loss in ("plain", "group_dro"):
        return ones, zeros
    labels = torch.cat([share_labels(share, classes) for share in phase.shares if share.soft is None])
    counts = torch.bincount(labels, minlength=len(classes)).float().to(device)
    return (balancing_weights(counts), zeros) if phase.loss == "class_weights" else (ones, log_prior(counts))


@torch.no_grad()
def apply_classifier(net: nn.Module, dataset: DataSet, rows: np.ndarray, hardware: Hardware) -> np.ndarray:
    """Class probabilities [len(rows), num_classes], float32, of the images at `rows`, without augmentation."""
    parts: list[Tensor] = []
    for start in range(0, len(rows), _APPLY_BATCH):
        images = dataset.tensor(rows[start : start + _APPLY_BATCH]).to(hardware.device)
        with autocast(hardware):
            logits = net(channels_last(images))
        parts.append(torch.softmax(logits.float(), dim=1).cpu())
    return torch.cat(parts).numpy()

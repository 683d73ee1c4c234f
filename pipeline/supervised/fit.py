"""The one supervised loop: fit a classifier on mixtures of data sets, and apply it. Every arm goes through here."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.config.experiment import ClassifierConfig
from pipeline.core.compute import Hardware, autocast, place
from pipeline.core.errors import NonFiniteLoss
from pipeline.core.seeds import derive_seed, numpy_generator
from pipeline.data.batches.augmentation import Augmenter
from pipeline.data.batches.dataset import DataSet
from pipeline.data.batches.draws import Draws
from pipeline.nets.classifiers import last_layer, make_classifier
from pipeline.supervised.batches import Batches, Mixed, Share, batch_sizes, channels_last, share_labels
from pipeline.supervised.losses import balancing_weights, log_prior, mixed_pairs, weighted_cross_entropy

__all__ = ["Phase", "Regimen", "Share", "apply_classifier", "batch_sizes", "fit", "fit_classifier"]
_APPLY_BATCH = 256
MIXUP_ALPHA = 0.4


@dataclass(frozen=True)
class Phase:
    """A stretch of training with an optimiser and a one-cycle schedule of its own.

    Attributes:
        shares: what its batches are mixed from.
        classical: apply the classical transforms to every image, real or synthetic.
        mixup: mix the images of a batch in pairs, shares from Beta(0.4, 0.4), after the classical transforms.
        loss: `class_weights` = rarer classes weigh more; `logit_adjustment` = logits carry the log frequencies. Both
            are of the labelled images of its shares.
        head: the last layer is `kept` as it is, `fresh`, or fresh and trained `alone`, all else being frozen.
    """

    shares: tuple[Share, ...]
    steps: int
    classical: bool = True
    mixup: bool = False
    loss: Literal["plain", "class_weights", "logit_adjustment"] = "plain"
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

    AdamW with a one-cycle learning rate and cross-entropy; no early stopping, so that every arm takes equal steps.

    Args:
        seed: of weights, order, dropout, augmentation and mixtures.

    Raises:
        NonFiniteLoss: the loss became NaN or infinite; the weights of the step before are untouched.
    """
    training = Training(config, regimen, classes, hardware, seed)
    with training.own_random():
        for phase in regimen.phases:
            training.run(phase)
    return training.net.eval()


class Training:
    """A network with the random numbers that go on from one phase to the next.

    Attributes:
        batches, class_weight, shift: of the phase that was begun last; what enters its loss, [num_classes] each.
    """

    batches: Batches
    class_weight: Tensor
    shift: Tensor

    def __init__(
        self, config: ClassifierConfig, regimen: Regimen, classes: Sequence[str], hardware: Hardware, seed: int
    ) -> None:
        self.config, self.classes, self.hardware, self.seed = config, classes, hardware, seed
        self.lr = regimen.lr or config.lr
        self.augment = Augmenter(config.augment)
        self.draws = Draws(torch.Generator(hardware.device).manual_seed(derive_seed(seed, "augment")))
        self.random = numpy_generator(seed, "mixup")
        self.orders = 0
        self._global: list[Tensor] = []
        images = regimen.phases[0].shares[0].dataset.images
        with self.own_random():
            net = regimen.net or make_classifier(
                regimen.network or config.trained_network,
                spatial_dims=images.ndim - 2,
                channels=images.shape[1],
                num_classes=len(classes),
            )
        self.net: nn.Module = place(net, hardware)

    @contextmanager
    def own_random(self) -> Iterator[None]:
        """Torch's global random numbers (weights, dropout) as if nothing but this training drew any."""
        cuda = self.hardware.device == "cuda"
        with torch.random.fork_rng(devices=["cuda"] if cuda else []):
            if self._global:
                torch.set_rng_state(self._global[0])
                if cuda:
                    torch.cuda.set_rng_state(self._global[1])
            else:
                torch.manual_seed(derive_seed(self.seed, "weights"))
            yield
            self._global = [torch.get_rng_state(), *([torch.cuda.get_rng_state()] if cuda else [])]

    def run(self, phase: Phase) -> None:
        if not phase.steps:
            return
        parameters = self.begin(phase)
        optimizer, schedule = make_optimizer(parameters, self.lr, self.config.weight_decay, phase.steps)
        for step in range(phase.steps):
            batch = self.batches.next(step / phase.steps)
            images = self.augment(batch.images, self.draws) if phase.classical else batch.images
            batch = self.mixed(phase, replace(batch, images=images))
            with autocast(self.hardware):
                logits = self.net(channels_last(batch.images))
            loss = weighted_cross_entropy(logits.float() + self.shift, batch.target, batch.weight, self.class_weight)
            if not torch.isfinite(loss):
                raise NonFiniteLoss(f"the classifier's loss became {float(loss)} at step {step}. Lower classifier.lr.")
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()

    def begin(self, phase: Phase) -> list[nn.Parameter]:
        """Set batches and network up for a phase; returns what is trained. A frozen trunk's norms stand still too."""
        device = self.hardware.device
        self.batches = Batches(phase.shares, self.config.batch_size, self.classes, device, self.seed, self.orders)
        self.orders += len(phase.shares)
        self.class_weight, self.shift = class_terms(phase, self.classes, device)
        head = last_layer(self.net)
        if phase.head != "kept":
            head.reset_parameters()
        alone = phase.head == "alone"
        self.net.train(not alone).requires_grad_(not alone)
        head.requires_grad_(True)
        return [parameter for parameter in self.net.parameters() if parameter.requires_grad]

    def mixed(self, phase: Phase, batch: Mixed) -> Mixed:
        """The batch, mixed in pairs where the phase says so."""
        if not phase.mixup:
            return batch
        images, count = batch.images, len(batch.images)
        share = torch.from_numpy(self.random.beta(MIXUP_ALPHA, MIXUP_ALPHA, count)).float().to(images.device)
        partner = torch.from_numpy(self.random.permutation(count)).to(images.device)
        return Mixed(*mixed_pairs(images, batch.target, share, partner), batch.weight)


def make_optimizer(
    parameters: Sequence[Tensor], lr: float, weight_decay: float, steps: int
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.OneCycleLR]:
    """AdamW and its one-cycle schedule for a phase of `steps` steps."""
    optimizer = torch.optim.AdamW(parameters, lr=lr, weight_decay=weight_decay, fused=True)
    return optimizer, torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=lr, total_steps=steps + 1, cycle_momentum=False
    )


def class_terms(phase: Phase, classes: Sequence[str], device: str) -> tuple[Tensor, Tensor]:
    """Weights of the classes in the loss and what is added to the logits, [num_classes] each."""
    ones, zeros = torch.ones(len(classes), device=device), torch.zeros(len(classes), device=device)
    if phase.loss == "plain":
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

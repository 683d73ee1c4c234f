"""The collapse watch's eyes: what a GAN in training makes, against real training images. It changes nothing."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.adversarial.condition_sampler import ConditionSampler
from pipeline.adversarial.coupling import condition_of_batch
from pipeline.adversarial.loop import GanTraining
from pipeline.config.gan import WatchConfig
from pipeline.core.seeds import derive_seed
from pipeline.data.batches.dataset import DataSet
from pipeline.data.batches.streams import StoredImages, stored_images
from pipeline.measures.coverage import prdc
from pipeline.measures.ms_ssim import pairwise_ms_ssim
from pipeline.measures.twins import low_resolution, near_distance, twins
from pipeline.nets.conditions import Condition

NEIGHBOURS = 5
"""k of `reached`: the ball of a real image reaches to its 5th nearest neighbour (Naeem et al., ICML 2020)."""
_SIMILARITY_SIDES = {2: 32, 3: 16}
_PAIRS = 64
_TOGETHER = 32
_FEWEST = 8
_WORK = 0.65
"""Work of a check for one sample in training images, at most: the generator makes it, and the discriminator sees it, a
training image and a validation image. Counted in FLOPs: sngan 0.49, vae 0.55, wgan 0.64, the other families below 0.55.
"""
_TELLS_APART = 2.0
"""Standard errors by which logits of training images and fakes must differ before their gap means anything."""


@dataclass(frozen=True)
class Reading:
    """One check. A number is None where it cannot be had (too few images, no discriminator, values not finite).

    Attributes:
        similarity: intra-class MS-SSIM of the samples, placed between real images' own (0) and 1 (all alike), of the
            class where it is highest. Odena et al., ICML 2017.
        reached: share of the real images whose ball holds a sample, of the class where it is lowest. Quality's
            `coverage` counts likewise, but in an extractor's features: its values are others.
        twins: share of samples that have a near-equal one of their class, of the class where it is highest.
        overfitting: r_v = (D(train) - D(val)) / (D(train) - D(fake)) of mean logits: 0 = validation images look like
            training images to the discriminator, 1 = like fakes. Karras et al., NeurIPS 2020, equation 1.
        finite: no weight and no sample is NaN or infinite.
    """

    similarity: float | None = None
    reached: float | None = None
    twins: float | None = None
    overfitting: float | None = None
    finite: bool = True


def within_share(watch: WatchConfig, num_images: int, num_classes: int) -> WatchConfig:
    """The watch with as few images a check, and then as few checks, as its share of a training of `num_images` allows.

    Counted from the configuration alone, so that the same training is always looked at in the same way.
    """
    if not watch.checks:
        return watch
    affordable = watch.share * num_images / _WORK / num_classes  # images a class, over all checks
    checks = min(watch.checks, max(1, int(affordable / _FEWEST)))
    images = min(watch.images, max(_FEWEST, int(affordable / checks)))
    return watch.model_copy(update={"checks": checks, "images": images})


class Probe:
    """Fixed z, conditions and real images that every check of a training uses.

    Args:
        images: at most, of each class: real ones to compare with, and as many samples; a translator gives no more than
            it has sources of them.
        validation: images that the discriminator has never seen.
        part: images that the training computes at once. The probe takes as many, from 8 to 32, for the memory's sake.
    """

    def __init__(
        self,
        images: int,
        sampler: ConditionSampler,
        validation: StoredImages,
        num_classes: int,
        latent_dim: int,
        seed: int,
        part: int = _TOGETHER,
    ) -> None:
        self.together = min(_TOGETHER, max(_FEWEST, part))
        random = torch.Generator().manual_seed(derive_seed(seed, "watch"))
        self.seed = seed
        self.train = _some_of_each(sampler.images, images, num_classes, random)
        self.validation = _some_of_each(validation, images, num_classes, random)
        self.real = [ClassOfReal(part, seed) for part in _by_class(_images(self.train), self.train.label, num_classes)]
        # classes mixed, since batch norm in training mode takes its statistics from what is made together
        mixed = self.train.label.cpu()[torch.randperm(len(self.train.label), generator=random)]
        kept, sources = sampler.sources_once(mixed, random)
        self.label = mixed[kept]
        self.asked = [
            (
                torch.randn(len(part), latent_dim, generator=random).to(sampler.images.device),
                sampler.sample(self.label[part], random, None if sources is None else sources[part]),
            )
            for part in torch.arange(len(self.label)).tensor_split(-(-len(self.label) // self.together))
        ]

    @torch.no_grad()
    def read(self, training: GanTraining) -> Reading:
        """Look at the averaged generator and the discriminator, in the training's precision; nothing moves by it."""
        if not all_finite(training):
            return Reading(finite=False)
        with training.context.autocast:
            made = self._samples(training.ema.nets["generator"])
        if not all(torch.isfinite(part).all() for part in made):
            return Reading(finite=False)
        by_class = _by_class(torch.cat(made).cpu(), self.label, len(self.real))
        seen = [real.compare(samples) for real, samples in zip(self.real, by_class, strict=True)]
        similarity, reached, alike = zip(*seen, strict=True)
        return Reading(
            similarity=_worst(max, similarity),
            reached=_worst(min, reached),
            twins=_worst(max, alike),
            overfitting=self._overfitting(training, made),
        )

    def _samples(self, generator: nn.Module) -> list[Tensor]:
        """Images on the device. An averaged net's batch-norm statistics are stale: it takes those of each batch."""
        own = copy.deepcopy(generator)
        own.train(any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in own.modules()))
        return [own(z, condition).float() for z, condition in self.asked]

    def _overfitting(self, training: GanTraining, made: Sequence[Tensor]) -> float | None:
        discriminator = training.context.nets.get("discriminator")
        if discriminator is None or not len(self.validation.label):
            return None
        was_training = discriminator.training
        discriminator.eval()
        conditions = [condition for _, condition in self.asked]
        with training.context.autocast:
            train, held_out = (_logits_of(discriminator, part, self.together) for part in (self.train, self.validation))
            fake = torch.cat([_logits(discriminator, *pair) for pair in zip(made, conditions, strict=True)])
        discriminator.train(was_training)
        labels = self.train.label.cpu(), self.validation.label.cpu(), self.label
        return overfitting(*zip((train, held_out, fake), labels, strict=True))


class ClassOfReal:
    """Real training images of one class [N, C, *spatial], and what is known of them."""

    def __init__(self, images: Tensor, seed: int) -> None:
        self.seed = seed
        self.similarity = _similarity(images, seed) if len(images) > 1 else None
        self.features = low_resolution(images)
        self.near = near_distance(self.features)

    def compare(self, samples: Tensor) -> tuple[float | None, float | None, float | None]:
        """Similarity, reached and twins of as many samples, as in `Reading`; of translations perhaps fewer.

        One real image or sample has nothing to be compared with; at most `NEIGHBOURS` have no ball, or reach none.
        """
        if self.similarity is None or len(samples) < 2:
            return None, None, None
        made = low_resolution(samples)
        reached = None
        if min(len(self.features), len(made)) > NEIGHBOURS:
            reached = prdc(self.features.numpy(), made.numpy(), NEIGHBOURS).coverage
        similarity = (_similarity(samples, self.seed) - self.similarity) / max(1 - self.similarity, 1e-6)
        return similarity, reached, float(twins(made, self.near).double().mean())


def overfitting(
    train: tuple[Tensor, Tensor], held_out: tuple[Tensor, Tensor], fake: tuple[Tensor, Tensor]
) -> float | None:
    """r_v as in `Reading`, each of its means a mean over classes; None where D does not tell training from fake.

    Args:
        train, held_out, fake: logits [N] with their classes [N].
    """
    classes = set.intersection(*(set(label.tolist()) for _, label in (train, held_out, fake)))
    if not classes:
        return None
    means = [
        torch.stack([logits[label == n].mean() for n in classes]).mean() for logits, label in (train, held_out, fake)
    ]
    gap = float(means[0] - means[2])
    error = sum(float(logits.var(correction=0)) / len(logits) for logits, _ in (train, fake)) ** 0.5
    return float(means[0] - means[1]) / gap if gap > _TELLS_APART * error else None


def validation_images(
    dataset: DataSet, train_rows: np.ndarray, rows: np.ndarray, classes: Sequence[str], attributes: Sequence[str],
    device: str,
) -> StoredImages:  # fmt: skip
    """The fold's validation images, their attributes standardised as the training images' are.

    An attribute that is not a number counts as the training images' mean.
    """
    images = stored_images(dataset, rows, classes, (), device)
    if not attributes:
        return images
    own = dataset.numbers(train_rows, attributes)
    standard = (dataset.numbers(rows, attributes) - own.mean(axis=0)) / np.maximum(own.std(axis=0), 1e-6)
    return replace(images, attributes=torch.from_numpy(np.nan_to_num(standard).astype(np.float32)).to(device))


def all_finite(training: GanTraining) -> bool:
    """Whether all weights and buffers of all nets are finite."""
    nets = [*training.context.nets.values(), *training.ema.nets.values()]
    return all(bool(torch.isfinite(value).all()) for net in nets for value in net.state_dict().values())


def _some_of_each(images: StoredImages, most: int, num_classes: int, random: torch.Generator) -> StoredImages:
    label = images.label.cpu()
    of_class = [torch.nonzero(label == number)[:, 0] for number in range(num_classes)]
    rows = torch.cat([own[torch.randperm(len(own), generator=random)[:most]] for own in of_class])
    return images.part(rows)


def _images(images: StoredImages) -> Tensor:
    return images.batch(torch.arange(len(images.label))).images.cpu()


def _by_class(images: Tensor, label: Tensor, num_classes: int) -> list[Tensor]:
    return [images[label.cpu() == number] for number in range(num_classes)]


def _logits_of(discriminator: nn.Module, images: StoredImages, together: int) -> Tensor:
    batches = (images.batch(rows) for rows in torch.arange(len(images.label)).split(together))
    return torch.cat([_logits(discriminator, batch.images, condition_of_batch(batch)) for batch in batches])


def _logits(discriminator: nn.Module, images: Tensor, condition: Condition) -> Tensor:
    """One logit an image [N], on the CPU; those of patches are averaged."""
    logits: Tensor = discriminator(images, condition).logits
    return logits.float().reshape(len(images), -1).mean(dim=1).cpu()


def _smaller(images: Tensor, side: int) -> Tensor:
    sides = [min(size, side) for size in images.shape[2:]]
    pool = {2: nn.AdaptiveAvgPool2d, 3: nn.AdaptiveAvgPool3d}[len(sides)]
    smaller: Tensor = pool(tuple(sides))(images)
    return smaller


def _similarity(images: Tensor, seed: int) -> float:
    """Mean MS-SSIM of pairs, at no more than 32 pixels (2D) or 16 voxels (3D) a side."""
    return pairwise_ms_ssim(_smaller(images, _SIMILARITY_SIDES[images.ndim - 2]), _PAIRS, derive_seed(seed, "pairs"))


def _worst(of: Callable[[Iterable[float]], float], values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(of(known)) if known else None

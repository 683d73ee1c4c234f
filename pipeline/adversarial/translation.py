"""Turns of image-to-image GANs, with their terms: cycles between two domains, and images drawn on masks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import l1_loss

from pipeline.adversarial.coupling import condition_of_batch
from pipeline.adversarial.turns import Context, NoiseTurn, Turn
from pipeline.data.batches.augmentation import Augmenter
from pipeline.data.batches.draws import Draws
from pipeline.data.batches.streams import Batch
from pipeline.nets.conditions import Condition, Judgement
from pipeline.nets.translators import DomainDiscriminators


class ImageBuffer(nn.Module):
    """Older translations that a discriminator is shown again (Shrivastava et al., CVPR 2017; Zhu et al., ICCV 2017).

    The first `size` images pass through and are kept. After that each image is, with probability ½, exchanged for a
    random one of the kept ones, and else passes through. Images of a batch come one after the other.

    Args:
        size: images to keep; 0 = all pass through.
    """

    images: Tensor
    label: Tensor
    filled: Tensor
    filled_late = ("images",)
    """Buffers without a shape until the first batch; `label` [size] says how many images they will hold."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size
        self.register_buffer("images", torch.empty(0))
        self.register_buffer("label", torch.zeros(size, dtype=torch.int64))
        self.register_buffer("filled", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def exchanged(self, images: Tensor, label: Tensor, draws: Draws) -> tuple[Tensor, Tensor]:
        """Images [B, C, *spatial] to show, with their labels [B]; remembers what shall be kept."""
        if self.size == 0:
            return images, label
        if self.images.numel() == 0:
            self.images = images.new_zeros((self.size, *images.shape[1:]))
        number = torch.arange(len(images), device=images.device)
        position = self.filled + number
        filling = position < self.size
        swapped = (draws.rand((len(images),)) < 0.5) & ~filling
        slot = torch.where(filling, position, draws.randint(self.size, (len(images),)))
        written = torch.where(filling | swapped, number, -1)  # number of the image that goes to `slot`
        earlier = torch.where((slot == slot[:, None]) & (number < number[:, None]), written, -1).amax(dim=1)
        old = torch.where(earlier < 0, slot, self.size + earlier)
        shown = torch.where(swapped, old, self.size + number)
        every = torch.arange(self.size, device=images.device)
        latest = torch.where(slot == every[:, None], written, -1).amax(dim=1)
        kept = torch.where(latest < 0, every, self.size + latest)
        pool, labels = torch.cat([self.images, images]), torch.cat([self.label, label])
        self.images.copy_(pool[kept])
        self.label.copy_(labels[kept])
        self.filled.copy_((self.filled + len(images)).clamp(max=self.size))
        return pool[shown], labels[shown]

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        self.images = torch.empty_like(state_dict[f"{prefix}images"], device=self.filled.device)
        super()._load_from_state_dict(state_dict, prefix, *args)


class TranslationTurn(Turn, ABC):
    """What terms read of translations: `real` images, these `translated`, `cycled` there and back, and the `same` to
    where they are already; tuples of as many tensors [B, C, *spatial] as there are directions.

    Args:
        noise: standard deviation of noise on translations before they are translated back.
    """

    @property
    @abstractmethod
    def real(self) -> tuple[Tensor, ...]: ...

    @property
    @abstractmethod
    def translated(self) -> tuple[Tensor, ...]: ...

    @property
    @abstractmethod
    def cycled(self) -> tuple[Tensor, ...]: ...

    @property
    @abstractmethod
    def same(self) -> tuple[Tensor, ...]: ...

    @property
    @abstractmethod
    def real_logits(self) -> Tensor: ...

    @property
    @abstractmethod
    def fake_logits(self) -> Tensor: ...

    def __init__(
        self, context: Context, batches: Mapping[str, Batch], trains: tuple[str, ...], noise: float = 0.0
    ) -> None:
        super().__init__(context, batches, trains)
        self.noise = noise

    def noisy(self, images: Tensor) -> Tensor:
        return images + self.noise * self.context.draws.randn(tuple(images.shape)) if self.noise else images

    def figures(self) -> dict[str, Tensor]:
        """The discriminator's logits when it moved; the cycle's error, in units of [-1, 1], when a translator did."""
        if "generator" in self.trains:
            return {"cycle_error": cycle_error(self).detach() / len(self.real)}
        real, fake = self.real_logits.detach(), self.fake_logits.detach()
        return {"real_logits": real.mean(), "fake_logits": fake.mean(), "real_sign": real.sign().mean()}


class CycleTurn(TranslationTurn):
    """Unpaired images of domains a and b, their translations, and back (Zhu et al., "CycleGAN", ICCV 2017).

    Row i of domain a is translated to the class of row i of domain b, and the other way round. The discriminators see
    augmented images; when they move, translations have gone through the buffers. Logits are [2 B, patches], domain a
    first, so a mean-reduced term is half the sum over the domains.
    """

    @cached_property
    def conditions(self) -> tuple[Condition, Condition]:
        return condition_of_batch(self.batches["domain_a"]), condition_of_batch(self.batches["domain_b"])

    @property
    def real(self) -> tuple[Tensor, Tensor]:
        return self.batches["domain_a"].images, self.batches["domain_b"].images

    def to_a(self, images: Tensor) -> Tensor:
        return self._translated("to_a", images, self.conditions[0])

    def to_b(self, images: Tensor) -> Tensor:
        return self._translated("to_b", images, self.conditions[1])

    def _translated(self, translator: str, images: Tensor, condition: Condition) -> Tensor:
        with torch.set_grad_enabled("generator" in self.trains), self.context.autocast:
            translated: Tensor = getattr(self.context.nets["generator"], translator)(images, condition)
        return translated.float()

    @cached_property
    def fake(self) -> tuple[Tensor, Tensor]:
        """Images of domain b as ones of domain a, and of a as ones of b."""
        real_a, real_b = self.real
        return self.to_a(real_b), self.to_b(real_a)

    @property
    def translated(self) -> tuple[Tensor, Tensor]:
        """Images of domain a, and of domain b, in the other one."""
        fake_a, fake_b = self.fake
        return fake_b, fake_a

    @cached_property
    def cycled(self) -> tuple[Tensor, Tensor]:
        """Images of domain a and of domain b, there and back."""
        fake_a, fake_b = (self.noisy(images) for images in self.fake)
        return self.to_a(fake_b), self.to_b(fake_a)

    @cached_property
    def same(self) -> tuple[Tensor, Tensor]:
        """Images of each domain, translated to where they are already."""
        real_a, real_b = self.real
        return self.to_a(real_a), self.to_b(real_b)

    def _judged(self, images: tuple[Tensor, Tensor], conditions: tuple[Condition, Condition]) -> Tensor:
        judges = self.context.nets["discriminator"]
        assert isinstance(judges, DomainDiscriminators)
        seen_a, seen_b = self.augmented(torch.cat(images)).chunk(2)
        with self.context.autocast:
            found: list[Judgement] = [judges.of_a(seen_a, conditions[0]), judges.of_b(seen_b, conditions[1])]
        return torch.cat([judgement.logits.float() for judgement in found])

    @cached_property
    def real_logits(self) -> Tensor:
        with torch.set_grad_enabled("discriminator" in self.trains):
            return self._judged(self.real, self.conditions)

    @cached_property
    def fake_logits(self) -> Tensor:
        if "generator" in self.trains:
            return self._judged(self.fake, self.conditions)
        shown, asked = [], []
        for name, images, condition in zip(("buffer_a", "buffer_b"), self.fake, self.conditions, strict=True):
            buffer = self.context.states[name]
            assert isinstance(buffer, ImageBuffer)
            old, label = buffer.exchanged(images, condition.required_label(), self.context.draws)
            shown.append(old)
            asked.append(Condition(label=label))
        return self._judged((shown[0], shown[1]), (asked[0], asked[1]))


def cycle_error(turn: TranslationTurn) -> Tensor:
    """mean |to_a(to_b(a)) - a| + mean |to_b(to_a(b)) - b| (Zhu et al. 2017, equation 2)."""
    return _distances(turn.cycled, turn.real)


def identity_error(turn: TranslationTurn) -> Tensor:
    """mean |to_a(a) - a| + mean |to_b(b) - b| (Zhu et al. 2017, section 5.2)."""
    return _distances(turn.same, turn.real)


def _distances(images: tuple[Tensor, ...], others: tuple[Tensor, ...]) -> Tensor:
    return torch.stack([l1_loss(one, other) for one, other in zip(images, others, strict=True)]).sum()


class MaskTurn(NoiseTurn):
    """Images drawn on the batch's masks; real image, fake and mask of a row are augmented on one draw."""

    @cached_property
    def seen(self) -> tuple[Tensor, Tensor, Condition]:
        """The batch's images, the fakes, and the condition with its mask, as the discriminator sees them."""
        pair = [self.batch.images.float(), self.fake]
        images, mask = augmented_alike(
            self.context.augment, torch.cat(pair, dim=1), self.condition.required_mask(), self.context.draws
        )
        real, fake = images.chunk(2, dim=1)
        return real, fake, replace(self.condition, mask=mask)

    @property
    def real_seen(self) -> Tensor:
        return self.seen[0]

    @property
    def fake_seen(self) -> Tensor:
        return self.seen[1]

    @cached_property
    def real_judgement(self) -> Judgement:
        with torch.set_grad_enabled("discriminator" in self.trains):
            return self.judge(self.real_seen, self.seen[2])

    @cached_property
    def fake_judgement(self) -> Judgement:
        return self.judge(self.fake_seen, self.seen[2])


_STILL = {"flip": (), "shift": 0.0, "rotate_degrees": 0.0, "scale": 0.0}
_PLAIN = {"brightness": 0.0, "contrast": 0.0, "gamma": 0.0, "noise": 0.0, "cutout": 0.0}


def augmented_alike(augment: Augmenter, images: Tensor, mask: Tensor, draws: Draws) -> tuple[Tensor, Tensor]:
    """Geometry moves images and mask alike; intensities and the cutout change the images only.

    Images of one row that lie behind each other in the channels get the same of both. (Were the mask's intensity to
    change too, the discriminator could read from it how the image's was changed, and undo it.)

    Args:
        images: [B, C, *spatial] in [-1, 1], float32.
        mask: [B, 1, *spatial] of 0 and 1.

    Returns:
        Images [B, C, *spatial] and mask [B, 1, *spatial] in [0, 1].
    """
    geometry = Augmenter(augment.policy.model_copy(update=_PLAIN), augment.probability)
    intensity = Augmenter(augment.policy.model_copy(update=_STILL), augment.probability)
    moved = geometry(torch.cat([images, mask], dim=1), draws)
    return intensity(moved[:, :-1], draws), moved[:, -1:]


def pixel_error(turn: NoiseTurn) -> Tensor:
    """mean |fake - real| of the images that share a mask (Isola et al., "pix2pix", CVPR 2017, equation 3)."""
    return l1_loss(turn.fake, turn.batch.images)


def feature_matching(turn: NoiseTurn) -> Tensor:
    """Mean over the discriminator's layers of mean |features(fake) - features(real)| (Wang et al., CVPR 2018)."""
    pairs = zip(turn.fake_judgement.features, turn.real_judgement.features, strict=True)
    return torch.stack([l1_loss(fake, real.detach()) for fake, real in pairs]).mean()

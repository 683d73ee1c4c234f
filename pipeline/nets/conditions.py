"""What passes between networks: the condition that goes in, the judgement that comes out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


@dataclass(frozen=True)
class Condition:
    """What an image shall be, or is.

    Attributes:
        label: [B] int64.
        mask: [B, 1, *spatial] of 0 and 1.
        attributes: [B, A], standardised.
        source: [B, C, *spatial] in [-1, 1], the image that a translator starts from.
    """

    label: Tensor | None = None
    mask: Tensor | None = None
    attributes: Tensor | None = None
    source: Tensor | None = None

    def required_label(self) -> Tensor:
        return _required(self.label, "a label [B]")

    def required_mask(self) -> Tensor:
        return _required(self.mask, "a mask [B, 1, *spatial]")

    def required_source(self) -> Tensor:
        return _required(self.source, "a source image [B, C, *spatial]")


def _required(part: Tensor | None, what: str) -> Tensor:
    if part is None:
        raise ValueError(f"this network's Condition needs {what}")
    return part


@dataclass(frozen=True)
class Judgement:
    """A discriminator's output.

    Attributes:
        logits: [B], or [B, patches] of a discriminator that judges patches; large for real, never squashed.
        class_logits: [B, num_classes], from an auxiliary classifier.
        features: inner activations, each [B, ...], for feature matching.
    """

    logits: Tensor
    class_logits: Tensor | None = None
    features: tuple[Tensor, ...] = ()

    def float(self) -> Judgement:
        """The same in float32."""
        return Judgement(
            self.logits.float(),
            None if self.class_logits is None else self.class_logits.float(),
            tuple(feature.float() for feature in self.features),
        )


@runtime_checkable
class Generator(Protocol):
    """(z [B, latent_dim], condition) -> images [B, C, *spatial] in [-1, 1]."""

    latent_dim: int

    def __call__(self, z: Tensor, condition: Condition) -> Tensor: ...


@runtime_checkable
class TruncatedGenerator(Generator, Protocol):
    """A generator with a truncation of its own; for others z is scaled by psi."""

    def truncated(self, z: Tensor, condition: Condition, psi: float) -> Tensor:
        """Images nearer to the mean and less different from each other, the more so the smaller psi (0 to 1) is."""
        ...


@runtime_checkable
class Discriminator(Protocol):
    """(images [B, C, *spatial], condition) -> Judgement."""

    def __call__(self, images: Tensor, condition: Condition) -> Judgement: ...


def as_generator(net: object) -> Generator:
    """`net`, of which a recipe says that it is a generator."""
    assert isinstance(net, Generator), "a generator needs a latent_dim and takes (z, condition)"
    return net


def as_discriminator(net: object) -> Discriminator:
    """`net`, of which a recipe says that it is a discriminator."""
    assert isinstance(net, Discriminator), "a discriminator takes (images, condition)"
    return net


def condition_of(label: Tensor) -> Condition:
    return Condition(label=label.to(torch.int64))


class ConditionCode(nn.Module):
    """Class and attributes as one vector: the class's embedding beside the attributes, [B, size].

    Args:
        num_classes: 0 = the class is not used.
    """

    def __init__(self, num_classes: int, embedding_dim: int, num_attributes: int = 0) -> None:
        super().__init__()
        self.embedding = nn.Embedding(num_classes, embedding_dim) if num_classes else None
        self.size = embedding_dim * bool(num_classes) + num_attributes
        self.num_attributes = num_attributes

    def forward(self, condition: Condition) -> Tensor:
        parts = [] if self.embedding is None else [self.embedding(condition.required_label())]
        if self.num_attributes:
            parts.append(_required(condition.attributes, f"{self.num_attributes} attributes [B, A]"))
        return torch.cat(parts, dim=1)


def recompute(wanted: bool, block: Callable[..., Any], *inputs: Any) -> Any:
    """`block(*inputs)`; if `wanted`, its activations are not kept but computed again on the way back."""
    if not wanted or not torch.is_grad_enabled():
        return block(*inputs)
    return checkpoint(block, *inputs, use_reentrant=False, preserve_rng_state=False)

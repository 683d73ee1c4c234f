"""Image-to-image nets: the residual translator (CycleGAN), the U-Net (pix2pix), and discriminators of patches."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import leaky_relu, one_hot
from torch.nn.utils.parametrizations import spectral_norm

from pipeline.nets.conditions import Condition, ConditionCode, Judgement, recompute
from pipeline.nets.coupled import DomainOf, by_domain, rows_of
from pipeline.nets.discriminators import activated
from pipeline.nets.generators import NoiseGenerator, centre_crop, doubled
from pipeline.nets.layers import CONV, INSTANCE_NORM
from pipeline.nets.sizes import ImageShape, doubling_widths

_SLOPE = 0.2
_BLOCKS = 4
_LARGE_SIDE = 64


class NormedConv(nn.Module):
    """A 3 x 3 convolution and an instance norm whose scale and shift are a linear function of the condition's code.

    [B, before, *spatial], code [B, code_dim] -> [B, after, *spatial / stride, rounded up].
    """

    def __init__(self, dims: int, before: int, after: int, code_dim: int, stride: int = 1) -> None:
        super().__init__()
        self.conv = CONV[dims](before, after, 3, stride=stride, padding=1)
        self.norm = INSTANCE_NORM[dims](after, affine=False)
        self.affine = nn.Linear(code_dim, 2 * after)
        nn.init.normal_(self.affine.weight, std=0.02)
        nn.init.zeros_(self.affine.bias)

    def forward(self, features: Tensor, code: Tensor) -> Tensor:
        normalised: Tensor = self.norm(self.conv(features))
        scale, shift = as_map(self.affine(code), features).chunk(2, dim=1)
        return torch.addcmul(shift, normalised, 1 + scale)


def as_map(code: Tensor, images: Tensor) -> Tensor:
    """[B, size] as [B, size, 1, ...], to be added to `images`."""
    return code.view(*code.shape, *[1] * (images.ndim - 2))


class ResidualTranslator(nn.Module):
    """(source [B, C, *spatial] in [-1, 1], condition) -> the same as an image of the condition's class.

    The translator of Zhu et al. 2017 (Johnson et al. 2016): halvings, residual blocks, doublings, with instance norms
    that know the class. It differs from theirs in three ways that small CT images ask for: images below 64 voxels are
    halved once, not twice; doublings are nearest neighbours, which leave no lattice; and the last layer sees the first
    one's features too, since instance norm forgets how bright the source was.

    Args:
        width: channels at full size; they double with each halving.
        told: the class lies beside the image too, as a map a class (Choi et al. 2018).
    """

    def __init__(self, shape: ImageShape, embedding_dim: int, width: int, *, told: bool = False) -> None:
        super().__init__()
        self.maps = shape.num_classes if told else 0
        dims, channels = shape.spatial_dims, shape.channels
        halvings = 2 if min(shape.spatial_size) >= _LARGE_SIDE else 1
        kernel = 7 if dims == 2 else 3  # 7 x 7 x 7 would cost more than all else
        conv = CONV[dims]
        self.checkpointing = False
        self.code = ConditionCode(shape.num_classes, embedding_dim)
        widths = doubling_widths(width, halvings + 1)
        steps, size = list(pairwise(widths)), self.code.size
        self.first = conv(channels + self.maps, width, kernel, padding=kernel // 2)
        self.down = nn.ModuleList([NormedConv(dims, before, after, size, stride=2) for before, after in steps])
        self.blocks = nn.ModuleList([ResidualBlock(dims, widths[-1], size) for _ in range(_BLOCKS)])
        self.up = nn.ModuleList([NormedConv(dims, after, before, size) for before, after in reversed(steps)])
        self.last = conv(2 * width, channels, kernel, padding=kernel // 2)

    def forward(self, source: Tensor, condition: Condition) -> Tensor:
        code = self.code(condition)
        first = torch.relu(self.first(self._with_maps(source, condition)))
        features, sizes = first, []
        for layer in self.down:
            sizes.append(features.shape[2:])
            features = recompute(self.checkpointing, _activated, layer, features, code)
        for block in self.blocks:
            features = recompute(self.checkpointing, block, features, code)
        for layer, size in zip(self.up, reversed(sizes), strict=True):
            features = recompute(self.checkpointing, _doubled, layer, features, size, code)
        return torch.tanh(self.last(torch.cat([features, first], dim=1)))

    def _with_maps(self, source: Tensor, condition: Condition) -> Tensor:
        if not self.maps:
            return source
        maps = as_map(one_hot(condition.required_label(), self.maps).to(source.dtype), source)
        return torch.cat([source, maps.expand(-1, -1, *source.shape[2:])], dim=1)


class ResidualBlock(nn.Module):
    """Two normed convolutions around which the input is carried."""

    def __init__(self, dims: int, features: int, code_dim: int) -> None:
        super().__init__()
        self.first = NormedConv(dims, features, features, code_dim)
        self.second = NormedConv(dims, features, features, code_dim)

    def forward(self, features: Tensor, code: Tensor) -> Tensor:
        change: Tensor = self.second(torch.relu(self.first(features, code)), code)
        return features + change


def _activated(layer: nn.Module, features: Tensor, code: Tensor) -> Tensor:
    return torch.relu(layer(features, code))


def _doubled(layer: nn.Module, features: Tensor, size: Sequence[int], code: Tensor) -> Tensor:
    return torch.relu(layer(centre_crop(doubled(features), size), code))


class DomainTranslators(nn.Module):
    """Both translators of a CycleGAN: `to_b` makes images of domain b, `to_a` of domain a.

    Called as a generator it translates `condition.source` to the class of `condition.label`; z is not used: a source
    has one translation.

    Args:
        latent_dim: size of the z that callers give; nothing depends on it.
    """

    def __init__(self, shape: ImageShape, latent_dim: int, embedding_dim: int, width: int) -> None:
        super().__init__()
        self.to_a, self.to_b = (ResidualTranslator(shape, embedding_dim, width) for _ in range(2))
        self.latent_dim, self.domain_of = latent_dim, DomainOf(shape.positive)

    def forward(self, z: Tensor, condition: Condition) -> Tensor:
        source = condition.required_source()

        def translated(translator: nn.Module) -> Callable[[Tensor], Tensor]:
            return lambda rows: translator(source[rows], rows_of(condition, rows))

        return by_domain(self.domain_of(condition.required_label()), translated(self.to_a), translated(self.to_b))


class StarTranslator(nn.Module):
    """One translator to all classes; called as a generator it translates `condition.source`, and z is not used.

    Args:
        latent_dim: size of the z that callers give; nothing depends on it.
        step: classes follow each other in groups of so many (the classes of a site), and an image goes to its own place
            in another group; 1 = to any other class.
    """

    def __init__(self, shape: ImageShape, latent_dim: int, embedding_dim: int, width: int, step: int = 1) -> None:
        super().__init__()
        self.translator = ResidualTranslator(shape, embedding_dim, width, told=True)
        self.latent_dim, self.num_classes, self.step = latent_dim, shape.num_classes, step

    @property
    def domains(self) -> int:
        """How many groups there are."""
        return self.num_classes // self.step

    def elsewhere(self, label: Tensor, turns: Tensor) -> Tensor:
        """Classes [B], `turns` [B] groups after those of `label` [B]."""
        return (label + self.step * turns) % self.num_classes

    def forward(self, z: Tensor, condition: Condition) -> Tensor:
        translated: Tensor = self.translator(condition.required_source(), condition)
        return translated


class UNetGenerator(NoiseGenerator):
    """(z, condition) -> image [B, C, *spatial] in [-1, 1] drawn on the condition's mask, in 2D or 3D.

    The U-Net of Isola et al., "Image-to-Image Translation with Conditional Adversarial Networks", CVPR 2017. Where they
    keep dropout as noise, z is added to the smallest grid. Class and attributes enter as maps beside the mask and
    through every norm.

    Args:
        width: channels at full size; they double with each halving.
    """

    def __init__(self, shape: ImageShape, latent_dim: int, embedding_dim: int, width: int) -> None:
        super().__init__(shape, latent_dim, embedding_dim)
        dims, conv = shape.spatial_dims, CONV[shape.spatial_dims]
        widths = doubling_widths(width, shape.levels + 1)
        steps, size = list(pairwise(widths)), self.code.size
        self.first, self.label = conv(1, width, 3, padding=1), nn.Linear(size, width)
        self.down = nn.ModuleList([NormedConv(dims, before, after, size, stride=2) for before, after in steps])
        self.noise = nn.Linear(latent_dim, widths[-1] * math.prod(self.grid))
        self.up = nn.ModuleList([NormedConv(dims, after + before, before, size) for before, after in reversed(steps)])
        self.last = conv(width, shape.channels, 3, padding=1)

    def forward(self, z: Tensor, condition: Condition) -> Tensor:
        mask, code = condition.required_mask(), self.code(condition)
        features = self.first(2 * mask - 1) + as_map(self.label(code), mask)
        skips = []
        for layer in self.down:
            skips.append(features)
            features = recompute(self.checkpointing, layer, leaky_relu(features, _SLOPE), code)
        features = features + self.noise(z).view_as(features)
        for layer, skip in zip(self.up, reversed(skips), strict=True):
            features = recompute(self.checkpointing, _joined, layer, features, skip, code)
        return self.finished(self.last(torch.relu(features)))


def _joined(layer: nn.Module, features: Tensor, skip: Tensor, code: Tensor) -> Tensor:
    larger = centre_crop(doubled(features), skip.shape[2:])
    return layer(torch.relu(torch.cat([larger, skip], dim=1)), code)


class PatchDiscriminator(nn.Module):
    """One logit a patch [B, patches], from spectrally normalised convolutions (Isola et al. 2017), in 2D or 3D.

    Each patch's features meet a vector that depends on class and attributes: projection (Miyato & Koyama 2018) on
    patches. Spectral norm stands where Isola et al. have batch norm and Zhu et al. instance norm, which both hide from
    the discriminator how bright an image is. The features of all layers are part of the judgement.

    Args:
        width: channels of the first layer; they double with each halving of the grid.
        masked: the condition's mask is seen beside the image.
        halvings: of the grid, one less than `shape.levels`, 1 to 3, without it. After n of them a patch is 5 * 2^n - 2
            voxels wide. The last grid keeps two voxels a side at least.
    """

    def __init__(self, shape: ImageShape, width: int, *, masked: bool = False, halvings: int | None = None) -> None:
        super().__init__()
        conv = CONV[shape.spatial_dims]
        self.masked, self.checkpointing = masked, False
        chosen = min(max(shape.levels - 1, 1), 3) if halvings is None else halvings
        widths = doubling_widths(width, min(chosen, int(math.log2(min(shape.spatial_size))) - 1))
        layers = [
            conv(before, after, 4, stride=2, padding=1)
            for before, after in zip([shape.channels + masked, *widths], widths, strict=False)
        ]
        layers.append(conv(widths[-1], widths[-1], 3, padding=1))
        self.layers = nn.ModuleList([spectral_norm(layer) for layer in layers])
        self.score = nn.Linear(widths[-1], 1)
        self.embedding = nn.Embedding(shape.num_classes, widths[-1])
        nn.init.normal_(self.embedding.weight, std=0.02)
        attributes = shape.num_attributes
        self.attributes = nn.Linear(attributes, widths[-1]) if attributes else None

    def forward(self, images: Tensor, condition: Condition) -> Judgement:
        seen = torch.cat([images, 2 * condition.required_mask() - 1], dim=1) if self.masked else images
        features = []
        for layer in self.layers:
            seen = recompute(self.checkpointing, activated, layer, seen, _SLOPE)
            features.append(seen)
        direction = self.embedding(condition.required_label())
        if self.attributes is not None:
            direction = direction + self.attributes(condition.attributes)
        patches = seen.flatten(2).transpose(1, 2)
        logits = self.score(patches).squeeze(2) + (patches * direction[:, None]).sum(dim=2)
        return Judgement(logits=logits, features=tuple(features))


class StarDiscriminator(PatchDiscriminator):
    """A patch discriminator that also says of which class an image is, from the means of its last features."""

    def __init__(self, shape: ImageShape, width: int, halvings: int | None = None) -> None:
        super().__init__(shape, width, halvings=halvings)
        self.classify = nn.Linear(self.score.in_features, shape.num_classes)

    def forward(self, images: Tensor, condition: Condition) -> Judgement:
        found = super().forward(images, condition)
        return replace(found, class_logits=self.classify(found.features[-1].flatten(2).mean(dim=2)))


class DomainDiscriminators(nn.Module):
    """A discriminator a domain: `of_a`, `of_b`. Called as one, it judges each image by that of its class's domain."""

    def __init__(self, shape: ImageShape, width: int, halvings: int | None = None) -> None:
        super().__init__()
        self.of_a, self.of_b = (PatchDiscriminator(shape, width, halvings=halvings) for _ in range(2))
        self.domain_of = DomainOf(shape.positive)

    def forward(self, images: Tensor, condition: Condition) -> Judgement:
        def logits(judge: nn.Module) -> Callable[[Tensor], Tensor]:
            return lambda rows: judge(images[rows], rows_of(condition, rows)).logits

        return Judgement(by_domain(self.domain_of(condition.required_label()), logits(self.of_a), logits(self.of_b)))

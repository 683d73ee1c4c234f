"""Style-based generator and residual discriminator, in 2D and 3D.

Karras et al., "Analyzing and Improving the Image Quality of StyleGAN", CVPR 2020; the class enters as in Karras et al.,
"Training Generative Adversarial Networks with Limited Data", NeurIPS 2020.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, leaky_relu, one_hot

from pipeline.nets.conditions import Condition, Judgement, recompute
from pipeline.nets.equalised import EqualConv, EqualLinear, MinibatchDeviation, PixelNorm
from pipeline.nets.generators import centre_crop
from pipeline.nets.sizes import ImageShape, doubling_widths

_SLOPE = 0.2
_MAPPING_RATE = 0.01
_MEAN_OF = 512


class Normal(Protocol):
    """Where noise comes from: standard normal numbers of a shape whose first axis is the batch."""

    def randn(self, shape: Sequence[int]) -> Tensor: ...


def resized(features: Tensor, factor: float) -> Tensor:
    """Every side times `factor`, 2 or 0.5 (rounded down), by linear interpolation, which leaves no lattice."""
    mode = "bilinear" if features.ndim == 4 else "trilinear"
    return interpolate(features, scale_factor=factor, mode=mode, align_corners=False)


class EqualCode(nn.Module):
    """Class and attributes through one equalised linear layer: [B, size], of unit variance at first."""

    def __init__(self, shape: ImageShape, size: int) -> None:
        super().__init__()
        self.num_classes, self.num_attributes = shape.num_classes, shape.num_attributes
        inputs = self.num_classes + self.num_attributes
        self.linear = EqualLinear(inputs, size, gain=math.sqrt(inputs / (1 + self.num_attributes)))

    def forward(self, condition: Condition) -> Tensor:
        facts = one_hot(condition.required_label(), self.num_classes).float()
        if self.num_attributes:
            if condition.attributes is None:
                raise ValueError(f"this network's Condition needs {self.num_attributes} attributes [B, A]")
            facts = torch.cat([facts, condition.attributes], dim=1)
        coded: Tensor = self.linear(facts)
        return coded


class Mapping(nn.Module):
    """z [B, latent_dim], normalised, and the condition's code -> style w [B, latent_dim]."""

    def __init__(self, shape: ImageShape, latent_dim: int, embedding_dim: int, num_layers: int) -> None:
        super().__init__()
        self.code = EqualCode(shape, embedding_dim)
        self.norm = PixelNorm()
        inputs = [latent_dim + embedding_dim, *[latent_dim] * (num_layers - 1)]
        self.layers = nn.ModuleList(
            [EqualLinear(size, latent_dim, gain=math.sqrt(2), lr_multiplier=_MAPPING_RATE) for size in inputs]
        )

    def forward(self, z: Tensor, condition: Condition) -> Tensor:
        w = torch.cat([self.norm(z), self.code(condition)], dim=1)
        for layer in self.layers:
            w = leaky_relu(layer(w), _SLOPE)
        return w


class ModulatedConv(nn.Module):
    """A convolution whose weights the style scales, image by image, channel by channel.

    Scaling the inputs by s and the outputs by 1 / √Σ (s·weight)² equals modulating and demodulating each image's own
    weights (the paper's equations 1 and 3), with one convolution for the whole batch in place of a group an image.

    Args:
        kernel: its side, odd.
        demodulate: whether outputs are scaled back, to a variance of gain².
    """

    def __init__(
        self,
        dims: int,
        inputs: int,
        outputs: int,
        kernel: int,
        style_dim: int,
        *,
        demodulate: bool = True,
        gain: float = math.sqrt(2),
    ) -> None:
        super().__init__()
        self.style = EqualLinear(style_dim, inputs, bias=1.0)
        self.weight = nn.Parameter(torch.randn(outputs, inputs, *[kernel] * dims))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.scale = 1 / math.sqrt(inputs * kernel**dims)
        self.demodulate, self.gain = demodulate, gain

    def forward(self, features: Tensor, w: Tensor) -> Tensor:
        """[B, inputs, *spatial], w [B, style_dim] -> [B, outputs, *spatial]."""
        style: Tensor = self.style(w).float()
        weight = self.weight * self.scale
        convolve = (torch.conv1d, torch.conv2d, torch.conv3d)[features.ndim - 3]
        features = convolve(features * _per_channel(style, features), weight, padding=weight.shape[-1] // 2)
        bias = _per_channel(self.bias[None], features)
        if not self.demodulate:
            return features + bias
        energy = weight.square().flatten(2).sum(dim=2)
        factor = self.gain * torch.rsqrt((style.square()[:, None] * energy).sum(dim=2) + 1e-8)
        return torch.addcmul(bias, features, _per_channel(factor, features))


def _per_channel(values: Tensor, features: Tensor) -> Tensor:
    """[B, C] as broadcast over features [B, C, *spatial], in their precision."""
    return values.to(features.dtype).view(*values.shape, *[1] * (features.ndim - 2))


class StyledConv(nn.Module):
    """Modulated 3-convolution, doubling of the grid where `up`, noise of a learned strength, leaky rectifier."""

    def __init__(self, dims: int, inputs: int, outputs: int, style_dim: int, *, up: bool) -> None:
        super().__init__()
        self.conv = ModulatedConv(dims, inputs, outputs, 3, style_dim)
        self.strength = nn.Parameter(torch.zeros(()))
        self.up = up

    def forward(self, features: Tensor, w: Tensor, noise: Tensor) -> Tensor:
        features = self.conv(features, w)
        features = resized(features, 2) if self.up else features
        return leaky_relu(features + (self.strength * noise).to(features.dtype), _SLOPE)


class StyleLevel(nn.Module):
    """One grid: one or two styled convolutions, then what they add to the image. The first grid is not doubled."""

    def __init__(self, dims: int, inputs: int, outputs: int, channels: int, style_dim: int, *, first: bool) -> None:
        super().__init__()
        convs = [StyledConv(dims, inputs, outputs, style_dim, up=not first)]
        if not first:
            convs.append(StyledConv(dims, outputs, outputs, style_dim, up=False))
        self.convs = nn.ModuleList(convs)
        self.to_image = ModulatedConv(dims, outputs, channels, 1, style_dim, demodulate=False)

    def forward(self, features: Tensor, image: Tensor | None, w: Tensor, *noises: Tensor) -> tuple[Tensor, Tensor]:
        """w [B, convolutions + 1, style_dim], one noise a convolution."""
        for number, (conv, noise) in enumerate(zip(self.convs, noises, strict=True)):
            features = conv(features, w[:, number], noise)
        own: Tensor = self.to_image(features, w[:, len(noises)])
        return features, own if image is None else own + resized(image, 2)


class StyleGenerator(nn.Module):
    """Mapping and synthesis: a learned constant, modulated level by level, each level adding to the image.

    Training draws new noise for every image from `draws`; else the noise is that of the buffers, and the image a
    function of z and the condition. Sides that are not a power of two times the first grid are cropped at the centre.

    Args:
        width: channels at full image size; they double with each halving of the grid, but for the last.
        num_layers: of the mapping.

    Attributes:
        num_styles: how many styles `synthesise` reads; a level's image and the next one's first convolution share one.
        draws: random numbers for the training's noise; None = the buffers'.
    """

    def __init__(self, shape: ImageShape, latent_dim: int, embedding_dim: int, width: int, *, num_layers: int) -> None:
        super().__init__()
        dims, levels, grid = shape.spatial_dims, shape.levels, shape.grid
        self.latent_dim, self.spatial_size = latent_dim, shape.spatial_size
        self.num_styles = 2 * levels + 2
        self.checkpointing = False
        self.draws: Normal | None = None
        widths = [width * 2 ** min(levels - level, levels - 1) for level in range(levels + 1)]
        self.mapping = Mapping(shape, latent_dim, embedding_dim, num_layers)
        self.start = nn.Parameter(torch.randn(widths[0], *grid))
        self.levels = nn.ModuleList(
            [
                StyleLevel(dims, widths[max(level - 1, 0)], widths[level], shape.channels, latent_dim, first=level == 0)
                for level in range(levels + 1)
            ]
        )
        self.register_buffer("latents", torch.randn(_MEAN_OF, latent_dim))
        for number, level in enumerate((number + 1) // 2 for number in range(2 * levels + 1)):
            self.register_buffer(f"noise_{number}", torch.randn(1, 1, *[side * 2**level for side in grid]))

    def forward(self, z: Tensor, condition: Condition) -> Tensor:
        return self.synthesise(self.map(z, condition))

    def map(self, z: Tensor, condition: Condition) -> Tensor:
        """Style w [B, latent_dim] of z [B, latent_dim]."""
        w: Tensor = self.mapping(z, condition)
        return w

    def synthesise(self, w: Tensor) -> Tensor:
        """Images of one style [B, latent_dim], or of one a layer [B, num_styles, latent_dim]."""
        if w.ndim == 2:
            w = w[:, None].expand(-1, self.num_styles, -1)
        features, image = self.start.repeat(len(w), *[1] * self.start.ndim), None
        first = 0
        for level in self.levels:
            last = first + len(level.convs)  # type: ignore[arg-type]
            noises = [self._noise(number, len(w)) for number in range(first, last)]
            styles = w[:, first : last + 1]
            features, image = recompute(self.checkpointing, level, features, image, styles, *noises)
            first = last
        assert image is not None
        return torch.tanh(centre_crop(image, self.spatial_size))

    def mean_style(self, condition: Condition) -> Tensor:
        """The mean of w [B, latent_dim] for each condition, over a fixed set of z."""
        label, attributes = condition.required_label(), condition.attributes
        repeated = Condition(
            label=label.repeat_interleave(_MEAN_OF),
            attributes=None if attributes is None else attributes.repeat_interleave(_MEAN_OF, dim=0),
        )
        w = self.map(self.get_buffer("latents").repeat(len(label), 1), repeated)
        return w.unflatten(0, (len(label), _MEAN_OF)).mean(dim=1)

    def truncated(self, z: Tensor, condition: Condition, psi: float) -> Tensor:
        """Images whose style is drawn towards the mean of their own condition; psi 1 = not at all, 0 = altogether."""
        return self.synthesise(torch.lerp(self.mean_style(condition), self.map(z, condition), psi))

    def _noise(self, number: int, batch: int) -> Tensor:
        """Drawn here, outside what is computed again."""
        fixed = self.get_buffer(f"noise_{number}")
        if not self.training or self.draws is None:
            return fixed
        return self.draws.randn((batch, *fixed.shape[1:]))


class ResidualBlock(nn.Module):
    """Two convolutions with a halving between them, beside a halved linear path: [B, C, *spatial] -> half the grid."""

    def __init__(self, dims: int, inputs: int, outputs: int) -> None:
        super().__init__()
        self.first = EqualConv(dims, inputs, inputs, 3)
        self.second = EqualConv(dims, inputs, outputs, 3, gain=1.0)  # with the skip: a sum of unit variance
        self.skip = EqualConv(dims, inputs, outputs, 1, gain=math.sqrt(0.5))

    def forward(self, features: Tensor) -> Tensor:
        inner = resized(leaky_relu(self.first(features), _SLOPE), 0.5)
        branch = leaky_relu(self.second(inner), _SLOPE)
        skipped: Tensor = self.skip(resized(features, 0.5))
        return branch + skipped


class StyleDiscriminator(nn.Module):
    """Residual discriminator with minibatch deviation and a projection of class and attributes.

    Args:
        width: channels at full image size; they double with each halving of the grid.
    """

    def __init__(self, shape: ImageShape, width: int) -> None:
        super().__init__()
        dims, widths = shape.spatial_dims, doubling_widths(width, shape.levels + 1)
        self.checkpointing = False
        self.from_image = EqualConv(dims, shape.channels, width, 1)
        self.blocks = nn.ModuleList([ResidualBlock(dims, before, after) for before, after in pairwise(widths)])
        self.deviation = MinibatchDeviation()
        self.last = EqualConv(dims, widths[-1] + 1, widths[-1], 3)
        self.linear = EqualLinear(widths[-1] * math.prod(shape.last_grid), widths[-1], gain=math.sqrt(2))
        self.score = EqualLinear(widths[-1], 1)
        self.code = EqualCode(shape, widths[-1])

    def forward(self, images: Tensor, condition: Condition) -> Judgement:
        features = leaky_relu(self.from_image(images), _SLOPE)
        for block in self.blocks:
            features = recompute(self.checkpointing, block, features)
        features = leaky_relu(self.last(self.deviation(features)), _SLOPE)
        pooled = leaky_relu(self.linear(features.flatten(1)), _SLOPE)
        projected = (pooled * self.code(condition)).sum(dim=1) / math.sqrt(pooled.shape[1])
        return Judgement(logits=self.score(pooled).squeeze(1) + projected)

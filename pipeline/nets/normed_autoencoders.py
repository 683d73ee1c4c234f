"""Autoencoders with batch norms as GANomaly has them: DCGAN's discriminator, its generator, and it again; 2D and 3D."""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn

from pipeline.nets.layers import BATCH_NORM, CONV, CONV_TRANSPOSE
from pipeline.nets.sizes import ImageShape, doubling_widths

_SLOPE = 0.2


class NormedEncoder(nn.Module):
    """Strided 4-voxel convolutions with batch norms, then one over what is left: [B, C, *spatial] -> [B, numbers].

    DCGAN's discriminator (Radford et al., ICLR 2016). Images are padded at the end to what the halvings divide.
    """

    def __init__(self, shape: ImageShape, width: int, numbers: int) -> None:
        super().__init__()
        conv, norm = CONV[shape.spatial_dims], BATCH_NORM[shape.spatial_dims]
        widths = doubling_widths(width, shape.levels)
        self.padding = [
            number
            for side, grid in zip(reversed(shape.spatial_size), reversed(shape.grid), strict=True)
            for number in (0, grid * 2**shape.levels - side)
        ]
        layers: list[nn.Module] = [
            conv(shape.channels, width, 4, stride=2, padding=1, bias=False),
            nn.LeakyReLU(_SLOPE),
        ]
        for before, after in pairwise(widths):
            layers += [conv(before, after, 4, stride=2, padding=1, bias=False), norm(after), nn.LeakyReLU(_SLOPE)]
        self.layers = nn.Sequential(*layers)
        self.last = conv(widths[-1], numbers, shape.grid, bias=False)

    def features(self, images: Tensor) -> Tensor:
        """Of the last layer but one, [B, D, *grid]."""
        found: Tensor = self.layers(nn.functional.pad(images, self.padding, mode="replicate"))
        return found

    def forward(self, images: Tensor) -> Tensor:
        numbers: Tensor = self.last(self.features(images)).flatten(1)
        return numbers


class NormedDecoder(nn.Module):
    """The way back, DCGAN's generator: [B, numbers] -> images [B, C, *spatial] in [-1, 1]; what is over is cut off."""

    def __init__(self, shape: ImageShape, width: int, numbers: int) -> None:
        super().__init__()
        transpose, norm = CONV_TRANSPOSE[shape.spatial_dims], BATCH_NORM[shape.spatial_dims]
        self.spatial_size = shape.spatial_size
        widths = doubling_widths(width, shape.levels)[::-1]
        layers: list[nn.Module] = [transpose(numbers, widths[0], shape.grid, bias=False), norm(widths[0]), nn.ReLU()]
        for before, after in pairwise(widths):
            layers += [transpose(before, after, 4, stride=2, padding=1, bias=False), norm(after), nn.ReLU()]
        layers += [transpose(widths[-1], shape.channels, 4, stride=2, padding=1, bias=False), nn.Tanh()]
        self.layers = nn.Sequential(*layers)

    def forward(self, numbers: Tensor) -> Tensor:
        images: Tensor = self.layers(numbers.view(*numbers.shape, *[1] * len(self.spatial_size)))
        for axis, side in enumerate(self.spatial_size, start=2):
            images = images.narrow(axis, 0, side)
        return images


class Reencoder(nn.Module):
    """Encoder, decoder and a second encoder: images -> (reconstructions, their codes, the reconstructions' codes)."""

    def __init__(self, shape: ImageShape, width: int, numbers: int) -> None:
        super().__init__()
        self.encoder = NormedEncoder(shape, width, numbers)
        self.decoder = NormedDecoder(shape, width, numbers)
        self.again = NormedEncoder(shape, width, numbers)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        code = self.encoder(images)
        made = self.decoder(code)
        return made, code, self.again(made)

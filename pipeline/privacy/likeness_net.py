"""A small net whose embeddings are as alike as the images are, however these are shifted, turned, mirrored or lit.

After DeepSSIM (Scardace, Puglisi et al., "A Novel Metric for Detecting Memorization in Generative Models for Brain MRI
Synthesis", WACV 2026): the cosine of two embeddings is taught to be the SSIM of the two images, while the net sees each
image transformed. Nothing has to be registered then when copies are searched for.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from pipeline.config.augment import AugmentConfig
from pipeline.core.compute import Hardware
from pipeline.core.seeds import derive_seed
from pipeline.data.batches.augmentation import Augmenter
from pipeline.data.batches.draws import Draws
from pipeline.nets.layers import CONV
from pipeline.privacy.registered import averaged_down, registered_ssim, standardised
from pipeline.supervised.loop import minimise

_WIDTHS, _FEATURES = (32, 64, 128), 64
_STEPS, _BATCH, _PARTNERS = 600, 64, 6
_LR, _WEIGHT_DECAY = 3e-3, 1e-4
_CHANGES = AugmentConfig(brightness=0.2, contrast=0.4, shift=0.125, rotate_degrees=10, scale=0.1, noise=0.2)


class LikenessNet(nn.Module):
    """Images [B, C, *grid], averaged down -> embeddings [B, 64] of length 1.

    Strided convolutions, and a linear layer over their last grid, which is not pooled: where something lies matters.
    """

    def __init__(self, channels: int, grid: tuple[int, ...]) -> None:
        super().__init__()
        conv = CONV[len(grid)]
        layers: list[nn.Module] = []
        for before, after in zip((channels, *_WIDTHS), _WIDTHS, strict=False):
            layers += [conv(before, after, 3, stride=2, padding=1), nn.GroupNorm(8, after), nn.SiLU()]
        self.trunk = nn.Sequential(*layers, nn.Flatten())
        self.head = nn.Linear(self.trunk(torch.zeros(1, channels, *grid)).shape[1], _FEATURES)

    def forward(self, images: Tensor) -> Tensor:
        return nn.functional.normalize(self.head(self.trunk(standardised(images))), dim=1)


def fit_likeness_net(images: Tensor, hardware: Hardware, seed: int) -> LikenessNet:
    """Train on images [N, C, *grid], averaged down, which no synthetic and no unseen image may be among.

    Of a batch, two views of each image are embedded. The cosine of the views of one image shall be 1, that of the views
    of two images their SSIM once these are registered; both count as much (mean squared errors). An image is compared
    with the next few of its batch alone, since a registered SSIM takes longer than the net.

    Raises:
        NonFiniteLoss: the loss became NaN or infinite.
    """
    random = torch.Generator(hardware.device).manual_seed(derive_seed(seed, "likeness"))
    draws, augment = Draws(random), Augmenter(_changes(images.ndim - 2))
    known = images.to(hardware.device)
    size = min(_BATCH, len(known))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "weights"))
        net = LikenessNet(images.shape[1], tuple(images.shape[2:])).to(hardware.device)
    places = torch.arange(size, device=hardware.device)
    one = places.repeat(min(_PARTNERS, size - 1))
    two = (one + 1 + torch.arange(len(one), device=hardware.device) // size) % size

    def loss(_: int) -> Tensor:
        batch = known[torch.randperm(len(known), generator=random, device=hardware.device)[:size]]
        first, second = (net(augment(batch, draws)) for _ in range(2))
        cosines = first @ second.T
        apart = cosines[one, two] - registered_ssim(batch, one, two)
        return (cosines.diagonal() - 1).square().mean() + apart.square().mean()

    minimise(loss, net.parameters(), steps=_STEPS, lr=_LR, weight_decay=_WEIGHT_DECAY, what="the likeness net")
    return net.eval()


def _changes(dims: int) -> AugmentConfig:
    return _CHANGES.model_copy(update={"flip": tuple(range(dims))})


@torch.no_grad()
def embedded(net: LikenessNet, blocks: Iterable[Tensor], device: str) -> Tensor:
    """Embeddings [N, 64] of blocks of images [B, C, *spatial], on the CPU."""
    return torch.cat([net(averaged_down(block.to(device))).cpu() for block in blocks])

"""GANomaly: its score, every loss on a worked case, its layers."""

from __future__ import annotations

from contextlib import nullcontext
from itertools import pairwise

import numpy as np
import pytest
import torch
from detecting import setting_of
from torch import Tensor, nn

from pipeline.adversarial.turns import Context
from pipeline.anomaly.detectors import DETECTORS, ganomaly
from pipeline.anomaly.playing import NOT_AUGMENTED
from pipeline.data.batches.draws import Draws
from pipeline.data.batches.streams import Batch
from pipeline.nets.normed_autoencoders import NormedEncoder, Reencoder
from pipeline.nets.sizes import ImageShape


def test_ganomaly_scores_the_mean_squared_distance_of_both_codes() -> None:
    class Given(nn.Module):
        def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            return images + 0.5, torch.tensor([[1.0, 2.0, 3.0, 4.0]]), torch.tensor([[1.0, 2.0, 3.0, 2.0]])

    detector = DETECTORS["ganomaly"].make(setting_of(2))
    detector.generator = Given()
    image = torch.zeros(1, 2, 5, 6)
    image[0, 1, 0, 0] = 1.0
    assert detector.score(image).tolist() == [pytest.approx(1.0)]  # 2^2 over four numbers
    found = detector.map(image)
    assert found is not None
    torch.testing.assert_close(found, torch.full((1, 5, 6), 0.5))


class Doubled(nn.Module):
    """Stands for GANomaly's autoencoder: an image's double, and its first and second voxel as code."""

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return 2 * images, images.flatten(1)[:, :2], 3 * images.flatten(1)[:, :2]


def turn_of(images: Tensor, judge: nn.Module) -> ganomaly.GanomalyTurn:
    context = Context({"generator": Doubled(), "discriminator": judge}, NOT_AUGMENTED, Draws(torch.Generator()),
                      nullcontext())  # fmt: skip
    batch = Batch(images, torch.zeros(len(images), dtype=torch.int64))
    return ganomaly.GanomalyTurn(context, {"labelled": batch}, ("generator",))


def test_each_loss_of_ganomaly_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two images of two voxels, their doubles, and a discriminator that sees ten times the voxels and sums them."""
    judge = NormedEncoder(ImageShape((8, 8), 1, 2), 4, 1)
    monkeypatch.setattr(judge, "features", lambda images: 10 * images)
    monkeypatch.setattr(judge, "forward", lambda images: images.flatten(1).sum(dim=1, keepdim=True))
    turn = turn_of(torch.tensor([[0.1, -0.3], [0.4, 0.0]]).view(2, 1, 1, 2), judge)
    assert float(ganomaly.contextual(turn)) == pytest.approx((0.1 + 0.3 + 0.4 + 0.0) / 4)
    assert float(ganomaly.encoding(turn)) == pytest.approx((0.2**2 + 0.6**2 + 0.8**2) / 4)
    assert float(ganomaly.feature_matching(turn)) == pytest.approx((1**2 + 3**2 + 4**2) / 4)
    (against,) = ganomaly.RECIPE.players[0].terms
    sums = (-0.2, 0.4), (-0.4, 0.8)  # of the images, and of their doubles
    expected = [np.mean([np.log1p(np.exp(sign * one)) for one in of]) for sign, of in zip((-1, 1), sums, strict=True)]
    assert float(against.term(turn)) * against.weight == pytest.approx(sum(expected))


def test_ganomaly_weighs_its_losses_as_the_paper_does() -> None:
    discriminator, generator = ganomaly.RECIPE.players
    assert {one.name: (one.weight, one.every) for one in generator.terms} == {
        "contextual": (50, 1), "encoding": (1, 1), "feature_matching": (1, 1),
    }  # fmt: skip
    for player in (discriminator, generator):
        assert (player.optimizer.lr, player.optimizer.betas, player.optimizer.kind) == (2e-4, (0.5, 0.999), "adam")


@pytest.mark.parametrize(("size", "width"), [((64, 64), 6), ((32, 32), 5)])
def test_ganomaly_has_the_layers_of_its_authors(size: tuple[int, int], width: int) -> None:
    """DCGAN's encoder and decoder counted by hand: kernels of 4 x 4 without biases, norms of two weights a channel."""
    code, channels = 7, 1
    widths = [width * 2**level for level in range(int(np.log2(size[0])) - 2)]
    inner = sum(16 * before * after for before, after in pairwise(widths))
    encoder = 16 * channels * width + inner + sum(2 * one for one in widths[1:]) + 16 * widths[-1] * code
    decoder = 16 * code * widths[-1] + inner + sum(2 * one for one in widths) + 16 * width * channels
    net = Reencoder(ImageShape(size, channels, 2), width, code)
    assert sum(one.numel() for one in net.parameters()) == 2 * encoder + decoder
    made, first, second = net.eval()(torch.zeros(2, channels, *size))
    assert made.shape == (2, channels, *size) and first.shape == second.shape == (2, code)

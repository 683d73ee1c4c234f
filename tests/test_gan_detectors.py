"""Detectors that look through a GAN: their scores by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from detecting import BUDGET, SHAPES, normal_tensor, normals_of, planted_tensor, setting_of, tiny_gan
from torch import Tensor

from pipeline.anomaly.choice import aucp
from pipeline.anomaly.detectors import DETECTORS
from pipeline.anomaly.discriminator import OnDiscriminator, OnGan
from pipeline.core.errors import ConfigError
from pipeline.data.batches.draws import Draws
from pipeline.nets.conditions import Condition

MOVES = ((0, 0), (-1, 0), (1, 0), (0, -1), (0, 1))


class OfItsClass:
    """A generator whose images are 0.5 for class 0 and -0.5 for class 1, whatever the code."""

    latent_dim = 6

    def __call__(self, z: Tensor, condition: Condition) -> Tensor:
        value = 0.5 - condition.required_label().float()
        return value.view(-1, 1, 1, 1).expand(-1, 1, *SHAPES[2])


def test_f_anogan_adds_the_residuals_of_pixels_and_features(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    both = replace(setting_of(2, tiny_gan(tmp_path, 2)), normal=("normal", "disease"))
    detector = DETECTORS["f-anogan"].make(both)
    detector._generator = [OfItsClass()]  # type: ignore[assignment,list-item]
    monkeypatch.setattr(OnDiscriminator, "activations", lambda self, images, condition: [images, 3 * images])
    images = torch.full((2, 1, *SHAPES[2]), 0.25)
    images[1] = -0.6
    # class 0 is nearer to the first (by 0.25), class 1 to the second (by 0.1); features are three times as far apart
    torch.testing.assert_close(detector.score(images), torch.tensor([10 * 0.0625, 10 * 0.01]))
    found = detector.map(images)
    assert found is not None
    torch.testing.assert_close(found[:, 3, 3], torch.tensor([0.0625, 0.01]))


def test_an_encoder_learns_to_invert_a_generator(tmp_path: Path) -> None:
    """After training, what the generator makes of an image's code is nearer to it than before."""
    longer = BUDGET.model_copy(update={"steps": 100, "width": 8})
    detector = DETECTORS["f-anogan"].make(setting_of(2, tiny_gan(tmp_path, 2), longer))
    before = detector.score(normal_tensor(2)).mean()
    detector.fit(normals_of(2))
    assert detector.score(normal_tensor(2)).mean() < before


def test_negatives_teach_the_discriminator_to_see_a_square(tmp_path: Path) -> None:
    longer = BUDGET.model_copy(update={"steps": 300, "batch_size": 16})
    detector = DETECTORS["discriminator-negatives"].make(
        setting_of(2, tiny_gan(tmp_path, 2, discriminator_width=8), longer)
    )
    detector.fit(normals_of(2))
    normal, planted = detector.score(normal_tensor(2, 30)), detector.score(planted_tensor(2, 30))
    assert (planted[:, None] > normal[None]).float().mean() > 0.8


def test_negatives_are_four_kinds_and_early_fakes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten images give two of each: cut-pasted, with blobs, means of two different ones, fakes, fakes of a snapshot."""
    detector = DETECTORS["discriminator-negatives"].make(setting_of(2, tiny_gan(tmp_path, 2)))
    asked: list[object] = []

    def fakes(self: OnGan, generator: object, number: int, draws: Draws) -> Tensor:
        asked.append(generator)
        return torch.full((number, 1, 16, 16), -float(len(asked)))

    monkeypatch.setattr(OnGan, "fakes", fakes)
    images = torch.arange(10.0).view(10, 1, 1, 1).expand(10, 1, 16, 16).contiguous() / 10
    found = detector._negatives(images, Draws(torch.Generator().manual_seed(0)))
    assert found[:, 0, 0, 0][6:].tolist() == [-1, -1, -2, -2] and asked[0] is not asked[1]
    torch.testing.assert_close(found[:2], images[:2])  # a box of a flat image pasted into it changes nothing
    assert all(float((found[one] - images[one]).abs().max()) > 0.05 for one in (2, 3))
    torch.testing.assert_close(found[4], (images[4] + images[3]) / 2)
    torch.testing.assert_close(found[5], (images[5] + images[4]) / 2)


def test_fakes_of_a_gan_that_is_asked_by_attributes(tmp_path: Path) -> None:
    gan = tiny_gan(tmp_path, 2, attributes=["age"])
    for name in ("discriminator-negatives", "f-anogan"):
        detector = DETECTORS[name].make(setting_of(2, gan))
        detector.fit(normals_of(2))
        assert torch.isfinite(detector.score(normal_tensor(2, 2))).all()


@pytest.mark.parametrize("name", ["discriminator-logit", "discriminator-average", "discriminator-features"])
def test_a_discriminator_that_compares_a_batch_judges_each_image_alone(name: str, tmp_path: Path) -> None:
    """StyleGAN2's sees how much images of a batch differ; an anomaly score must not."""
    detector = DETECTORS[name].make(setting_of(2, tiny_gan(tmp_path, 2, "stylegan2")))
    detector.fit(normals_of(2))
    images = torch.cat([normal_tensor(2, 4), planted_tensor(2, 4)])
    alone = torch.cat([detector.score(one[None]) for one in images])
    torch.testing.assert_close(detector.score(images), alone, rtol=2e-4, atol=2e-5)


def test_logits_are_averaged_in_their_own_standard_deviations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three discriminators whose logit is 1, 10 and 100 times the image's mean count alike."""
    detector = DETECTORS["discriminator-average"].make(setting_of(2, tiny_gan(tmp_path, 2)))
    factors = {id(net): 10.0**number for number, net in enumerate(detector._net)}
    assert len(factors) == 3
    monkeypatch.setattr(
        OnDiscriminator, "judged_by", lambda self, net, images: factors[id(net)] * images.flatten(1).mean(dim=1)
    )
    normals = normals_of(2)
    detector.fit(normals)
    images = planted_tensor(2)
    means = torch.stack([_mean_over_shifts(image) for image in torch.cat(list(normals.train.blocks()))])
    own = torch.stack([_mean_over_shifts(image) for image in images])
    torch.testing.assert_close(detector.score(images), -(own - means.mean()) / means.std(), rtol=1e-3, atol=1e-3)


def _mean_over_shifts(image: Tensor) -> Tensor:
    """Of an image and of what one voxel's move to each side makes of it, edges repeated, by NumPy."""
    padded = np.pad(image[0].numpy(), 1, mode="edge")
    around = [padded[1 + down : 17 + down, 1 + right : 17 + right] for down, right in MOVES]
    return torch.tensor(np.mean(around))


def test_the_layer_that_sees_disease_is_chosen_without_a_label(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two layers one sees nothing and one the image: the mix, half of which has a square, tells which to take."""
    detector = DETECTORS["discriminator-features"].make(setting_of(2, tiny_gan(tmp_path, 2)))

    def layers(self: OnDiscriminator, images: Tensor, net: object) -> list[Tensor]:
        nothing = torch.zeros(len(images), 3, 4, 4)
        return [nothing, images.clone() if net is detector._nets[1] else nothing]

    monkeypatch.setattr(OnDiscriminator, "layers", layers)
    found = detector.fit(normals_of(2))
    assert (found["discriminator"], found["layer"]) == (2, 2)
    # twelve of the mix have a square, twelve have none, twelve are half of the training normals: 0.5 + 0.5 / 3
    assert found["aucp"] == pytest.approx(2 / 3, abs=0.03)
    normals = torch.cat(list(normals_of(2).train.blocks()))
    one = planted_tensor(2, 1)
    if found["rule"] == "nearest":
        expected = (normals - one).abs()[:, 0].sort(dim=0).values[:3].mean(dim=0)
    else:
        expected = ((one[0, 0] - normals[:, 0].mean(dim=0)) / normals[:, 0].std(dim=0)) ** 2
    torch.testing.assert_close(detector.map(one), expected[None], rtol=1e-4, atol=1e-5)


def test_without_a_mix_the_middle_layer_of_the_earliest_snapshot_is_taken(tmp_path: Path) -> None:
    normals = replace(normals_of(2), mixed=normals_of(2).train)
    detector = DETECTORS["discriminator-features"].make(setting_of(2, tiny_gan(tmp_path, 2)))
    found = detector.fit(normals)
    assert found["discriminator"] == 1 and "aucp" not in found
    assert found["layer"] == len(detector.layers(planted_tensor(2), detector._nets[0])) // 2 + 1


def test_aucp_is_the_auroc_shrunk_by_the_share_of_normals_in_the_mix() -> None:
    random = torch.Generator().manual_seed(0)
    normal, more, abnormal = (torch.randn(2000, generator=random) + shift for shift in (0.0, 0.0, 1.0))
    true = aucp(normal, abnormal)
    assert true == pytest.approx(0.760, abs=0.02)  # of unit Gaussians one apart: Phi(1 / sqrt(2))
    mixed = torch.cat([more[:1500], abnormal[:500]])
    assert aucp(normal, mixed) == pytest.approx(0.5 + 0.25 * (true - 0.5), abs=0.02)


def test_the_latent_search_finds_the_code_that_made_an_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A generator whose image is its code, number by number: what was made from a code is given back, else nothing."""

    class Plain:
        latent_dim = 6

        def __call__(self, z: Tensor, condition: Condition) -> Tensor:
            rows = torch.tanh(z).repeat_interleave(16 * 16 // 6 + 1, dim=1)[:, : 16 * 16]
            return rows.view(-1, 1, 16, 16)

    detector = DETECTORS["anogan"].make(setting_of(2, tiny_gan(tmp_path, 2)))
    detector._generator = [Plain()]  # type: ignore[assignment,list-item]
    monkeypatch.setattr(OnDiscriminator, "activations", lambda self, images, condition: [images])
    made = Plain()(torch.tensor([[0.5, -0.3, 0.1, -0.7, 0.2, 0.0]]), detector.conditions(torch.zeros(1, 1, 16, 16))[0])
    striped = made.clone()
    striped[..., ::2] *= -1
    scores = detector.score(torch.cat([made, striped]))
    assert scores[0] < 1e-3 and scores[1] > 0.05


@pytest.mark.parametrize("name", ["f-anogan", "discriminator-negatives", "anogan"])
def test_generators_that_need_more_than_noise_are_refused(name: str, tmp_path: Path) -> None:
    gan = tiny_gan(tmp_path, 2, "spade")
    with pytest.raises(ConfigError, match="generator of spade makes images from mask, not from noise alone"):
        DETECTORS[name].make(setting_of(2, gan))

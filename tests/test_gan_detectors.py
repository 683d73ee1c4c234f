"""Detectors that look through a GAN: their scores by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from detecting import BUDGET, SHAPES, normal_tensor, normals_of, planted_tensor, setting_of, tiny_gan
from torch import Tensor

from pipeline.anomaly.detectors import DETECTORS
from pipeline.anomaly.discriminator import OnDiscriminator
from pipeline.core.errors import ConfigError
from pipeline.nets.conditions import Condition


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


def test_ganomaly_scores_the_distance_of_both_codes(monkeypatch: pytest.MonkeyPatch) -> None:
    detector = DETECTORS["ganomaly"].make(setting_of(2))
    codes = torch.tensor([[1.0, 2.0, 3.0, 4.0]]), torch.tensor([[1.0, 2.0, 3.0, 2.0]])
    monkeypatch.setattr(detector, "_passed", lambda images: (images, *codes))
    assert detector.score(normal_tensor(2, 1)).tolist() == [pytest.approx(1.0)]  # 2^2 over four numbers


@pytest.mark.parametrize("name", ["f-anogan", "discriminator-negatives", "anogan"])
def test_generators_that_need_more_than_noise_are_refused(name: str, tmp_path: Path) -> None:
    gan = tiny_gan(tmp_path, 2, "spade")
    with pytest.raises(ConfigError, match="generator of spade makes images from mask, not from noise alone"):
        DETECTORS[name].make(setting_of(2, gan))

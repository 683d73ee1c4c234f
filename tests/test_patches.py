"""How much of an image a patch discriminator looks at."""

from __future__ import annotations

import pytest
import torch

from pipeline.adversarial.families import FAMILIES
from pipeline.config.families import validate_gan
from pipeline.nets.conditions import Condition
from pipeline.nets.sizes import ImageShape
from pipeline.nets.translators import PatchDiscriminator


@pytest.mark.parametrize(
    ("side", "halvings", "patches", "wide"),
    [(28, None, 14, 8), (32, None, 8, 18), (64, None, 8, 38), (28, 2, 7, 18), (28, 3, 3, 28), (28, 6, 3, 28),
     (128, 4, 8, 78)],
)  # fmt: skip
def test_a_patch_is_as_wide_as_its_halvings_say(side: int, halvings: int | None, patches: int, wide: int) -> None:
    """A 4 x 4 window of stride 2, n times, then 3 x 3: 5 * 2^n - 2 pixels; 38 of them hold all of 28."""
    net = PatchDiscriminator(ImageShape((side, side), 1, 2), 4, halvings=halvings).eval()
    image = torch.randn(1, 1, side, side, requires_grad=True)
    logits = net(image, Condition(label=torch.zeros(1, dtype=torch.int64))).logits
    assert logits.shape == (1, patches * patches)
    (seen,) = torch.autograd.grad(logits[0, (patches // 2) * patches + patches // 2], image)
    assert int((seen[0, 0].abs().sum(dim=0) > 0).sum()) == wide


@pytest.mark.parametrize("family", ["cyclegan", "stargan"])
def test_translators_take_the_halvings_that_are_asked_for(family: str) -> None:
    shape = ImageShape((28, 28), 1, 4, classes_a_site=2)
    made = [
        FAMILIES[family].nets(validate_gan({"family": family, "discriminator_width": 4} | asked), shape)[
            "discriminator"
        ]
        for asked in ({}, {"patch_halvings": 3})
    ]
    label, images = torch.tensor([0, 3]), torch.randn(2, 1, 28, 28)
    assert [net(images, Condition(label=label)).logits.shape[1] for net in made] == [14 * 14, 3 * 3]

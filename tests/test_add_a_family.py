"""The page that tells how to add a family: its code works as it stands."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.adversarial.families import FAMILIES
from pipeline.adversarial.fit import assemble
from pipeline.adversarial.loop import train
from pipeline.adversarial.recipe import ImageShape
from pipeline.core.compute import Hardware
from pipeline.data.batches.scaling import Scaling
from pipeline.data.batches.streams import StoredImages

PAGE = Path(__file__).parents[1] / "docs" / "add-a-family.md"


@pytest.mark.parametrize("size", [(12, 12), (8, 9, 10)])
def test_the_pages_family_trains(monkeypatch: pytest.MonkeyPatch, size: tuple[int, ...]) -> None:
    code = "\n".join(re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL))
    names: dict[str, Any] = {"__name__": "lsgan"}
    exec(compile(code, str(PAGE), "exec", dont_inherit=True), names)
    config = names["LsganConfig"](batch_size=4, generator_width=4, discriminator_width=4, latent_dim=6)
    monkeypatch.setitem(FAMILIES, "lsgan", names["FAMILY"])
    images = StoredImages(
        stored=torch.randint(0, 255, (8, 1, *size), generator=torch.Generator().manual_seed(0), dtype=torch.uint8),
        label=torch.arange(8) % 2,
        scaling=Scaling(1.0, 0.0, "none", (0.0, 255.0), "uint8"),
    )
    training = assemble(config, images, ImageShape(size, 1, 2), Hardware("cpu", "float32"), seed=1)
    before = [weight.clone() for weight in training.table.nets["generator"].parameters()]
    train(training, 8, lambda _: None)
    after = list(training.table.nets["generator"].parameters())
    assert any(not torch.equal(old, new) for old, new in zip(before, after, strict=True))
    with torch.no_grad():
        turn = training.turn(training.recipe.players[0])
        real, fake = turn.real_logits, turn.fake_logits  # type: ignore[attr-defined]
        term = training.recipe.players[0].terms[0].term(turn)
    torch.testing.assert_close(term, 0.5 * (((real - 1) ** 2).mean() + (fake**2).mean()))

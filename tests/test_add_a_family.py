"""The page that tells how to add a family, followed to the letter: one file is written, and nothing else touched."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from flows.cli import launch
from pipeline.adversarial import families
from pipeline.adversarial.families import FAMILIES
from pipeline.adversarial.gan_cost import noise_training
from pipeline.adversarial.loop import GanTraining, sample, train
from pipeline.adversarial.weights import load_net, save_nets
from pipeline.config.loading import dump_experiment, load_experiment
from pipeline.core.compute import Hardware
from pipeline.core.errors import ConfigError
from pipeline.nets.conditions import condition_of
from pipeline.nets.sizes import ImageShape

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "add-a-family.md"
SETTINGS = ["gan.family=lsgan", "gan.batch_size=4", "gan.generator_width=4", "gan.discriminator_width=4"]


@pytest.fixture
def added(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The page's file under the name that the page gives it, in a folder that is as good as the families' own."""
    text = PAGE.read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)
    (name,) = re.findall(r"Write this as `pipeline/adversarial/families/(\w+\.py)`", text)
    assert len(blocks) == 1, "one file is all that a family needs"
    (tmp_path / name).write_text(blocks[0], encoding="utf-8")
    monkeypatch.setattr(families, "__path__", [*families.__path__, str(tmp_path)])
    yield tmp_path / name
    sys.modules.pop("pipeline.adversarial.families.lsgan", None)
    vars(families).pop("lsgan", None)


def training_of(size: tuple[int, ...]) -> GanTraining:
    gan = load_experiment(ROOT / "configs" / "demo.yaml", SETTINGS).gan
    torch.manual_seed(0)  # of the noise images
    return noise_training(gan, ImageShape(size, 1, 2), Hardware("cpu", "float32"))


def weights(training: GanTraining) -> list[torch.Tensor]:
    return [weight.detach().clone() for net in training.context.nets.values() for weight in net.parameters()]


def test_the_configuration_knows_the_new_family(added: Path, tmp_path: Path) -> None:
    experiment = load_experiment(ROOT / "configs" / "demo.yaml", SETTINGS)
    assert (experiment.gan.family, experiment.gan.generator_lr) == ("lsgan", 2e-4)
    resolved = tmp_path / "config.yaml"
    resolved.write_text(dump_experiment(experiment), encoding="utf-8")
    assert load_experiment(resolved) == experiment
    with pytest.raises(ConfigError, match="did you mean lsgan"):
        load_experiment(ROOT / "configs" / "demo.yaml", ["gan.family=lsgen"])
    with pytest.raises(ConfigError, match=r"gan\.clip: there is no such key"):
        load_experiment(ROOT / "configs" / "demo.yaml", [*SETTINGS, "gan.clip=1"])
    assert added.name == "lsgan.py"


def test_the_command_line_lists_it(added: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert launch(["families", "--json"]) == 0
    (found,) = [one for one in json.loads(capsys.readouterr().out) if one["name"] == added.stem]
    assert found["dimensions"] == [2, 3] and "Mao" in found["source"]


@pytest.mark.parametrize("size", [(12, 12), (8, 9, 10)])
def test_it_trains_resumes_and_samples(added: Path, size: tuple[int, ...], tmp_path: Path) -> None:
    whole, first, second = (training_of(size) for _ in range(3))
    before = weights(whole)
    train(whole, 8, lambda _: None)
    train(first, 4, lambda _: None)
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    second.load_state_dict(torch.load(io.BytesIO(file.getvalue()), weights_only=True))
    train(second, 8, lambda _: None)
    assert whole.step == second.step == 2
    assert all(torch.equal(one, other) for one, other in zip(weights(whole), weights(second), strict=True))
    assert not any(torch.equal(old, new) for old, new in zip(before, weights(whole), strict=True) if old.ndim > 1)
    gan = load_experiment(ROOT / "configs" / "demo.yaml", SETTINGS).gan
    save_nets(tmp_path, dict(whole.ema.nets), {
        "gan": gan.model_dump(mode="json"), "classes": ["a", "b"], "positive": ["b"], "spatial_size": size,
        "channels": 1,
    })  # fmt: skip
    net, _ = load_net(tmp_path, "generator")
    z, condition = torch.randn(4, gan.latent_dim), condition_of(torch.tensor([0, 1, 0, 1]))
    images = sample(net, z, condition)
    assert images.shape == (4, 1, *size) and images.abs().max() <= 1
    torch.testing.assert_close(images, sample(whole.ema.nets["generator"], z, condition), atol=1e-5, rtol=1e-4)
    assert added.stem in FAMILIES


def test_its_loss_is_that_of_the_paper(added: Path) -> None:
    training = training_of((12, 12))
    with torch.no_grad():
        turn = training.turn(training.recipe.players[0])
        real, fake = turn.real_logits, turn.fake_logits  # type: ignore[attr-defined]
        term = training.recipe.players[0].terms[0].term(turn)
    torch.testing.assert_close(term, 0.5 * (((real - 1) ** 2).mean() + (fake**2).mean()))
    assert training.recipe.players[0].optimizer.lr == FAMILIES[added.stem].config().generator_lr == 2e-4


def test_a_family_is_imported_with_those_it_is_built_on_and_no_other() -> None:
    code = """
import sys
from pipeline.config.families import validate_gan
for name in ("sngan", "wgan-gp"):
    validate_gan({"family": name})
    print(sorted(m.rpartition(".")[2] for m in sys.modules if m.startswith("pipeline.adversarial.families.")))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.splitlines() == [str(["sngan"]), str(["sngan", "wgan", "wgan_gp"])]

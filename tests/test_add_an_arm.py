"""The page that tells how to add an arm, followed to the letter: one entry is written, and nothing else touched."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from arm_stage import CLASSES, material_of, settings, stage, with_generator, with_pool

from flows.plan import plan_experiment
from pipeline.config import arms as table
from pipeline.config.arms import ARMS
from pipeline.config.loading import load_experiment
from pipeline.core.errors import ConfigError
from pipeline.downstream import train
from pipeline.downstream.regimens import regimen_of
from pipeline.report.words import arm_words
from pipeline.supervised.classifier_cost import number_of_fits

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "add-an-arm.md"
DEMO = ROOT / "configs" / "demo.yaml"
NEW = "real+classical+mixup+synthetic@0.5"
MakeInputs = Callable[..., dict[str, Path]]


@pytest.fixture
def added(monkeypatch: pytest.MonkeyPatch) -> str:
    """The page's entry, run where the page says that it be written."""
    (code,) = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    known = dict(ARMS)
    exec(compile(code, str(PAGE), "exec", dont_inherit=True), vars(table))
    (name,) = set(ARMS) - set(known)
    entry = ARMS.pop(name)
    monkeypatch.setitem(ARMS, name, entry)
    return name


def test_the_configuration_the_plan_and_the_report_know_the_new_arm(added: str) -> None:
    overrides = ["gan.gan_seeds=2", "classifier.seeds=3", "compute.device=cpu", "compute.precision=float32"]
    experiment = load_experiment(DEMO, [*overrides, f"arms=[real+classical, real+classical+mixup, {NEW}]"])
    fits = {step.name: step.config for step in plan_experiment(experiment)}
    plain, other = fits["downstream-fold-0"], fits["downstream-fold-0-gan-1"]
    assert isinstance(plain, train.DownstreamConfig) and isinstance(other, train.DownstreamConfig)
    assert plain.arms == ("real+classical", "real+classical+mixup") and NEW in other.arms and not other.needs_pool
    assert number_of_fits(experiment) == 3 * (1 + 1 + 2) + 2  # each seed; the new arm for both GANs; reverse checks
    assert arm_words(NEW).endswith("mixed in pairs (mixup), 0.5 synthetic ones for each real one")
    with pytest.raises(ConfigError, match=r"unknown arms.*mixup\+synthetic"):
        load_experiment(DEMO, [f"arms=[real+classical, {added}]"])  # the ratio is missing
    with pytest.raises(ConfigError, match="trained step by step"):
        load_experiment(DEMO, ["classifier.network=logistic", f"arms=[real+classical, {NEW}]"])


@pytest.mark.parametrize("shape", [(12, 12), (8, 8, 8)])
def test_it_is_trained_on_what_it_says(
    added: str, noise_inputs: MakeInputs, tmp_path: Path, shape: tuple[int, ...]
) -> None:
    inputs = with_generator(with_pool(noise_inputs(shape, num=48)), tmp_path)
    material = material_of(inputs, tmp_path / "parts")
    (phase,) = regimen_of(NEW, settings(steps=3), material).phases
    real, synthetic = phase.shares
    assert (phase.steps, phase.mixup, phase.classical) == (3, True, True)
    assert (real.weight, synthetic.weight) == (1.0, 0.5) and ARMS[added].candidate
    assert set(real.rows) == set(material.rows("train")) and synthetic.dataset is material.generated
    predict, facts = train.fit_arm(NEW, stage((NEW,)), material, seed=5)
    scores = predict(material.dataset, material.rows("val"))
    assert facts == {} and scores.shape == (len(material.rows("val")), len(CLASSES))
    np.testing.assert_allclose(scores.sum(axis=1), 1, atol=1e-4)


def test_the_page_says_of_every_arm_what_its_entry_says() -> None:
    rows = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| `")]
    assert len(rows) == len(ARMS)
    for line, (name, facts) in zip(rows, ARMS.items(), strict=True):
        shown, words, needs, must, also = (cell.strip() for cell in line.strip("|").split("|"))
        assert (shown, words) == (f"`{name}@RATIO`" if facts.ratio else f"`{name}`", facts.words)
        assert ("a GAN" in needs, "unlabelled images" in needs) == (facts.generator, facts.pool)
        assert re.findall(r"`([^`]+)`", must) == list(facts.controls)
        assert re.findall(r"`([^`]+)`", also) == list(facts.also)

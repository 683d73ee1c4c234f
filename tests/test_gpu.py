"""The same work on a CUDA GPU: `pytest -m gpu`. Skipped where there is none."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.adversarial.families.sngan import SnganConfig
from pipeline.adversarial.fit import FitConfig, run, start
from pipeline.adversarial.log import save_resume
from pipeline.adversarial.loop import train
from pipeline.adversarial.weights import load_net
from pipeline.config.experiment import ClassifierConfig
from pipeline.core.compute import Hardware
from pipeline.data.batches.dataset import open_dataset
from pipeline.supervised.fit import Share, apply_classifier, fit_classifier

pytestmark = pytest.mark.gpu
MakeInputs = Callable[..., dict[str, Path]]
CLASSES = ("normal", "disease")


def fit_config(precision: str) -> FitConfig:
    gan = SnganConfig(num_images=64, batch_size=8, generator_width=4, discriminator_width=4, snapshots=1, checkpoints=2)
    return FitConfig(
        gan=gan,
        classes=CLASSES,
        positive=("disease",),
        fold=0,
        gan_seed=0,
        seed=3,
        device="cuda",
        precision=precision,
        deterministic=True,
    )


@pytest.mark.parametrize("precision", ["float32", "bf16"])
@pytest.mark.parametrize("shape", [(12, 12), (8, 9, 10)])
def test_a_gan_trains_on_the_gpu_and_its_weights_load_on_the_cpu(
    noise_inputs: MakeInputs, tmp_path: Path, shape: tuple[int, ...], precision: str
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    assert run(fit_config(precision), noise_inputs(shape), out).figures["num_images"] == 64
    net, _ = load_net(out, "generator")
    assert {parameter.device.type for parameter in net.parameters()} == {"cpu"}


def test_training_resumed_on_the_gpu_stays_near_the_uninterrupted_one(noise_inputs: MakeInputs, tmp_path: Path) -> None:
    dataset = open_dataset(noise_inputs()["prepare"])
    whole, first, second = (start(fit_config("float32"), dataset, np.arange(12)) for _ in range(3))
    train(whole, 64, lambda _: None)
    train(first, 24, lambda _: None)
    save_resume(tmp_path / "resume.pt", first)
    second.load_state_dict(torch.load(tmp_path / "resume.pt", map_location="cpu", weights_only=True))
    train(second, 64, lambda _: None)
    for mine, theirs in zip(*(one.ema.nets["generator"].parameters() for one in (whole, second)), strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-4, rtol=1e-3)


def test_a_classifier_fitted_on_the_gpu_tells_the_classes_apart(noise_inputs: MakeInputs) -> None:
    data = open_dataset(noise_inputs((16, 16), num=40)["prepare"])
    hardware = Hardware("cuda", "bf16")
    config = ClassifierConfig(steps=40, batch_size=8)
    net = fit_classifier(config, [Share(data, np.arange(20))], CLASSES, hardware, classical=True, seed=5)
    scores = apply_classifier(net, data, np.arange(20, 40), hardware)
    assert (scores.argmax(axis=1) == data.labels(np.arange(20, 40), CLASSES).numpy()).mean() > 0.9

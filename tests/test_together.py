"""Classifiers trained together are those trained alone: weights, running statistics, predictions, errors."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from pipeline.config.augment import AugmentConfig
from pipeline.config.experiment import ClassifierConfig
from pipeline.core.compute import Hardware, place
from pipeline.core.errors import NonFiniteLoss
from pipeline.data.batches.dataset import DataSet, open_dataset
from pipeline.downstream import train
from pipeline.downstream.material import Material
from pipeline.nets.classifiers import make_classifier
from pipeline.supervised.batches import channels_last
from pipeline.supervised.fit import Phase, Regimen, Share, apply_classifier, fit
from pipeline.supervised.together import fit_together, together_is_faster

MakeInputs = Callable[..., dict[str, Path]]
CLASSES = ("normal", "disease")
CPU = Hardware("cpu", "float32")
EVERY_TRANSFORM = AugmentConfig(rotate_degrees=10, scale=0.1, gamma=0.1, noise=0.05, cutout=0.3, flip=(0,))
CONFIG = ClassifierConfig(batch_size=8, augment=EVERY_TRANSFORM)


def shares(data: DataSet) -> dict[str, Share]:
    rows = np.arange(len(data.images))
    soft = np.random.default_rng(1).dirichlet((1, 1), len(rows) // 2)
    return {
        "real": Share(data, rows[: len(rows) // 2]),
        "natural": Share(data, rows[: len(rows) // 3], balanced=False),
        "synthetic": Share(data, rows[len(rows) // 2 :], weight=2.0, soft=soft, fades=True),
    }


def one_phase(data: DataSet, steps: int) -> list[Regimen]:
    """plain, reference, oversampling, mixup, synthetic images that fade, class weights, logit adjustment."""
    of = shares(data)
    phases = [
        Phase((of["real"],), steps, classical=False),
        Phase((of["real"],), steps),
        Phase((of["real"], of["real"]), steps),
        Phase((of["real"],), steps, mixup=True),
        Phase((of["real"], of["synthetic"]), steps),
        Phase((of["natural"],), steps, loss="class_weights"),
        Phase((of["natural"],), steps, loss="logit_adjustment"),
    ]
    return [Regimen((phase,)) for phase in phases]


def both(alone: list[Regimen], together: list[Regimen]) -> tuple[list[nn.Module], list[nn.Module]]:
    """Some fitted alone, some together, number i of each with seed 11 i."""
    seeds = [11 * number for number in range(7)]
    lone = [fit(CONFIG, regimen, CLASSES, CPU, seed=seed) for regimen, seed in zip(alone, seeds, strict=False)]
    names = [f"number {number}" for number in range(len(together))]
    joint = fit_together(CONFIG, together, CLASSES, CPU, seeds=seeds[: len(together)], names=names) if together else []
    return lone, joint


def assert_same(alone: list[nn.Module], joint: list[nn.Module], tolerance: float) -> None:
    """Each weight and buffer within `tolerance`, or that part of the largest of its tensor."""
    for one, other in zip(alone, joint, strict=True):
        assert not other.training and type(one) is type(other)
        found = other.state_dict()
        assert found.keys() == one.state_dict().keys()
        for name, value in one.state_dict().items():
            limit = tolerance * max(float(value.double().abs().max()), 1)
            torch.testing.assert_close(found[name], value, rtol=0, atol=limit, msg=lambda m, n=name: f"{n}: {m}")


class Double(nn.Module):
    """The small CNN in float64, where rounding cannot hide a difference nor make one."""

    def __init__(self, spatial_dims: int) -> None:
        super().__init__()
        self.net = make_classifier("small_cnn", spatial_dims=spatial_dims, channels=1, num_classes=2).double()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.net(images.double())
        return logits


def in_float64(regimens: list[Regimen], spatial_dims: int) -> tuple[list[nn.Module], list[nn.Module]]:
    """Each fitted alone, and all together, from the same weights."""
    torch.manual_seed(0)
    nets = [Double(spatial_dims) for _ in regimens]
    alone, _ = both([replace(regimen, net=copy.deepcopy(net)) for regimen, net in zip(regimens, nets, strict=True)], [])
    _, joint = both([], [replace(regimen, net=net) for regimen, net in zip(regimens, nets, strict=True)])
    return alone, joint


@pytest.mark.parametrize("size", [(12, 10), (8, 10, 8)])
def test_in_float64_the_weights_are_those_of_lone_fits(noise_inputs: MakeInputs, size: tuple[int, ...]) -> None:
    data = open_dataset(noise_inputs(size)["prepare"])
    alone, joint = in_float64(one_phase(data, 2), len(size))
    assert_same(alone, joint, 1e-9)
    first = alone[0].state_dict()["net.head.1.weight"]
    assert all((first - net.state_dict()["net.head.1.weight"]).abs().max() > 1e-2 for net in alone[1:])


@pytest.mark.parametrize("size", [(16, 16), (16, 16, 16)])
def test_in_float32_weights_and_predictions_are_those_of_lone_fits(
    noise_inputs: MakeInputs, size: tuple[int, ...]
) -> None:
    """From the weights of their own seeds, to a small part of how far the weights go.

    AdamW moves a weight as far whether its gradient is small or only rounding, so single ones may differ by a step.
    """
    data = open_dataset(noise_inputs(size)["prepare"])
    regimens = [one_phase(data, 2)[number] for number in (1, 3, 4)]
    alone, joint = both(regimens, regimens)
    start, _ = both([one_phase(data, 0)[1]] * 3, [])
    for one, other, before in zip(alone, joint, start, strict=True):
        assert (flat(other) - flat(one)).norm() < 0.05 * (flat(one) - flat(before)).norm()
        said = [apply_classifier(net, data, np.arange(24), CPU) for net in (one, other)]
        np.testing.assert_allclose(*said, atol=1e-3)


def test_in_bf16_the_predictions_are_those_of_lone_fits(noise_inputs: MakeInputs) -> None:
    data, bf16 = open_dataset(noise_inputs((16, 16))["prepare"]), Hardware("cpu", "bf16")
    regimens = [one_phase(data, 2)[number] for number in (1, 4)]
    alone = [fit(CONFIG, regimen, CLASSES, bf16, seed=number) for number, regimen in enumerate(regimens)]
    joint = fit_together(CONFIG, regimens, CLASSES, bf16, seeds=[0, 1], names=["a", "b"])
    first, second = ([apply_classifier(net, data, np.arange(24), CPU) for net in nets] for nets in (alone, joint))
    assert np.abs(first[0] - first[1]).mean() > 0.02
    np.testing.assert_allclose(first, second, atol=0.005)


def flat(net: nn.Module) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in net.parameters()])


@pytest.mark.parametrize("head", ["alone", "fresh"])
def test_phases_follow_one_another_as_in_lone_fits(noise_inputs: MakeInputs, head: Literal["alone", "fresh"]) -> None:
    """A refit of the last layer (the trunk frozen, its norms and dropout at rest), and a fine-tuning."""
    of = shares(open_dataset(noise_inputs((12, 10))["prepare"]))
    last = Phase((of["real"],), 2, head=head)
    mixed = Phase((of["natural"], of["synthetic"]), 2, mixup=True)
    regimens = [Regimen((Phase((of["real"],), 2), last)), Regimen((mixed, last))]
    alone, joint = in_float64(regimens, 2)
    assert_same(alone, joint, 1e-9)
    trained = [name for name, parameter in joint[1].named_parameters() if parameter.requires_grad]
    assert (trained == ["net.head.1.weight", "net.head.1.bias"]) == (head == "alone")


def test_the_tests_above_would_see_other_dropout(noise_inputs: MakeInputs, monkeypatch: pytest.MonkeyPatch) -> None:
    regimens = one_phase(open_dataset(noise_inputs((16, 16))["prepare"]), 2)[:2]
    _, joint = both([], regimens)
    monkeypatch.setattr(nn.Dropout, "forward", lambda self, features: features)
    with pytest.raises(AssertionError, match="not close"):
        assert_same(both(regimens, [])[0], joint, 1e-4)


class Divergent(nn.Module):
    """A linear classifier; a bad one's logits are infinite."""

    def __init__(self, bad: bool) -> None:
        super().__init__()
        self.layer = nn.Linear(144, 2)
        self.register_buffer("factor", torch.tensor(torch.inf if bad else 1.0))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.layer(images.flatten(1)) * self.factor
        return logits


def test_a_loss_that_is_not_finite_names_its_fit_and_moves_nothing(noise_inputs: MakeInputs) -> None:
    data = open_dataset(noise_inputs()["prepare"])
    nets = [Divergent(bad) for bad in (False, True, False)]
    before = [net.layer.weight.clone() for net in nets]
    regimens = [Regimen((Phase((Share(data, np.arange(8)),), 2),), net=net) for net in nets]
    with pytest.raises(NonFiniteLoss, match=r"mixup seed 1 became (nan|inf) at step 0"):
        fit_together(
            CONFIG, regimens, CLASSES, CPU, seeds=[0, 1, 2], names=["real seed 0", "mixup seed 1", "real seed 2"]
        )  # fmt: skip
    assert all(torch.equal(net.layer.weight, weight) for net, weight in zip(nets, before, strict=True))


def test_other_random_numbers_than_dropouts_are_refused(noise_inputs: MakeInputs) -> None:
    class Noisy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(144, 2)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            logits: torch.Tensor = self.layer(images.flatten(1) + torch.rand_like(images.flatten(1)))
            return logits

    data = open_dataset(noise_inputs()["prepare"])
    regimens = [Regimen((Phase((Share(data, np.arange(8)),), 1),), net=Noisy()) for _ in range(2)]
    with pytest.raises(RuntimeError, match="random"):
        fit_together(CONFIG, regimens, CLASSES, CPU, seeds=[0, 1], names=["one", "two"])


@pytest.mark.parametrize("size", [(6, 5), (4, 6, 5)])
def test_images_of_one_channel_lie_as_the_weights_do(size: tuple[int, ...]) -> None:
    """Then the first convolution's output does, and all that follows; torch alone would choose the other order."""
    images = torch.rand(2, 1, *size)
    net = place(make_classifier("small_cnn", spatial_dims=len(size), channels=1, num_classes=2), CPU)
    laid = channels_last(images)
    assert torch.equal(laid, images)
    assert net.features[0](laid).stride(1) == 1 != net.features[0](images).stride(1)  # type: ignore[index,operator]


def test_the_rule_takes_it_on_a_gpu_for_the_small_network_alone() -> None:
    assert together_is_faster("small_cnn", Hardware("cuda", "bf16"))
    assert not together_is_faster("densenet121", Hardware("cuda", "bf16"))
    assert not together_is_faster("small_cnn", Hardware("cpu", "bf16"))


def downstream(arms: tuple[str, ...], seeds: int = 2) -> train.DownstreamConfig:
    return train.DownstreamConfig(
        classifier=ClassifierConfig(steps=5, seeds=seeds, batch_size=8), arms=arms, classes=CLASSES, fold=0,
        gan_seed=None, seed=1, device="cpu", precision="float32",
    )  # fmt: skip


ARMS = ("real", "real+classical", "real+classical+refit", "real+classical+mixup", "augmented-pretrained")


def test_the_stage_gives_the_predictions_of_lone_fits_and_keeps_finished_groups(
    noise_inputs: MakeInputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs, config = noise_inputs((16, 16)), downstream(ARMS)
    for name in ("alone", "joint"):
        (tmp_path / name).mkdir()
    train.run(config, inputs, tmp_path / "alone")
    groups: list[list[str]] = []

    def dies_at_the_second(*args: object, names: list[str], **kwargs: object) -> list[nn.Module]:
        groups.append(names)
        if len(groups) == 2:
            raise KeyboardInterrupt
        return fit_together(*args, names=names, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(train, "together_is_faster", lambda network, hardware: network == "small_cnn")
    monkeypatch.setattr(train, "fit_together", dies_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        train.run(config, inputs, tmp_path / "joint")
    train.run(config, inputs, tmp_path / "joint")
    one_phased = [f"{arm} seed {seed}" for arm in ("real", "real+classical", "real+classical+mixup") for seed in (0, 1)]
    refit, tuned = (
        [f"{arm} seed {seed}" for seed in (0, 1)] for arm in ("real+classical+refit", "augmented-pretrained")
    )
    assert groups == [one_phased, refit, refit, tuned]
    tables = [pd.read_csv(tmp_path / name / "predictions.csv", dtype={"fold": str}) for name in ("alone", "joint")]
    pd.testing.assert_frame_equal(*tables, atol=1e-3, rtol=0)
    assert tables[0].groupby("image_id")["score_disease"].std().min() > 0.01


def test_groups_are_no_larger_than_they_may_be(
    noise_inputs: MakeInputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = downstream(("real", "pretrained+classical"), seeds=13)
    material = Material(config.classifier, CLASSES, 0, noise_inputs(), tmp_path, CPU, 0)
    fits = [(arm, seed) for arm in config.arms for seed in range(13)]
    assert train.fit_groups(config, material, fits) == [[one] for one in fits]
    monkeypatch.setattr(train, "together_is_faster", lambda network, hardware: network == "small_cnn")
    assert [len(group) for group in train.fit_groups(config, material, fits)] == [12, 1] + [1] * 13


@pytest.mark.gpu
@pytest.mark.parametrize("size", [(32, 32), (16, 16, 16)])
def test_on_a_gpu_too(noise_inputs: MakeInputs, size: tuple[int, ...]) -> None:
    data = open_dataset(noise_inputs(size)["prepare"])
    regimens, gpu = one_phase(data, 2), Hardware("cuda", "float32")
    alone = [fit(CONFIG, regimen, CLASSES, gpu, seed=number) for number, regimen in enumerate(regimens)]
    joint = fit_together(CONFIG, regimens, CLASSES, gpu, seeds=range(7), names=list("abcdefg"))
    assert_same(alone, joint, 1e-3)  # TF32

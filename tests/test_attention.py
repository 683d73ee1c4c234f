"""What classifiers look at: Grad-CAM value by value as MONAI's, and what the stage keeps of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from arm_stage import CLASSES, CPU, MakeInputs, settings, stage, with_generator, with_pool
from monai.visualize.class_activation_maps import GradCAM

from pipeline.data.batches.dataset import open_dataset
from pipeline.downstream import train
from pipeline.nets.classifiers import PRETRAINED, last_grid, make_classifier
from pipeline.supervised.attention import attention_maps, gradcam, scaled


@pytest.mark.parametrize(("network", "dims", "side"), [
    ("small_cnn", 2, 32), ("small_cnn", 3, 16), ("resnet18", 2, 24), ("densenet121", 2, 32),
])  # fmt: skip
def test_maps_are_monais(network: str, dims: int, side: int) -> None:
    torch.manual_seed(0)
    net = make_classifier(network, spatial_dims=dims, channels=1, num_classes=3).eval()
    images = torch.randn(3, 1, *[side] * dims)
    targets = torch.tensor([2, 0, 2])
    found = gradcam(net, images.clone(), targets)
    layer = last_grid(net)
    name = next(name for name, module in net.named_modules() if module is layer)
    monais = GradCAM(net, name)
    expected = torch.cat(
        [monais.compute_map(images[[one]].requires_grad_(), class_idx=int(targets[one])) for one in range(3)]
    )
    assert found is not None and found.max() > 0
    torch.testing.assert_close(found, expected[:, 0].detach(), rtol=1e-4, atol=1e-6)


def test_a_net_that_looks_at_planes_has_no_map_of_a_volume() -> None:
    flat = make_classifier(PRETRAINED, spatial_dims=2, channels=1, num_classes=2).eval()
    found = gradcam(flat, torch.randn(2, 1, 32, 32), torch.tensor([0, 1]))
    assert found is not None and found.shape == (2, 4, 4)  # it sees 128 x 128, and halves five times
    net = make_classifier(PRETRAINED, spatial_dims=3, channels=1, num_classes=2).eval()
    assert gradcam(net, torch.randn(2, 1, 16, 16, 16), torch.tensor([0, 1])) is None
    assert gradcam(torch.nn.Flatten(), torch.randn(2, 1, 4, 4), torch.tensor([0, 1])) is None


def test_maps_are_scaled_one_by_one_and_nothing_stays_nothing() -> None:
    found = scaled(torch.tensor([[[0.0, 2.0], [1.0, 4.0]], [[0.0, 0.0], [0.0, 0.0]]]))
    assert found.tolist() == [[[0, 0.5], [0.25, 1]], [[0, 0], [0, 0]]]


def test_a_classifier_that_knows_a_corner_looks_there(noise_inputs: MakeInputs) -> None:
    """A net whose only feature is the brightness of a cell, and whose disease is a bright one."""
    dataset = open_dataset(noise_inputs((16, 16), num=8)["prepare"])
    images = np.zeros_like(dataset.images)
    images[:, :, 8:, :8] = 255
    shown = replace(dataset, manifest=dataset.manifest.assign(label="disease"), images=images)
    maps = attention_maps(Corner(), shown, np.arange(8), CLASSES, CPU)
    assert maps is not None and maps.shape == (8, 16, 16) and maps.dtype == np.uint8
    assert (maps[:, 10:, :6] == 255).all() and (maps[:, :6, :] == 0).all() and (maps[:, :, 10:] == 0).all()


class Corner(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.trunk = torch.nn.Sequential(torch.nn.AvgPool2d(4), torch.nn.ReLU())

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        bright = self.trunk(images).flatten(2).mean(dim=2)
        return torch.cat([-bright, bright], dim=1)


def test_the_stage_keeps_the_mean_maps_of_the_same_images_for_every_arm(
    noise_inputs: MakeInputs, tmp_path: Path
) -> None:
    inputs = with_generator(with_pool(noise_inputs(num=40)), tmp_path)
    arms = ("real", "real+classical", "real+classical+synthetic@1")
    out = {}
    for name, own in (("real", arms[:2]), ("synthetic", arms[2:])):
        out[name] = tmp_path / name
        out[name].mkdir()
        config = stage(own, settings(seeds=2))
        train.run(config if name == "synthetic" else config.model_copy(update={"gan_seed": None}), inputs, out[name])
    tables = {name: pd.read_csv(place / "attention.csv", dtype=str) for name, place in out.items()}
    maps = {name: np.load(place / "attention.npy") for name, place in out.items()}
    assert all(len(tables[name]) == len(maps[name]) for name in out)
    assert tables["real"]["arm"].unique().tolist() == list(arms[:2]) and set(tables["synthetic"]["arm"]) == {arms[2]}
    assert set(tables["real"]["classifiers"]) == {"2"}
    splits = pd.read_csv(inputs["split"] / "splits.csv", dtype=str)
    test = set(splits["image_id"][splits["split"] == "test"])
    images = [part["image_id"].tolist() for table in tables.values() for _, part in table.groupby("arm")]
    assert len(images) == 3 and all(one == images[0] for one in images) and set(images[0]) <= test
    assert maps["real"].dtype == np.uint8 and maps["real"].max() > 0
    assert not (out["real"] / "parts").exists()

"""Sweeps: one thing moves, all else is held; what the report says of them; nobody else gets to see them."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from fake_run import Case, build, leave_out_curves
from PIL import Image

from pipeline.data.batches.scaling import Scaling
from pipeline.nets.conditions import Condition
from pipeline.report.pictures import all_pictures
from pipeline.report.reading import read_run
from pipeline.report.sweeps import change, sweep_pictures
from pipeline.synthesis.generate import TrainedGenerator
from pipeline.synthesis.sweep import LATENTS, sweeps, write_sweeps


def grey_by_age(classes: tuple[str, ...] = ("a", "b"), *, ages: bool = True) -> TrainedGenerator:
    """A stand-in whose images [1, 4, 4, 4] are z + class + age in every voxel; training patients are 0 to 100 years."""

    def asked(label: str, seed: int) -> tuple[torch.Tensor, Condition]:
        random = torch.Generator().manual_seed(seed)
        z, attributes = 0.1 * torch.randn(1, 1, generator=random), torch.tensor([[0.25, 0.1]])
        return z, Condition(torch.tensor([classes.index(label)]), attributes=attributes if ages else None)

    def made(one: list[tuple[torch.Tensor, Condition]], psi: float) -> np.ndarray:
        assert psi == 0.9
        ages = [0.0 if condition.attributes is None else condition.attributes[0, 1] for _, condition in one]
        values = [
            float(z + 0.1 * condition.required_label() + age) for (z, condition), age in zip(one, ages, strict=True)
        ]
        return np.broadcast_to(np.reshape(values, (-1, 1, 1, 1, 1)), (len(values), 1, 4, 4, 4)).astype(np.float32)

    years = np.arange(101.0)
    known = {name: np.stack([(years - 50) / 250, years], axis=1) for name in ("weight", "age")} if ages else {}
    parts: dict[str, Any] = {"classes": classes, "attributes": known, "needs_source": False, "device": "cpu"}
    return cast(TrainedGenerator, SimpleNamespace(**parts, asked=asked, made=made))


def test_one_thing_moves_and_all_else_is_held(tmp_path: Path) -> None:
    generator, scaling = grey_by_age(), Scaling(1.0, 0.0, "none", (-1.0, 1.0), "float32")
    write_sweeps(generator, scaling, 5, 0.9, tmp_path)
    planes = np.load(tmp_path / "sweeps.npy")
    with (tmp_path / "sweeps.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert planes.shape == (LATENTS * (2 + 7 + 7), 1, 4, 4, 1) and len(rows) == len(planes)
    means = planes.mean(axis=(1, 2, 3, 4))
    latents = []
    for latent, start in enumerate(range(0, len(rows), 16)):
        label = "ab"[latent % 2]
        assert {row["label"] for row in rows[start : start + 16]} == {label}
        assert [row["value"] for row in rows[start : start + 2]] == ["a", "b"]
        assert means[start + 1] - means[start] == pytest.approx(0.1, abs=1e-6)
        assert np.ptp(means[start + 2 : start + 9]) < 1e-6  # these images do not go by weight
        ages = means[start + 9 : start + 16]
        assert [row["value"] for row in rows[start + 9 : start + 16]] == ["5", "20", "35", "50", "65", "80", "95"]
        np.testing.assert_allclose(np.diff(ages), 15 / 250, atol=1e-6)  # of the 5th to the 95th year, standardised
        latents.append(means[start])
    assert len(set(latents)) == LATENTS


def test_nothing_is_written_where_nothing_can_be_swept(tmp_path: Path) -> None:
    write_sweeps(grey_by_age(("a",), ages=False), Scaling(1.0, 0.0, "none", (-1.0, 1.0), "uint8"), 5, 0.9, tmp_path)
    translator: Any = SimpleNamespace(needs_source=True)
    assert list(tmp_path.iterdir()) == [] and list(sweeps(translator, 0)) == []


def test_change_is_along_a_row_over_what_it_is_from_latent_to_latent() -> None:
    """Two latents that differ by 4 everywhere, and two steps that differ by 3; or that do not differ."""
    frames = np.array([[10.0, 13.0], [14.0, 17.0]])[:, :, None, None, None] * np.ones((1, 1, 1, 2, 2))
    assert change(frames, end_to_end=False) == pytest.approx(3 / 4)
    longer = np.concatenate([frames[:, :1], frames[:, :1] + 100, frames[:, 1:]], axis=1)
    assert change(longer, end_to_end=True) == pytest.approx(3 / 4)
    assert change(frames[:, [0, 0]], end_to_end=True) == 0
    assert np.isnan(change(frames[[0, 0]], end_to_end=True))


@pytest.mark.parametrize("dims", [2, 3])
def test_a_film_strip_a_sweep_and_none_in_what_is_shared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dims: int
) -> None:
    place = build(tmp_path / "run", Case(spatial_dims=dims, classes=("cyst", "metastasis"), anomaly=False))
    assert sweep_pictures(read_run(place)) == []
    generator = grey_by_age(("cyst", "metastasis"))
    folder = place / "stages" / "synthesise-fold-0-gan-0"
    write_sweeps(generator, Scaling(1.0, 0.0, "HU", (-20.0, 180.0), "int16"), 5, 0.9, folder)
    run = read_run(place)
    pictures = sweep_pictures(run)
    assert [picture.name for picture in pictures] == ["sweep-class", "sweep-of-weight", "sweep-of-age"]
    assert "an image changes 0.00 times as much" in pictures[1].caption
    with Image.open(io.BytesIO(pictures[2].png)) as shown:
        assert shown.width > 1.5 * shown.height > 500  # seven columns of four
    leave_out_curves(monkeypatch)
    assert not [name for name in all_pictures(run, shareable=True) if name.startswith("sweep")]

"""Images in a file's memory map: the same batches as from memory, no copies, and no limit by the machine's memory."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import little_memory
import numpy as np
import pandas as pd
import pytest
import torch

from pipeline.core.records import Record
from pipeline.data.batches import streams
from pipeline.data.batches.dataset import DataSet, open_dataset
from pipeline.data.batches.streams import UNLABELLED, Stream, images_at, stored_images

CLASSES = ["normal", "disease"]
SIDE = 64


def written(root: Path, num: int, *, masks: bool = False) -> DataSet:
    """A data set of `num` images of int16 that lies in holes of its file, but for the first 100 ones."""
    root.mkdir()
    ids = [f"i{number}" for number in range(num)]
    label = np.array([*CLASSES, ""])[np.arange(num) % 3]
    table = pd.DataFrame({"image_id": ids, "label": label, "patient_id": ids, "age": np.arange(num)})
    table.to_csv(root / "manifest.csv", index=False)
    random = np.random.default_rng(0)
    images = np.lib.format.open_memmap(root / "images.npy", mode="w+", dtype=np.int16, shape=(num, 1, SIDE, SIDE))
    images[:100] = random.integers(-1200, 1200, images[:100].shape)
    if masks:
        np.save(root / "masks.npy", random.integers(0, 2, images.shape, dtype=np.uint8))
    scaling = {"scale": 1.0, "offset": 0.0, "unit": "HU", "window": [-1000.0, 1000.0], "dtype": "int16"}
    Record(kind="prepare", extra={"scaling": scaling}).save(root)
    return open_dataset(root)


def test_batches_from_the_memory_map_are_those_of_the_images_themselves(tmp_path: Path) -> None:
    dataset = written(tmp_path / "set", 60, masks=True)
    assert dataset.masks is not None
    rows = np.random.default_rng(1).permutation(60)[:41]
    age = rows[rows % 3 < 2].astype(np.float64)  # standardised over the labelled
    images = stored_images(dataset, rows, CLASSES, ["age"], "cpu")
    some = images.of_classes([1]).part(torch.tensor([4, 0, 3]))
    own = rows[rows % 3 == 1][[4, 0, 3]]
    for part, places, label in (
        (images, rows, np.where(rows % 3 < 2, rows % 3, UNLABELLED)),
        (images.of_classes([1]), rows[rows % 3 == 1], np.ones(np.sum(rows % 3 == 1))),
        (images.unlabelled(), rows, np.full(41, UNLABELLED)),
        (some, own, np.ones(3)),
    ):
        drawn = torch.tensor([2, 0, 2, 1])
        batch, expected = part.batch(drawn), places[drawn.numpy()]
        clipped = np.clip(np.load(tmp_path / "set" / "images.npy")[expected] / 1000.0, -1, 1)
        np.testing.assert_allclose(batch.images.numpy(), clipped, atol=1e-6)
        assert batch.mask is not None and batch.attributes is not None
        np.testing.assert_array_equal(batch.mask.numpy(), dataset.masks[expected])
        np.testing.assert_array_equal(batch.label.numpy(), label[drawn.numpy()])
        standard = (expected[:, None] - age.mean()) / age.std()
        np.testing.assert_allclose(batch.attributes.numpy(), standard, rtol=1e-5, atol=1e-6)


def test_a_stream_from_the_memory_map_is_the_stream_from_memory(tmp_path: Path) -> None:
    dataset = written(tmp_path / "set", 60)
    rows, label = np.arange(5, 50), torch.arange(45) % 2
    mapped = images_at(dataset, rows, label, "cpu")
    held = streams.StoredImages(torch.from_numpy(np.array(dataset.images[rows])), label, dataset.scaling)
    ours, theirs = Stream(mapped, 8, seed=3), Stream(held, 8, seed=3)
    for _ in range(20):
        one, two = ours.next(), theirs.next()
        assert torch.equal(one.images, two.images) and torch.equal(one.label, two.label)


def test_parts_of_images_are_views(tmp_path: Path) -> None:
    dataset = written(tmp_path / "set", 60)
    images = stored_images(dataset, np.arange(50), CLASSES, [], "cpu")
    place = dataset.images.__array_interface__["data"][0]
    for part in (images, images.of_classes([0]), images.unlabelled(), images.part(torch.tensor([1]))):
        assert part.stored.data_ptr() == place


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel counts a process's own memory on Linux only")
def test_training_takes_no_memory_for_images_on_the_disk(tmp_path: Path) -> None:
    for name, num in (("small", 100), ("large", 40_000)):  # 320 MB, which no process of 100 MB more can copy
        dataset = written(tmp_path / name, num)
        table = dataset.manifest.assign(label=np.array(CLASSES)[np.arange(num) % 2])
        table.to_csv(tmp_path / name / "manifest.csv", index=False)
    command = [sys.executable, little_memory.__file__, tmp_path / "small", tmp_path / "large", str(100_000_000)]
    finished = subprocess.run(command, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr[-2000:]


@pytest.mark.gpu
def test_batches_that_do_not_fit_the_gpu_are_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = written(tmp_path / "set", 60, masks=True)
    held = stored_images(dataset, np.arange(50), CLASSES, [], "cuda")
    monkeypatch.setattr(streams, "DEVICE_SHARE", 0.0)
    streamed = stored_images(dataset, np.arange(50), CLASSES, [], "cuda")
    assert (held.stored.device.type, streamed.stored.device.type) == ("cuda", "cpu")
    ours, theirs = Stream(streamed, 8, seed=3), Stream(held, 8, seed=3)
    for _ in range(20):
        one, two = ours.next(), theirs.next()
        assert torch.equal(one.images, two.images) and torch.equal(one.label, two.label)
        assert one.mask is not None and two.mask is not None and torch.equal(one.mask, two.mask)

"""Cold preparation of DICOM, NIfTI and PNG files beside MONAI's PersistentDataset and CacheDataset, and warm epochs.

Run: .venv/bin/python benchmarks/data_speed.py [--rounds 3] [--files 400]    (about 7 minutes)

Everybody reads the same files to the same images: clipped to the window, the longest side resized by area means, the
rest padded. Each measurement is a process of its own with the libraries loaded, in turn over the rounds; `ours` is the
stage prepare, and `PersistentDataset` is filled once into an empty folder. `1` works in one process of one thread, `k`
in as many as there are cores: ours by its own processes (their start is in the time), PersistentDataset through a
DataLoader, CacheDataset by its threads. Where RADAUG_DATA holds them, DICOM and PNG files of patients are rows too.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from PIL import Image
from scipy import ndimage
from timing import in_turn, median, ratio
from torch.utils.data import DataLoader

from pipeline.config.loading import data_root, validate_experiment
from pipeline.core.threads import available_cores, use_threads
from pipeline.data import ingest, prepare
from pipeline.data.batches.dataset import DataSet, read_table
from pipeline.data.batches.scaling import Scaling
from pipeline.data.batches.streams import Stream, images_at
from pipeline.data.cohort import split
from pipeline.data.writers import DicomIds, write_dicom, write_nifti

RIVALS = ("ours 1", "PersistentDataset 1", "CacheDataset 1", "ours k", "PersistentDataset k", "CacheDataset k")
EPOCHS = {"64²": ((64, 64), 2048, 32), "32³": ((32, 32, 32), 512, 16)}
"""Size, images, batch."""
_LOADED = ["monai.data", "monai.transforms", "nibabel", "PIL.PngImagePlugin", "pydicom.pixels", "pipeline.data.prepare"]


@dataclass(frozen=True)
class Case:
    """Files of one kind.

    Attributes:
        data: the section `data` of an experiment, but for the classes.
        classes: the healthy one and the other.
        reader: MONAI's.
        inputs: of the stage prepare; empty until they are made.
    """

    name: str
    data: dict[str, Any]
    classes: tuple[str, str]
    reader: str
    window: tuple[float, float]
    inputs: Path = Path()

    @property
    def experiment(self) -> Any:
        plain = {"classes": list(self.classes), "positive": [self.classes[1]], "duplicates": "drop"}
        return validate_experiment({"name": "speed", "data": plain | self.data}, "speed")

    @property
    def files(self) -> list[str]:
        table = read_table(self.inputs / "split" / "manifest.csv")
        root = prepare.prepare_config(self.experiment).root
        return [str(Path(root) / path) for path in table["path"][table["fate"] == "used"]]


@dataclass(frozen=True)
class Taken:
    """Seconds of the clock and of this process's threads, and MiB beyond those at the start."""

    wall: float
    cpu: float
    mib: float


def made(root: Path, number: int) -> Iterator[Case]:
    """Smooth images with noise, as CT and X-ray files have them: what is compressed is compressible as they are."""
    random = np.random.default_rng(0)

    def smooth(shape: tuple[int, ...], sigma: float) -> np.ndarray:
        field = ndimage.gaussian_filter(random.normal(size=shape), sigma)
        return np.asarray(field / np.abs(field).max())

    slice_, volume, film = smooth((512, 512), 12), smooth((128, 128, 64), 6), smooth((1024, 1024), 20)
    for index in range(number):
        place = "ab"[index % 2]
        for kind in ("dicom", "nifti", "png"):
            (root / kind / place).mkdir(parents=True, exist_ok=True)
        hounsfield = np.rint(np.roll(slice_, 7 * index, 0) * 1000 + random.normal(0, 15, slice_.shape))
        write_dicom(
            root / "dicom" / place / f"{index}.dcm", np.clip(hounsfield, -1024, 3000), unit="HU",
            spacing=(0.7, 0.7, 5.0), description="noise", synthetic=True, ids=DicomIds(f"p{index}"),
        )  # fmt: skip
        if index % 2 == 0:
            hounsfield = np.rint(np.roll(volume, 3 * index, 0) * 1000 + random.normal(0, 15, volume.shape))
            path = root / "nifti" / "ab"[index // 2 % 2] / f"{index}.nii.gz"
            write_nifti(path, np.clip(hounsfield, -1024, 3000), np.diag([0.8, 0.8, 2.0, 1.0]))
        grey = np.roll(film, 11 * index, 0) * 100 + 128 + random.normal(0, 4, film.shape)
        Image.fromarray(np.clip(grey, 0, 255).astype(np.uint8)).save(root / "png" / place / f"{index}.png")
    names = {
        "dicom": ("DICOM, 512² to 64²", 2, 64, "PydicomReader", (-1000.0, 1000.0)),
        "nifti": ("NIfTI, 128 x 128 x 64 to 32³", 3, 32, "NibabelReader", (-1000.0, 1000.0)),
        "png": ("PNG, 1024² to 64²", 2, 64, "PILReader", (0.0, 255.0)),
    }
    for kind, (name, dims, size, reader, window) in names.items():
        source = {"kind": "folders", "path": str(root / kind)}
        yield Case(name, {"source": source, "spatial_dims": dims, "spatial_size": size}, ("a", "b"), reader, window)


def of_patients() -> Iterator[Case]:
    """Files of the data packs that are there."""
    packs = (
        ("tcga-luad-ct-contrast-dicom", "DICOM of patients", "class", "PydicomReader", (-1000.0, 1000.0)),
        ("nih-cxr-normal-vs-pneumonia-256", "PNG of patients, 256²", "class", "PILReader", (0.0, 255.0)),
    )
    for pack, name, label, reader, window in packs:
        table = data_root() / pack / "labels.csv"
        if table.is_file():
            columns = {"path": "file", "label": label, "patient_id": "patient_id"}
            source = {"kind": "csv", "path": str(table), "columns": columns}
            classes = sorted(set(read_table(table)[label]))
            data = {"source": source, "spatial_size": 64, "max_rejected": 0.5}
            yield Case(f"{name} to 64²", data, (classes[0], classes[1]), reader, window)


def ready(case: Case, root: Path) -> Case:
    """The case after the stages ingest and split."""
    inputs = {name: root / name for name in ("ingest", "split")}
    for folder in inputs.values():
        folder.mkdir(parents=True)
    ingest.run(ingest.ingest_config(case.experiment), {}, inputs["ingest"])
    split.run(split.split_config(case.experiment), inputs, inputs["split"])
    return replace(case, inputs=root)


def work_of(case: Case, rival: str, folder: Path) -> Callable[[], object]:
    """What a process is to do, every library being loaded."""
    name, width = rival.split()
    processes = 1 if width == "1" else available_cores()
    if name == "ours":
        use_threads(processes)
        config, inputs = prepare.prepare_config(case.experiment), {n: case.inputs / n for n in ("ingest", "split")}
        return lambda: prepare.run(config, inputs, folder)
    use_threads(1)
    from monai.data import CacheDataset, PersistentDataset
    from monai.transforms import Compose, LoadImaged, Orientationd, Resized, ScaleIntensityRanged, SpatialPadd

    size, dims = case.experiment.data.shape, case.experiment.data.spatial_dims
    chain = Compose([
        LoadImaged("image", reader=case.reader, ensure_channel_first=True, image_only=True),
        *([Orientationd("image", "RAS", labels=(("L", "R"), ("P", "A"), ("I", "S")))] if dims == 3 else []),
        ScaleIntensityRanged("image", *case.window, -1, 1, clip=True),
        Resized("image", size[0], size_mode="longest", mode="area"),
        SpatialPadd("image", size),
    ])  # fmt: skip
    items = [{"image": path} for path in case.files]
    if name == "CacheDataset":
        return lambda: CacheDataset(items, chain, progress=False, num_workers=processes)

    def fill() -> None:
        data = PersistentDataset(items, chain, folder)
        loader = DataLoader(data, batch_size=None, num_workers=0 if width == "1" else processes)
        for _ in loader:
            pass

    return fill


def measure(connection: Connection, case: Case, rival: str) -> None:
    """In a process of its own."""
    with tempfile.TemporaryDirectory() as place:
        work, before = work_of(case, rival, Path(place)), peak_mib()
        wall, cpu = time.perf_counter(), time.process_time()
        work()
        connection.send(Taken(time.perf_counter() - wall, time.process_time() - cpu, peak_mib() - before))


def peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def taken(case: Case, rival: str) -> Taken:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["__main__", *_LOADED])
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=measure, args=(theirs, case, rival))
    process.start()
    theirs.close()
    found: Taken = ours.recv()
    process.join()
    return found


def cold(cases: list[Case], rounds: int) -> None:
    print(f"\n## Cold preparation, seconds for 1,000 files; k = {available_cores()} cores\n")
    print("| files | rival | CPU, 1 | ours over it | clock, 1 | clock, k | ours k over its k | over its 1 | MiB |")
    print("|---|---|---|---|---|---|---|---|---|")
    for case in cases:
        found: dict[str, list[Taken]] = {rival: [] for rival in RIVALS}
        for number in range(rounds):
            for rival in RIVALS[:: 1 if number % 2 else -1]:
                found[rival].append(taken(case, rival))
        scale = 1000 / len(case.files)
        for name in ("ours", "PersistentDataset", "CacheDataset"):
            alone, together = found[f"{name} 1"], found[f"{name} k"]
            print(
                f"| {case.name} ({len(case.files)}) | {name} | {middle(alone, 'cpu', scale)} | "
                f"{ratio(found['ours 1'], alone, 'cpu')} | {middle(alone, 'wall', scale)} | "
                f"{middle(together, 'wall', scale)} | {ratio(found['ours k'], together, 'wall')} | "
                f"{ratio(found['ours k'], alone, 'wall')} | {statistics.median(one.mib for one in alone):.0f} |",
                flush=True,
            )


def middle(found: list[Taken], kind: str, scale: float) -> str:
    """Median with the least and the largest."""
    values = [scale * getattr(one, kind) for one in found]
    return f"{statistics.median(values):.1f} ({min(values):.1f} to {max(values):.1f})"


def warm(root: Path, rounds: int) -> None:
    """One epoch in batches on the device: ours from the memory map, and indexing an array that is all in memory."""
    print("\n## Warm epochs, milliseconds of processor time\n")
    print("| images | ours | array[rows] | array.index_select(0, rows) | ours over the first | over the second |")
    print("|---|---|---|---|---|---|")
    scaling = Scaling(1.0, 0.0, "HU", (-1000.0, 1000.0), "int16")
    for name, (shape, number, size) in EPOCHS.items():
        path = root / f"{name}.npy"
        np.save(path, np.random.default_rng(0).integers(-1000, 1000, (number, 1, *shape)).astype(np.int16))
        dataset = DataSet(root, pd.DataFrame(index=range(number)), np.load(path, mmap_mode="r"), scaling)
        label = torch.arange(number) % 2
        stream = Stream(images_at(dataset, np.arange(number), label, "cpu"), size, seed=0)
        held = torch.from_numpy(np.load(path))

        def indexed(held: torch.Tensor = held, label: torch.Tensor = label, size: int = size) -> None:
            for rows in torch.randperm(len(held)).split(size):
                scaling.to_model(held[rows]), label[rows]

        def selected(held: torch.Tensor = held, label: torch.Tensor = label, size: int = size) -> None:
            for rows in torch.randperm(len(held)).split(size):
                scaling.to_model(held.index_select(0, rows)), label[rows]

        def ours(stream: Stream = stream, steps: int = number // size) -> None:
            for _ in range(steps):
                stream.next()

        found = in_turn({"ours": ours, "indexed": indexed, "selected": selected}, max(rounds, 15))
        cells = [f"{1e3 * median(found[key]):.1f}" for key in found]
        cells += [ratio(found["ours"], found[key]) for key in ("indexed", "selected")]
        print(f"| {name}, {number} of int16 | {' | '.join(cells)} |")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--files", type=int, default=400)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        warm(Path(folder), options.rounds)
        cases = [*made(Path(folder) / "files", options.files), *of_patients()]
        cold([ready(case, Path(folder) / str(number)) for number, case in enumerate(cases)], options.rounds)

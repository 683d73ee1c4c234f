"""Every image becomes an array of one size: in the right place, at the right scale, without aliasing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Orientation
from nibabel import orientations

from pipeline.config.data import CropConfig
from pipeline.config.loading import validate_experiment
from pipeline.core.errors import DataError
from pipeline.core.records import Record
from pipeline.data import ingest, prepare
from pipeline.data.batches.dataset import DataSet, open_dataset
from pipeline.data.cohort import split
from pipeline.data.geometry import Item, Placed, geometry
from pipeline.data.prepare import choose_scaling
from pipeline.data.resampling import AxisGrid, resample, resample_nearest
from pipeline.data.writers import DicomIds, SlicePlace, write_dicom, write_nifti, write_png

Prepared = Callable[..., tuple[DataSet, Record]]
RAS = np.eye(4)


def item(array: np.ndarray, affine: np.ndarray = RAS, **more: Any) -> Item:
    return Item("i.png", Placed(np.asarray(array, np.float32), affine), **more)


def fitted(data: Item, shape: tuple[int, ...], **options: Any) -> np.ndarray:
    return geometry(shape, **({"spacing": None, "crop": None, "fit": "pad"} | options))(data).image.array


@pytest.mark.parametrize("shape", [(24, 36), (12, 24, 18)])
def test_down_sampling_is_the_area_mean(shape: tuple[int, ...]) -> None:
    array = np.random.default_rng(0).normal(size=(1, *shape)).astype(np.float32)
    found = resample(array, [AxisGrid.whole(size, size // 6) for size in shape])
    target = tuple(size // 6 for size in shape)
    reference = torch.nn.functional.interpolate(torch.from_numpy(array)[None], target, mode="area")[0].numpy()
    np.testing.assert_allclose(found, reference, atol=1e-5)


def test_down_sampling_by_a_fraction_keeps_the_mean() -> None:
    array = np.array([[[1.0, 2.0, 3.0, 4.0, 5.0]]])  # 5 voxels as 2: (1 + 2 + 3/2) / 2.5 and (3/2 + 4 + 5) / 2.5
    found = resample(array, [AxisGrid.whole(1, 1), AxisGrid.whole(5, 2)])
    np.testing.assert_allclose(found, [[[1.8, 4.2]]], rtol=1e-6)


@pytest.mark.parametrize(("shape", "target"), [((5, 7), (8, 21)), ((4, 5, 6), (8, 5, 9))])
def test_up_sampling_is_linear(shape: tuple[int, ...], target: tuple[int, ...]) -> None:
    array = np.random.default_rng(0).normal(size=(1, *shape)).astype(np.float32)
    found = resample(array, [AxisGrid.whole(size, count) for size, count in zip(shape, target, strict=True)])
    mode = "bilinear" if len(shape) == 2 else "trilinear"
    reference = torch.nn.functional.interpolate(torch.from_numpy(array)[None], target, mode=mode)[0].numpy()
    np.testing.assert_allclose(found, reference, atol=1e-5)


def test_outside_is_zero_and_nearest_keeps_labels() -> None:
    labels = np.array([[[1, 2, 3]]], dtype=np.uint8)
    grids = [AxisGrid.whole(1, 1), AxisGrid(-1.0, 1.0, 5)]
    assert resample_nearest(labels, grids).tolist() == [[[0, 1, 2, 3, 0]]]
    assert resample(labels, grids).tolist() == [[[0, 1, 2, 3, 0]]]
    assert resample_nearest(labels, [AxisGrid.whole(1, 1), AxisGrid.whole(3, 6)]).tolist() == [[[1, 1, 2, 2, 3, 3]]]


def test_a_checkerboard_does_not_alias() -> None:
    board = np.indices((256, 256)).sum(axis=0)[None] % 2
    small = fitted(item(board), (32, 32))
    np.testing.assert_allclose(small, 0.5, atol=1e-6)


def test_a_slightly_smaller_image_is_padded_and_never_resampled() -> None:
    array = np.random.default_rng(0).integers(1, 255, (1, 28, 27)).astype(np.float32)
    out = geometry((32, 32), spacing=None, crop=None, fit="pad")(item(array))
    assert np.array_equal(out.image.array[:, 2:30, 2:29], array)
    assert float(out.image.array.sum()) == array.sum()
    np.testing.assert_allclose(out.image.affine[:2, 3], [-2, -2])
    half = fitted(item(array[:, :16, :16]), (32, 32))
    assert (half > 0).all()  # a much smaller one is enlarged


def test_pad_keeps_the_aspect_in_mm_and_stretch_does_not() -> None:
    array = np.ones((1, 40, 80))
    wide = fitted(item(array), (16, 16))
    assert wide[0, 4:12].min() == pytest.approx(1)
    assert wide[0, :4].max() == 0 == wide[0, 12:].max()
    tall_pixels = fitted(item(array, np.diag([2.0, 1.0, 1.0, 1.0])), (16, 16))  # 80 x 80 mm
    np.testing.assert_allclose(tall_pixels, 1, atol=1e-6)
    np.testing.assert_allclose(fitted(item(array), (16, 16), fit="stretch"), 1, atol=1e-6)


def test_volumes_are_turned_to_ras_with_their_masks() -> None:
    ras = np.zeros((1, 12, 12, 12), np.float32)
    ras[0, 1, 3, 8] = 1
    lps = np.ascontiguousarray(ras[:, ::-1, ::-1])
    affine = np.array([[-1.0, 0, 0, 11], [0, -1, 0, 11], [0, 0, 1, 0], [0, 0, 0, 1]])
    mask = Placed(lps.astype(np.uint8), affine)
    out = geometry((12, 12, 12), spacing=None, crop=None, fit="pad")(item(lps, affine, mask=mask))
    assert out.mask is not None
    assert np.argwhere(out.image.array[0]).tolist() == [[1, 3, 8]]
    assert np.argwhere(out.mask.array[0]).tolist() == [[1, 3, 8]]
    np.testing.assert_allclose(out.image.affine, np.eye(4))


@pytest.mark.parametrize("codes", ["LPS", "SRA", "PIR", "ASL"])
def test_volumes_are_turned_as_by_monai(codes: str) -> None:
    random = np.random.default_rng(0)
    array, affine = random.normal(size=(1, 4, 5, 6)).astype(np.float32), np.diag([0.7, 0.8, 2.5, 1.0])
    affine[:3, 3] = [3.0, -7.0, 11.0]
    turn = orientations.ornt_transform(orientations.io_orientation(affine), orientations.axcodes2ornt(tuple(codes)))
    given = orientations.apply_orientation(array[0], turn)[None]
    placed = affine @ orientations.inv_ornt_aff(turn, array.shape[1:])
    labels = (("L", "R"), ("P", "A"), ("I", "S"))
    image = MetaTensor(torch.from_numpy(given.copy()), affine=torch.from_numpy(placed))
    reference = Orientation(axcodes="RAS", labels=labels)(image)
    out = geometry(array.shape[1:], spacing=(0.7, 0.8, 2.5), crop=None, fit="stretch")(item(given, placed))
    np.testing.assert_array_equal(out.image.array, np.asarray(reference))
    np.testing.assert_array_equal(reference, array)
    np.testing.assert_allclose(out.image.affine, np.asarray(reference.affine), atol=1e-12)


def test_spacing_resamples_to_mm_a_voxel() -> None:
    array = np.random.default_rng(0).normal(size=(1, 20, 20)).astype(np.float32)
    crop = CropConfig(around="centre", size_mm=20)
    twice = fitted(item(array), (10, 10), spacing=(2.0, 2.0), crop=crop)
    np.testing.assert_allclose(twice, array.reshape(1, 10, 2, 10, 2).mean(axis=(2, 4)), atol=1e-5)


def test_crop_around_a_mask_is_centred_on_it_and_padded_outside() -> None:
    array = np.full((1, 40, 40), 5.0)
    mask = np.zeros((1, 40, 40), np.uint8)
    mask[0, 0:5, 20:27] = 1  # middle (2, 23)
    array[0, 2, 23] = 9
    crop = CropConfig(around="mask", size_mm=22)  # 11 pixels of 2 mm
    affine = np.diag([2.0, 2.0, 1.0, 1.0])
    whole = geometry((11, 11), spacing=None, crop=crop, fit="pad")(item(array, affine, mask=Placed(mask, affine)))
    image = whole.image.array[0]
    assert image[5, 5] == 9
    assert (image[:3] == 0).all()
    assert (image[3:] >= 5).all()
    np.testing.assert_allclose(whole.image.affine[:2, 3], [2 * (2 - 5), 2 * (23 - 5)])


def test_crop_around_a_point_finds_a_place_in_a_turned_volume() -> None:
    array = np.zeros((1, 30, 30, 30), np.float32)
    affine = np.array([[0, -1.0, 0, 40], [2.0, 0, 0, -7], [0, 0, 3.0, 5], [0, 0, 0, 1]])
    array[0, 12, 20, 9] = 1
    point = (affine @ [12, 20, 9, 1])[:3]
    crop = CropConfig(around="point", size_mm=9)
    out = geometry((9, 9, 9), spacing=None, crop=crop, fit="pad")(item(array, affine, point=tuple(point))).image.array
    assert np.unravel_index(out[0].argmax(), out[0].shape) == (4, 4, 4)


@pytest.mark.parametrize(
    ("around", "more", "expected"),
    [
        ("mask", {}, "has no mask"),
        ("mask", {"mask": Placed(np.zeros((1, 20, 20), np.uint8), RAS)}, "or an empty one"),
        ("mask", {"mask": Placed(np.ones((1, 10, 20), np.uint8), RAS)}, "10x20, 20x20"),
        ("point", {}, "has no point"),
        ("point", {"point": (30.0, 0.0, 0.0)}, "outside the image"),
    ],
)
def test_lesions_that_cannot_be_found_name_the_file(around: Any, more: dict[str, Any], expected: str) -> None:
    transform = geometry((8, 8), spacing=None, crop=CropConfig(around=around, size_mm=8), fit="pad")
    with pytest.raises(DataError) as error:
        transform(item(np.zeros((1, 20, 20)), **more))
    assert expected in str(error.value)
    assert "i.png" in str(error.value)


def test_a_mask_elsewhere_in_the_patient_is_refused() -> None:
    array = np.zeros((1, 9, 9, 9))
    moved = np.eye(4)
    moved[0, 3] = 3
    mask = Placed(np.ones((1, 9, 9, 9), np.uint8), moved)
    with pytest.raises(DataError, match="does not lie on the image's grid"):
        geometry((9, 9, 9), spacing=None, crop=None, fit="pad")(item(array, mask=mask))


def test_storage_follows_what_the_values_are() -> None:
    def chosen(values: list[str], window: Any = None) -> tuple[str, tuple[float, float], str]:
        scaling = choose_scaling(pd.Series(values), window)
        return scaling.dtype, scaling.window, scaling.unit

    assert chosen(["uint8"]) == ("uint8", (0, 255), "none")
    assert chosen(["HU"]) == ("int16", (-1000, 1000), "HU")
    assert chosen(["HU"], (-100.0, 240.0)) == ("int16", (-100, 240), "HU")
    assert chosen(["HU"], "image") == ("float16", (0, 1), "none")
    assert chosen(["uint8", "other"]) == ("float16", (0, 1), "none")
    assert chosen(["other"], (0.0, 4095.0)) == ("float32", (0, 4095), "none")


@pytest.fixture
def prepared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Prepared:
    """Runs ingest, split and prepare on `set/t.csv` below a temporary data folder."""
    monkeypatch.setenv("RADAUG_DATA", str(tmp_path))

    def make(between: Callable[[], None] = lambda: None, **data: Any) -> tuple[DataSet, Record]:
        plain = {"source": {"kind": "csv", "path": "set/t.csv"}, "classes": ["a", "b"], "positive": ["b"]}
        experiment = validate_experiment({"name": "t", "data": plain | {"spatial_size": 8} | data}, "t")
        places = {name: tmp_path / name for name in ("ingest", "split", "prepare")}
        for place in places.values():
            place.mkdir(exist_ok=True)
        ingest.run(ingest.ingest_config(experiment), {}, places["ingest"])
        split.run(split.split_config(experiment), places, places["split"])
        between()
        record = prepare.run(prepare.prepare_config(experiment), places, places["prepare"])
        record.save(places["prepare"])
        return open_dataset(places["prepare"]), record

    return make


def write_set(root: Path, write: Callable[[Path, np.ndarray, int], None], high: int, ending: str) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    images = [rng.integers(0, high, (16, 16)) for _ in range(12)]
    lines = [f"i{number}{ending},{'ab'[number % 2]},p{number}" for number in range(12)]
    (root / "set").mkdir()
    (root / "set" / "t.csv").write_text("\n".join(["path,label,patient_id", *lines]) + "\n")
    for number, image in enumerate(images):
        write(root / "set" / f"i{number}{ending}", image, number)
    return images


def quarters(images: list[np.ndarray]) -> np.ndarray:
    """Means over 2 x 2 pixels: 16 x 16 as 8 x 8."""
    return np.stack(images).reshape(-1, 1, 8, 2, 8, 2).mean(axis=(3, 5))


def test_pngs_are_stored_as_bytes_and_read_back(tmp_path: Path, prepared: Prepared) -> None:
    images = write_set(tmp_path, lambda path, image, _: write_png(path, image, (0, 255)), 256, ".png")
    dataset, record = prepared()
    assert dataset.images.dtype == np.uint8
    np.testing.assert_allclose(dataset.images, quarters(images), atol=0.51)
    rows = dataset.rows(["i3", "i0"])
    expected = quarters([images[3], images[0]]) / 127.5 - 1
    np.testing.assert_allclose(dataset.tensor(rows).numpy(), expected, atol=0.51 / 127.5)
    assert record.figures["images"] == 12
    assert list(dataset.manifest["spacing"]) == ["2x2"] * 12


def test_ct_goes_back_to_hu_after_a_window(tmp_path: Path, prepared: Prepared) -> None:
    def write(path: Path, image: np.ndarray, number: int) -> None:
        ids, place = DicomIds(f"p{number}"), SlicePlace((10.0, 20.0, 30.0))
        write_dicom(
            path, image - 500, unit="HU", spacing=(0.5, 0.5, 1), description="x", synthetic=False, ids=ids, place=place
        )  # fmt: skip

    images = write_set(tmp_path, write, 1000, ".dcm")
    dataset, _ = prepared(window=[-200, 300])
    assert dataset.images.dtype == np.int16
    expected = quarters([np.clip(image - 500, -200, 300) for image in images])
    np.testing.assert_allclose(dataset.images, expected, atol=0.51)
    back = dataset.scaling.to_physical(dataset.tensor(np.arange(12)).numpy())
    np.testing.assert_allclose(back, expected, atol=0.51)
    affine = np.array(dataset.manifest["affine"][0].split(), float).reshape(4, 4)
    # centre of the first 2 x 2 pixels: a quarter of a millimetre right and down of (10, 20, 30) LPS
    np.testing.assert_allclose(affine @ [0, 0, 0, 1], [-10.25, -20.25, 30, 1])


def test_images_of_odd_depth_are_scaled_by_their_own_percentiles(tmp_path: Path, prepared: Prepared) -> None:
    images = write_set(tmp_path, lambda path, image, _: np.save(path, image.astype(np.uint16)), 4000, ".npy")
    dataset, _ = prepared(fit="stretch")
    assert dataset.images.dtype == np.float16
    low, high = np.percentile(images[0], [0.5, 99.5])
    expected = quarters([np.clip((images[0] - low) / (high - low), 0, 1)])
    np.testing.assert_allclose(dataset.images[:1], expected, atol=1e-3)


def test_a_file_that_changed_since_ingest_is_refused(tmp_path: Path, prepared: Prepared) -> None:
    images = write_set(tmp_path, lambda path, image, _: write_png(path, image, (0, 255)), 256, ".png")

    def change() -> None:
        write_png(tmp_path / "set" / "i4.png", images[5], (0, 255))

    with pytest.raises(DataError, match=r"i4\.png: the file changed since ingest"):
        prepared(change)


def test_masks_go_through_the_same_geometry(tmp_path: Path, prepared: Prepared) -> None:
    rng = np.random.default_rng(0)
    lines = ["path,label,patient_id,lesion"]
    corners = []
    (tmp_path / "set").mkdir()
    for number in range(12):
        array, mask = rng.normal(100, 5, (20, 20, 20)), np.zeros((20, 20, 20))
        array[0, 0, 0] = -1000
        corner = rng.integers(4, 12, 3)
        mask[tuple(slice(start, start + 4) for start in corner)] = 1
        array[mask > 0] = 200
        write_nifti(tmp_path / "set" / f"i{number}.nii.gz", array)
        write_nifti(tmp_path / "set" / f"m{number}.nii.gz", mask)
        corners.append(corner)
        lines.append(f"i{number}.nii.gz,{'ab'[number % 2]},p{number},{'' if number == 11 else f'm{number}.nii.gz'}")
    (tmp_path / "set" / "t.csv").write_text("\n".join(lines) + "\n")
    source = {"kind": "csv", "path": "set/t.csv", "columns": {"mask": "lesion"}}
    dataset, _ = prepared(source=source, spatial_dims=3, spatial_size=20, window=[0, 250])
    masks = np.load(dataset.root / "masks.npy")
    assert masks.shape == dataset.images.shape
    assert masks.dtype == np.uint8
    assert masks[11].sum() == 0
    for image, mask in zip(dataset.images[:11], masks[:11], strict=True):
        assert mask.sum() == 64
        assert set(image[mask > 0]) == {200}
    # the writer's axes run to left and posterior, prepared ones to right and anterior
    assert np.argwhere(masks[0, 0]).min(axis=0).tolist() == [16 - corners[0][0], 16 - corners[0][1], corners[0][2]]


def test_pixels_taken_for_millimetres_are_said_so(tmp_path: Path, prepared: Prepared) -> None:
    write_set(tmp_path, lambda path, image, _: write_png(path, image, (0, 255)), 256, ".png")
    _, record = prepared(crop={"around": "centre", "size_mm": 8})
    assert record.notes == ("12 images do not state their pixel size: one pixel is taken as 1 mm.",)

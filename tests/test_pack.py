"""Release packs from phantoms of either kind: what is in them, what programs of other people say, and tampering."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import bagit
import nibabel as nib
import numpy as np
import pandas as pd
import pydicom
import pytest
from packs import CT, GREY, material, released, secrets
from PIL import Image
from safetensors import safe_open

from pipeline.core.errors import RefusedError, UserError
from pipeline.core.files import digest_file, read_json, write_json
from pipeline.data.synthetic_files import FileFormat
from pipeline.release.features import Features
from pipeline.release.material import Material, Wanted
from pipeline.release.pack import write_pack
from pipeline.release.verify import verify_pack

FLAT: tuple[FileFormat, ...] = ("png", "nifti", "dicom")


def packed(root: Path, *formats: FileFormat, made: Material | None = None, **wanted: Any) -> Path:
    write_pack(made or material(root), root / "pack", Wanted(formats or FLAT, **wanted))
    return root / "pack"


def test_every_image_is_there_in_every_format_with_its_provenance(tmp_path: Path) -> None:
    made = material(tmp_path)
    data = packed(tmp_path, made=made) / "data"
    table = pd.read_csv(data / "provenance.csv", dtype=str)
    assert table["sample_seed"].tolist() == ["7001", "7002", "7003", "7004"]
    assert set(table["truncation_psi"]) == {"1.0"} and table["label"].tolist() == ["normal"] * 2 + ["disease"] * 2
    assert set(table["weights_digest"]) == {digest_file(tmp_path / "gan" / "generator.safetensors")}
    for number, row in table.iterrows():
        pixels = made.synthetic.images[number, 0]
        assert (np.asarray(Image.open(data / row["png"])) == pixels).all()
        assert (pixels == np.asarray(nib.load(data / row["nifti"]).dataobj)[:, :, 0].T).all()
        dataset = pydicom.dcmread(data / row["dicom"])
        assert (dataset.pixel_array == pixels).all() and dataset[0x0008, 0x001C].value == "YES"
        assert row["sample_seed"] in dataset.ContributingEquipmentSequence[0].ContributionDescription


def test_a_ct_volume_is_a_series_in_hu(tmp_path: Path) -> None:
    made = material(tmp_path, (5, 6, 7), CT, uid_root="1.3.6.1.4.1.99999")
    pack = packed(tmp_path, "nifti", "dicom", made=made)
    table = pd.read_csv(pack / "data" / "provenance.csv", dtype=str)
    assert verify_pack(pack).images == 4
    for number, row in table.iterrows():
        volume = made.synthetic.images[number, 0]
        image = nib.load(pack / "data" / row["nifti"])
        assert (np.asarray(image.dataobj) == volume).all()
        np.testing.assert_allclose(nib.affines.voxel_sizes(image.affine), (0.7, 0.8, 2.5), atol=1e-6)
        slices = [pydicom.dcmread(path) for path in sorted((pack / "data" / row["dicom"]).iterdir())]
        hu = np.stack([one.pixel_array.astype(int) - 1024 for one in slices])  # [slice, row, column]
        assert (hu.transpose(2, 1, 0)[::-1, ::-1] == volume).all()
        assert all(one.SOPInstanceUID.startswith("1.3.6.1.4.1.99999.") for one in slices)


def test_the_generator_goes_alone_and_without_pickles(tmp_path: Path) -> None:
    pack = packed(tmp_path, "png", generator=True)
    files = sorted(path.name for path in (pack / "data" / "generator").iterdir())
    assert files == ["generator.safetensors", "model.json"]
    assert list(read_json(pack / "data" / "generator" / "model.json")["weights"]) == ["generator"]
    with safe_open(pack / "data" / "generator" / "generator.safetensors", "np") as weights:
        assert list(weights.keys()) == ["weight"]
    discriminator = digest_file(tmp_path / "gan" / "discriminator.safetensors")
    everything = b"".join(path.read_bytes() for path in pack.rglob("*") if path.is_file())
    assert discriminator.encode() not in everything
    assert {path.suffix for path in pack.rglob("*") if path.is_file()} == {".txt", ".md", ".json", ".csv", ".png",
                                                                          ".safetensors"}  # fmt: skip


def test_features_go_instead_of_images_and_belong_to_their_rows(tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(size=(4, 6)).astype(np.float32)
    made = material(tmp_path, features=Features(values, "a-network"))
    write_pack(made, tmp_path / "pack", Wanted(()))
    data = tmp_path / "pack" / "data"
    assert sorted(path.name for path in data.iterdir()) == [
        "README.md", "card.json", "croissant.json", "features.safetensors", "provenance.csv",
    ]  # fmt: skip
    with safe_open(data / "features.safetensors", "np") as held:
        assert held.metadata() == {"encoder": "a-network"} and (held.get_tensor("features") == values).all()
    assert "The images themselves are not in the pack" in (data / "README.md").read_text()
    with pytest.raises(RefusedError, match="has other images than provenance"):
        write_pack(replace(made, features=Features(values[:3], "x")), tmp_path / "other", Wanted(()))


def test_the_card_says_what_it_was_made_from_and_has_the_headings_of_the_opinion(tmp_path: Path) -> None:
    made = material(tmp_path, license="CC-BY-4.0")
    weights = digest_file(tmp_path / "gan" / "generator.safetensors")
    certificate = {"epsilon": 9.5, "unit": "patient", "outside": ["tuning"], "weights": {"generator": weights}}
    write_json(tmp_path / "gan" / "certificate.json", certificate)
    data = packed(tmp_path, "png", made=made) / "data"
    card, page = read_json(data / "card.json"), (data / "README.md").read_text()
    assert card["made_from"] == {"train_images": 80, "train_patients": 60, "unseen_patients": 60}
    assert card["images"]["by_class"] == {"normal": 2, "disease": 2}
    assert card["differential_privacy"]["epsilon"] == 9.5 and "| epsilon | 9.5 |" in page
    assert read_json(data / "certificate.json") == certificate and "Outside:\n\n- tuning\n" in page
    headings = ("Extraction", "Inference by queries", "Each data subject", "Means reasonably likely to be used",
                "Documentation")  # fmt: skip
    places = [page.index(f"### {one}\n") for one in headings]
    assert places == sorted(places) and "CC-BY-4.0" in page and "for research only" in page.lower()
    assert "distance: AUROC 0.510 by patient" in card["anonymity_assessment"]["inference by queries"]
    assert (
        "strong noise; shadow generators; turns" in card["anonymity_assessment"]["means reasonably likely to be used"]
    )
    tried = replace(made, decision=released("distance", "match", "lira"))
    means = read_json(packed(tmp_path / "b", "png", made=tried) / "data" / "card.json")["anonymity_assessment"]
    assert "noise" not in means["means reasonably likely to be used"]


def test_a_certificate_of_other_weights_is_refused(tmp_path: Path) -> None:
    made = material(tmp_path)
    write_json(tmp_path / "gan" / "certificate.json", {"epsilon": 1.0, "weights": {"generator": "ab" * 32}})
    with pytest.raises(RefusedError, match="of other weights than the generator's"):
        packed(tmp_path, "png", made=made)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["gan", "synthetic"]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_mlcroissant_takes_the_metadata_and_reads_the_images(tmp_path: Path) -> None:
    mlcroissant = pytest.importorskip("mlcroissant", reason="mlcroissant is not installed")
    data = packed(tmp_path, made=material(tmp_path, license="https://spdx.org/licenses/CC-BY-4.0")) / "data"
    found = mlcroissant.Dataset(jsonld=data / "croissant.json")
    issues = found.metadata.ctx.issues
    assert not issues.errors and not issues.warnings
    assert found.metadata.data_limitations and found.metadata.data_use_cases
    assert found.metadata.personal_sensitive_information and found.metadata.data_collection
    rows = list(found.records("images"))
    assert [row["images/sample_seed"] for row in rows] == [b"7001", b"7002", b"7003", b"7004"]


def test_the_bag_is_valid_to_bagit_and_the_same_material_gives_the_same_pack(tmp_path: Path) -> None:
    first = packed(tmp_path / "a", today="2031-05-06")
    assert bagit.Bag(str(first)).is_valid()
    second = packed(tmp_path / "b", today="2031-05-06")
    assert digest_file(first / "manifest-sha256.txt") == digest_file(second / "manifest-sha256.txt")


def test_what_is_there_is_not_written_over(tmp_path: Path) -> None:
    pack = packed(tmp_path, "png")
    with pytest.raises(UserError, match="is there already"):
        packed(tmp_path, "png", made=material(tmp_path))
    assert verify_pack(pack).images == 4
    assert not list(tmp_path.glob(".*"))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return packed(tmp_path_factory.mktemp("whole"), generator=True)


@pytest.fixture(scope="module")
def another(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("another")
    made = material(root)
    return packed(root, made=replace(made, rows=np.array([0, 2])), generator=True)


@pytest.fixture
def pack(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "pack"))


def made_anew(pack: Path) -> None:
    """Make the bag's digests anew, as somebody who swaps files would."""
    for path in pack.glob("*manifest-sha256.txt"):
        path.unlink()
    payload = sorted(path for path in (pack / "data").rglob("*") if path.is_file())
    lines = [f"{digest_file(path)}  {path.relative_to(pack).as_posix()}\n" for path in payload]
    (pack / "manifest-sha256.txt").write_text("".join(lines))
    info = pack / "bag-info.txt"
    size = sum(path.stat().st_size for path in payload)
    kept = [line for line in info.read_text().splitlines() if not line.startswith("Payload-Oxum")]
    info.write_text("\n".join([*kept, f"Payload-Oxum: {size}.{len(payload)}"]) + "\n")
    tags = sorted(path for path in pack.iterdir() if path.is_file())
    lines = [f"{digest_file(path)} {path.name}\n" for path in tags]
    (pack / "tagmanifest-sha256.txt").write_text("".join(lines))
    assert bagit.Bag(str(pack)).is_valid()


def refusal(pack: Path) -> str:
    with pytest.raises(RefusedError) as error:
        verify_pack(pack)
    return str(error.value)


def test_one_changed_byte_of_any_file_is_seen(whole: Path, tmp_path: Path) -> None:
    names = [path.relative_to(whole) for path in sorted(whole.rglob("*")) if path.is_file()]
    assert len(names) == 4 * 3 + 2 + 4 + 4  # images, generator, card, README, Croissant and provenance, the bag's own
    for name in names:
        pack = Path(shutil.copytree(whole, tmp_path / "pack"))
        content = bytearray((pack / name).read_bytes())
        content[len(content) // 2] ^= 1
        (pack / name).write_bytes(content)
        with pytest.raises((RefusedError, UserError)):
            verify_pack(pack)
        shutil.rmtree(pack)


@pytest.mark.parametrize("name", ["more.txt", "data/more.txt", "data/images/png/normal/one.png", "more/x.txt"])
def test_one_file_more_is_seen(pack: Path, name: str) -> None:
    (pack / name).parent.mkdir(exist_ok=True)
    (pack / name).write_bytes(b"x")
    assert f"{name}: does not belong to the pack" in refusal(pack)


def test_a_missing_image_is_seen(pack: Path) -> None:
    (pack / "data" / "images" / "png" / "normal" / "synthetic-normal-00000.png").unlink()
    assert "synthetic-normal-00000.png" in refusal(pack)
    made_anew(pack)
    assert "is in the card and not there" in refusal(pack)


def test_a_link_is_seen(pack: Path) -> None:
    path = pack / "data" / "README.md"
    moved = path.rename(pack.parent / "elsewhere.md")
    path.symlink_to(moved)
    assert "README.md: is a link" in refusal(pack)


def test_a_swapped_card_is_seen_though_the_bag_was_made_anew(pack: Path, another: Path) -> None:
    shutil.copy(another / "data" / "card.json", pack / "data" / "card.json")
    assert "card.json" in refusal(pack)
    made_anew(pack)
    assert "card.json: is not the one that the bag was made with" in refusal(pack)
    lines = (pack / "bag-info.txt").read_text().splitlines()
    digest = digest_file(pack / "data" / "card.json")
    lines = [f"Card-SHA256: {digest}" if line.startswith("Card-SHA256") else line for line in lines]
    (pack / "bag-info.txt").write_text("\n".join(lines) + "\n")
    made_anew(pack)
    assert "is not in the card" in refusal(pack)


def test_swapped_weights_are_seen_though_the_bag_was_made_anew(pack: Path) -> None:
    shutil.copy(pack / "data" / "card.json", pack / "data" / "generator" / "generator.safetensors")
    assert "generator.safetensors" in refusal(pack)
    made_anew(pack)
    said = refusal(pack)
    assert "generator/generator.safetensors: is not the file of this card" in said
    assert "are not the weights that made the images" in said


def test_a_dicom_file_without_its_marks_is_seen_though_all_digests_were_made_anew(pack: Path) -> None:
    path = pack / "data" / "images" / "dicom" / "normal" / "synthetic-normal-00000.dcm"
    dataset = pydicom.dcmread(path)
    dataset.SyntheticData, dataset.PatientID = "NO", "12345"
    dataset.save_as(path)
    card = read_json(pack / "data" / "card.json")
    card["digests"]["images/dicom/normal/synthetic-normal-00000.dcm"] = digest_file(path)
    write_json(pack / "data" / "card.json", card)
    info = (pack / "bag-info.txt").read_text()
    old = next(line for line in info.splitlines() if line.startswith("Card-SHA256"))
    (pack / "bag-info.txt").write_text(info.replace(old, f"Card-SHA256: {digest_file(pack / 'data' / 'card.json')}"))
    made_anew(pack)
    said = refusal(pack)
    assert "Synthetic Data is not YES" in said and "Patient ID is not a synthetic one" in said and "12345" not in said


def test_what_is_no_pack_is_said_to_be_none(tmp_path: Path) -> None:
    for place in (tmp_path, tmp_path / "absent"):
        with pytest.raises(UserError, match="is no release pack"):
            verify_pack(place)


@pytest.mark.parametrize(("shape", "scaling"), [((12, 10), GREY), ((5, 6, 7), CT)])
def test_a_planted_id_leaves_nothing_behind(tmp_path: Path, shape: tuple[int, ...], scaling: Any) -> None:
    made = material(tmp_path, shape, scaling, license="by P-00417, 2031", secrets=secrets(patient_id=["P-00417"]))
    with pytest.raises(RefusedError, match="would hold something of the source") as error:
        write_pack(made, tmp_path / "pack", Wanted(("nifti",)))
    assert "P-00417" not in str(error.value) and "patient_id" in str(error.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["gan", "synthetic"]

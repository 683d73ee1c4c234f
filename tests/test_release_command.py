"""`radaug release` and `radaug verify` on a finished run: the gate, the audited set, near copies, what is refused."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from audits import fresh
from noise_data import noise_images
from packs import released_run

from flows.cli import launch
from flows.release import release_run
from pipeline.core.errors import RefusedError, UserError
from pipeline.core.files import digest_tree, read_json
from pipeline.core.records import load_record


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return released_run(tmp_path_factory.mktemp("finished"))


@pytest.fixture
def run_dir(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "run"))


SYNTHETIC = "stages/synthesise-fold-0-gan-0"


def refused(run_dir: Path, out: Path, *words: str) -> int:
    """The exit code; nothing may be beside the run then."""
    before = sorted(path.name for path in out.parent.iterdir())
    code = launch(["release", str(run_dir), "--out", str(out), *words])
    assert sorted(path.name for path in out.parent.iterdir()) == before
    return code


def test_a_released_run_becomes_a_pack_that_verifies(
    run_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pack = tmp_path / "pack"
    assert launch(["release", str(run_dir), "--out", str(pack), "--num-images", "5", "--format", "png", "dicom"]) == 0
    told = capsys.readouterr().out
    assert launch(["verify", str(pack)]) == 0
    said = capsys.readouterr().out
    digest = told.split("Its digest is ")[1][:64]
    assert "10 synthetic images" in told and digest in said
    card = read_json(pack / "data" / "card.json")
    assert card["audit"]["decision"] == "release" and card["images"]["by_class"] == {"normal": 5, "disease": 5}
    assert card["made_from"] == {"train_images": 150, "train_patients": 150, "unseen_patients": 150}
    table = pd.read_csv(pack / "data" / "provenance.csv", dtype=str)
    assert table["sample_seed"].tolist() == [str(7001 + number) for number in (*range(5), *range(100, 105))]
    assert card["leak_scan"]["anywhere"] >= 300 and not list(pack.glob("data/generator"))

    (pack / "data" / "README.md").write_text("swapped")
    assert launch(["verify", str(pack)]) == 3 and "README.md" in capsys.readouterr().err
    assert launch(["verify", str(tmp_path)]) == 2


def test_a_run_that_is_not_released_leaves_nothing(
    run_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for place in (run_dir / "stages").glob("attack-*"):
        shutil.rmtree(place)
    assert refused(run_dir, tmp_path / "pack") == 3
    said = capsys.readouterr().err
    assert "the release verdict is not_audited" in said and "These attacks were not made" in said


def swap_images(run_dir: Path) -> None:
    np.save(run_dir / SYNTHETIC / "images.npy", fresh(200, seed=5))


def make_again(run_dir: Path) -> None:
    place = run_dir / SYNTHETIC
    swap_images(run_dir)
    outputs = {name: found for name, found in digest_tree(place).items() if name != "record.json"}
    replace(load_record(place), digest="later", outputs=outputs).save(place)


def lose(run_dir: Path) -> None:
    (run_dir / SYNTHETIC / "manifest.csv").unlink()


@pytest.mark.parametrize("change", [swap_images, make_again, lose])
def test_other_images_than_the_audited_ones_are_refused(
    run_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], change: Callable[[Path], None]
) -> None:
    change(run_dir)
    assert refused(run_dir, tmp_path / "pack") == 3
    assert "are not those that were audited" in capsys.readouterr().err


def test_near_copies_by_chance_are_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One image lies at a fifth of what unseen images keep from a training image, another at 0.3 from an unseen one."""
    made, real = fresh(200), noise_images(300)
    random = np.random.default_rng(0)
    for row, origin, sd in ((10, 7, 8.0), (21, 297, 12.5)):  # unseen images keep about 42 grey levels
        made[row] = (real[origin] + sd * random.standard_normal(made[row].shape)).clip(0, 255)
    run, pack = released_run(tmp_path / "study", made), tmp_path / "pack"
    assert launch(["audit", str(run)]) == 0
    capsys.readouterr()
    assert launch(["release", str(run), "--out", str(pack)]) == 0
    said = capsys.readouterr().out
    assert "199 synthetic images" in said and "1 more were left out" in said
    copies = read_json(pack / "data" / "card.json")["audit"]["near_copies"]
    assert (copies["left_out"], copies["images"]) == (1, 200)
    assert "7011" not in pd.read_csv(pack / "data" / "provenance.csv", dtype=str)["sample_seed"].tolist()


def test_a_near_copy_that_the_audit_did_not_look_at_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The audit draws 500 images of a larger set; the pack looks at every one that it would hold."""
    run = released_run(tmp_path / "study", fresh(520))
    looked_at = pd.read_csv(tmp_path / "study" / "audit" / "privacy" / "memorisation.csv")["image_id"]
    row = next(number for number in range(520) if f"s{number}" not in set(looked_at))
    place = run / SYNTHETIC
    images = np.load(place / "images.npy")
    images[row] = np.load(run / "stages" / "prepare" / "images.npy")[7][..., ::-1]  # a training image, mirrored
    np.save(place / "images.npy", images)
    outputs = {name: found for name, found in digest_tree(place).items() if name != "record.json"}
    replace(load_record(place), outputs=outputs).save(place)
    assert launch(["audit", str(run)]) == 0
    capsys.readouterr()
    assert refused(run, tmp_path / "pack") == 3
    assert "1 of its 520 images are copies" in capsys.readouterr().err
    before = row % 260
    if before:
        assert launch(["release", str(run), "--out", str(tmp_path / "pack"), "--num-images", str(before)]) == 0


@pytest.mark.parametrize("planted", ["licence of image-17", "see p149", "ward/labels.csv"])
def test_something_of_the_source_in_the_pack_is_refused(
    run_dir: Path, tmp_path: Path, planted: str, capsys: pytest.CaptureFixture[str]
) -> None:
    config = yaml.safe_load((run_dir / "config.yaml").read_text())
    config["release"]["license"] = planted
    (run_dir / "config.yaml").write_text(yaml.safe_dump(config))
    assert refused(run_dir, tmp_path / "pack", "--num-images", "2") == 3
    assert "would hold something of the source" in capsys.readouterr().err


def test_the_generator_leaves_only_where_somebody_who_holds_it_attacked(run_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(RefusedError, match=r"none by one who holds the generator. Name latent-inversion"):
        release_run(run_dir, tmp_path / "pack", with_generator=True)
    with pytest.raises(RefusedError, match="no attack looked at the features"):
        release_run(run_dir, tmp_path / "pack", representation=True)
    assert not (tmp_path / "pack").exists()


def test_what_cannot_be_given_is_said(run_dir: Path, tmp_path: Path) -> None:
    for asked in (0, 101):
        with pytest.raises(UserError, match="from 1 to 100 images of each class were made and audited"):
            release_run(run_dir, tmp_path / "pack", num_images=asked)
    (tmp_path / "pack").mkdir()
    with pytest.raises(UserError, match="is there already"):
        release_run(run_dir, tmp_path / "pack")

"""The report on what classifiers look at: which images and arms, and that nobody else gets to see them."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from fake_run import ARMS, Case, build, leave_out_curves, with_maps
from PIL import Image

from pipeline.report import attention, pictures
from pipeline.report.attention import attention_picture
from pipeline.report.reading import read_run


@pytest.mark.parametrize("dims", [2, 3])
def test_maps_of_each_arm_are_shown(tmp_path: Path, dims: int) -> None:
    picture = attention_picture(read_run(with_maps(tmp_path / "run", Case(spatial_dims=dims))))
    assert picture is not None and "8 test images with heat maps of 3 arms" in picture.alt
    assert "mean over 2 classifiers an arm" in picture.caption and "of 12 test images the 4 on which" in picture.caption
    with Image.open(io.BytesIO(picture.png)) as shown:
        assert shown.height > shown.width > 600 and shown.mode == "RGB"  # eight rows of four, in colours


def test_maps_are_never_shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = read_run(with_maps(tmp_path / "run", Case()))
    leave_out_curves(monkeypatch)
    assert "attention" in pictures.all_pictures(run, shareable=False)
    assert pictures.all_pictures(run, shareable=True) == {}


def test_images_on_which_arms_differ_most_are_those_of_the_largest_gap(tmp_path: Path) -> None:
    run = read_run(with_maps(tmp_path / "run", Case()))
    found = attention._read(run)
    assert found is not None
    by_lot, differing = attention._chosen(run, found, attention._own_class_scores(run), (ARMS[1], ARMS[2]))
    assert len(by_lot) == 4 and by_lot["label"].nunique() == 3
    test = run.predictions[(run.predictions["fold"] == "0") & run.predictions["image_id"].isin(found.table["image_id"])]
    own = [row[f"score_{row['label']}"] for row in test.to_dict("records")]
    means = test.assign(own=own).groupby(["image_id", "arm"])["own"].mean().unstack()
    gap = (means[ARMS[2]] - means[ARMS[1]]).abs().drop(by_lot["image_id"])
    assert differing["image_id"].tolist() == gap.sort_values(ascending=False).index[:4].tolist()


def test_a_run_without_maps_has_no_such_picture(tmp_path: Path) -> None:
    assert attention_picture(read_run(build(tmp_path / "run", Case()))) is None

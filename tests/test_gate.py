"""The gate before the utility verdict: planted failures are caught; where generators pass, the rule is untouched."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from test_quality import measured, stage_config
from test_verdict_rule import AUGMENTED, REFERENCE, simulate
from torch.nn.functional import interpolate

from flows.cli import print_verdicts
from pipeline.config.experiment import ClassifierConfig, VerdictConfig
from pipeline.core.metrics import MetricRow, as_text, read_metrics, write_metrics
from pipeline.core.records import Record
from pipeline.measures.twins import low_resolution, near_distance, twins
from pipeline.nets.extractors import EffNetLite0
from pipeline.quality import measure
from pipeline.quality.ceiling import worthless_images
from pipeline.quality.measure import NOT_NOISE
from pipeline.report.words import utility_statement
from pipeline.verdict import VerdictPlan, decide, stage
from pipeline.verdict.gate import UNSEEN, Look, gated, look_at, looks_of
from pipeline.verdict.rule import Verdict

PLAN = VerdictPlan(positive=("disease",), bootstrap=200)
ENDS = {"kid_floor": 0.02, "kid_blank": 0.62, "kid_shuffled": 0.9}


def rows(label: str = "all", validation: int = 40, gan_seed: str = "0", **figures: float) -> list[MetricRow]:
    """Rows of the quality stage's table; a figure is known to 0.03 on either side."""
    key = {"stage": "quality", "fold": "0", "gan_seed": gan_seed, "label": label, "detail": "effnet; 90:600"}
    return [
        MetricRow(
            **key, metric=name, value=as_text(value), ci_low=as_text(value - 0.03), ci_high=as_text(value + 0.03),
            n_images=str(validation if name == "kid_floor" else 600),
        )
        for name, value in figures.items()
    ]  # fmt: skip


def fine(**more: Any) -> list[MetricRow]:
    return rows(**({"kid": 0.12, "repeats": 0.02} | ENDS | more))


# One generator


def test_the_place_is_the_share_of_the_way_from_validation_images_to_the_nearer_ceiling() -> None:
    """By hand: (0.32 - 0.02) / (0.62 - 0.02) = 0.5, which is allowed; 0.03 more is 0.55."""
    allowed, failed = (look_at(rows(kid=kid, repeats=0.0, **ENDS), "0", "0") for kid in (0.32, 0.35))
    assert allowed.place == pytest.approx(0.5) and allowed.state == "passed" and allowed.why == ""
    assert failed.place == pytest.approx(0.55) and failed.state == "failed"
    for said in ("nearer to blank or shuffled images", "350", "real validation images 20", "620", "55 % of the way"):
        assert said in failed.why


def test_one_class_that_failed_is_a_generator_that_failed() -> None:
    figures = [*fine(), *rows("cyst", 8, kid=0.1, **ENDS), *rows("metastasis", 9, kid=0.5, **ENDS)]
    found = look_at(figures, "0", "0")
    assert (found.state, found.label) == ("failed", "metastasis") and found.place == pytest.approx(0.8)
    assert "its images of the class metastasis" in found.why
    few = [*fine(), *rows("metastasis", 4, kid=0.5, **ENDS)]
    assert look_at(few, "0", "0").state == "passed", "a class with four validation images is not judged alone"


def test_a_collapse_is_seen_by_its_repeats_though_its_images_are_good() -> None:
    figures = [*fine(), *rows("cyst", 8, kid=0.1, repeats=0.97, **ENDS)]
    found = look_at(figures, "0", "0")
    assert found.state == "failed" and "97 % of its images of the class cyst nearly equal another one" in found.why


@pytest.mark.parametrize(
    ("figures", "said"),
    [
        (fine(validation=9), "there are 9 validation images, and below 10"),
        (rows(kid=0.12, kid_blank=0.6), "there are 0 validation images"),
        (fine(kid_blank=0.14, kid_shuffled=0.2), "are not told from blank or shuffled ones surely enough"),
        ([replace(rows(fid=0.0)[0], detail=f"{NOT_NOISE}: cyclegan changes real images")], "cyclegan changes"),
        (fine(gan_seed="1"), "its images were not measured"),
    ],
)
def test_what_cannot_be_judged_does_not_pass_in_silence(figures: list[MetricRow], said: str) -> None:
    found = look_at(figures, "0", "0")
    assert found.state == "not judged" and said in found.why


def test_a_place_is_known_where_the_floors_interval_is_a_quarter_of_the_way_at_most() -> None:
    """By hand: the floor is known to 0.03 on either side, and a quarter of 0.13 is 0.0325, of 0.11 0.0275."""
    wide, narrow = (look_at(fine(kid_blank=ceiling, kid=0.03), "0", "0") for ceiling in (0.15, 0.13))
    assert wide.state == "passed" and narrow.state == "not judged"


def test_a_collapse_is_seen_without_validation_images() -> None:
    assert look_at(fine(validation=0, repeats=0.9), "0", "0").state == "failed"


# The verdict

PASSED, FAILED = Look("0", "0", "passed", place=0.2), Look("0", "0", "failed", "they are grain", place=0.9)
NOT_JUDGED = Look("0", "0", "not judged", "there are 6 validation images")


def verdict(decision: str) -> Verdict:
    return Verdict(decision, ("The difference is +0.1 points.", "More."), {"arm": AUGMENTED, "difference": 0.001})


@pytest.mark.parametrize("gain", [-1.4, 0.0, 0.3, 2.5])
@pytest.mark.parametrize("patients", [30, 400])
def test_where_the_generators_pass_the_rule_is_untouched(gain: float, patients: int) -> None:
    table = simulate({REFERENCE: 0.0, AUGMENTED: gain}, patients=patients, fit_sd=0.02)
    alone = decide(table, PLAN)
    found = gated(alone, looks_of(alone, table.assign(gan_seed="0"), fine()))
    assert found.evidence["generators"]["state"] == "passed"
    assert (found.decision, found.reasons) == (alone.decision, alone.reasons)
    assert {name: value for name, value in found.evidence.items() if name != "generators"} == alone.evidence


@pytest.mark.parametrize("decision", ["no_benefit", "harms", "inconclusive"])
def test_a_generator_that_failed_says_nothing_about_gan_augmentation(decision: str) -> None:
    found = gated(verdict(decision), [FAILED])
    assert found.decision == "inconclusive"
    assert found.reasons[0] == "The generator failed: they are grain, so this says nothing about GAN augmentation."
    assert found.reasons[1:] == verdict(decision).reasons
    assert found.evidence["generators"]["decision_without_gate"] == decision
    assert found.evidence["generators"]["looks"][0]["place"] == 0.9
    shown = utility_statement(json.loads(json.dumps(found.as_json())))
    assert shown.title == "Inconclusive: the generator failed" and shown.tone == "caution"


def test_where_the_site_stayed_the_mend_is_named() -> None:
    still = replace(FAILED, place=None, site_left=0.9, why="its translations are hardly called another site")
    reason = gated(verdict("no_benefit"), [still]).reasons[0]
    assert "gan.patch_halvings" in reason and "gan.semantic: 0" in reason
    lost = replace(still, site_left=0.1, class_lost=0.9)
    assert "gan.patch_halvings" not in gated(verdict("no_benefit"), [lost]).reasons[0]


def test_a_gain_over_every_control_needs_no_good_images_and_the_reasons_say_so() -> None:
    found = gated(verdict("helps"), [FAILED])
    assert found.decision == "helps" and found.reasons[:2] == verdict("helps").reasons
    assert (
        found.reasons[2].startswith("The generator failed: they are grain")
        and "look at the samples" in found.reasons[2]
    )


def test_one_of_several_that_failed_is_named() -> None:
    other = replace(FAILED, fold="2", gan_seed="1")
    found = gated(verdict("no_benefit"), [PASSED, other, NOT_JUDGED])
    assert found.decision == "inconclusive"
    assert found.reasons[0].startswith("1 of 3 generators failed, the worst (fold 2, GAN seed 1) since they are grain")


def test_no_benefit_of_a_generator_that_was_not_judged_says_so_first() -> None:
    found = gated(verdict("no_benefit"), [NOT_JUDGED])
    assert found.decision == "no_benefit" and "could not be judged: there are 6 validation images" in found.reasons[0]
    assert utility_statement(found.as_json()).title == "No benefit seen, but the generator was not judged"
    assert gated(verdict("harms"), [NOT_JUDGED]).reasons[-1] == found.reasons[0]
    unseen = gated(verdict("no_benefit"), [])
    assert unseen.reasons[0] == UNSEEN and unseen.decision == "no_benefit"
    nothing = Verdict("inconclusive", ("Nothing was compared.",), {})
    assert gated(nothing, []) == nothing


def test_the_run_says_it_in_its_files_and_on_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The case that was seen: a null with a generator whose images are like woven cloth, and a firm `no_benefit`."""
    table = simulate({REFERENCE: 0.0, AUGMENTED: 0.0}, patients=200, seeds=6, fit_sd=0.01)
    table.loc[table["arm"] == AUGMENTED, "gan_seed"] = "0"
    places = {name: tmp_path / name for name in ("split", "downstream-fold-0-gan-0", "quality-fold-0-gan-0", "verdict")}
    for name, place in places.items():
        place.mkdir()
        kind, *at = name.split("-fold-")
        Record(kind=kind, **({"fold": 0, "gan_seed": 0} if at else {})).save(place)
    facts = table.drop_duplicates("image_id")[["image_id", "patient_id", "label", "split"]]
    facts.assign(pixel_digest=facts["image_id"]).to_csv(places["split"] / "manifest.csv", index=False)
    facts[["image_id", "split"]].assign(fold="0").to_csv(places["split"] / "splits.csv", index=False)
    table.to_csv(places["downstream-fold-0-gan-0"] / "predictions.csv", index=False)
    config = stage.VerdictStageConfig(
        verdict=VerdictConfig(bootstrap=200, margin=0.05), classes=("normal", "disease"), positive=("disease",), seed=0
    )
    decisions = {}
    for name, kid in (("healthy", 0.12), ("woven", 0.4)):
        write_metrics(places["quality-fold-0-gan-0"], fine(kid=kid))
        stage.run(config, {key: path for key, path in places.items() if key != "verdict"}, places["verdict"])
        found = json.loads((places["verdict"] / "verdict.json").read_text())
        decisions[name] = found["utility"]["decision"]
    assert decisions == {"healthy": "no_benefit", "woven": "inconclusive"}
    print_verdicts(found)
    assert capsys.readouterr().out.startswith("Utility: inconclusive. The generator failed: its images lie nearer to ")
    assert found["utility"]["evidence"]["generators"]["looks"][0]["ceiling"] == 0.62


# Planted generators, through the stage that measures


def fields(seed: int, num: int, side: int = 12) -> np.ndarray:
    """Smooth random images [num, 1, side, side] of two classes in turn, the second one brighter."""
    coarse = torch.rand(num, 1, 4, 4, generator=torch.Generator().manual_seed(seed))
    smooth = interpolate(coarse, (side, side), mode="bicubic", align_corners=False).clamp(0, 1).numpy()
    return (155 * smooth + 100 * (np.arange(num) % 2).reshape(-1, 1, 1, 1)).astype(np.uint8)


def planted(kind: str) -> np.ndarray:
    good = fields(1, 40)
    order = np.random.default_rng(0).permutation(144)
    flicker = np.random.default_rng(1).integers(0, 5, good.shape).astype(np.uint8)
    return {
        "fresh": good,
        "blank": np.full_like(good, 127),
        "shuffled": good.reshape(40, -1)[:, order].reshape(good.shape),
        "one image a class": good[:2][np.arange(40) % 2] + flicker,
        "three images a class": good[:6][np.arange(40) % 6] + flicker,
        "grain": np.random.default_rng(2).integers(0, 255, good.shape).astype(np.uint8),
    }[kind]


class Remembering(EffNetLite0):
    """Features of an image are computed once: all cases have the same real images."""

    seen: ClassVar[dict[bytes, torch.Tensor]] = {}

    def extract(self, images: torch.Tensor, batch_size: int = 16) -> torch.Tensor:
        keys = [image.numpy().tobytes() for image in images]
        new = [number for number, key in enumerate(keys) if key not in self.seen]
        self.seen.update(zip([keys[number] for number in new], super().extract(images[new], batch_size), strict=True))
        return torch.stack([self.seen[key] for key in keys])


@pytest.mark.parametrize(
    ("kind", "state"),
    [
        ("fresh", "passed"), ("blank", "failed"), ("shuffled", "failed"), ("one image a class", "failed"),
        ("three images a class", "failed"), ("grain", "failed"),
    ],
)  # fmt: skip
def test_planted_generators(
    noise_inputs: Callable[..., dict[str, Path]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    state: str,
) -> None:
    monkeypatch.setattr(measure, "EffNetLite0", Remembering)
    inputs = noise_inputs(num=80)
    np.save(inputs["prepare"] / "images.npy", fields(0, 80))
    unread = {"classifier": ClassifierConfig(batch_size=4, steps=1)}  # the gate asks no classifier
    measured(inputs, tmp_path, planted(kind), stage_config().model_copy(update=unread))
    found = look_at(read_metrics(tmp_path / "quality"), "0", "0")
    assert found.state == state, found
    assert found.validation == 20


def test_worthless_images_keep_nothing_but_the_grey_values() -> None:
    images = torch.arange(2 * 16, dtype=torch.float32).view(2, 1, 4, 4)
    made = worthless_images(images, seed=0)
    assert made["blank"].shape == (3, 1, 4, 4) and (made["blank"] == 15.5).all()
    shuffled = made["shuffled"].flatten(1)
    assert (shuffled.sort().values == images.flatten(1)).all() and not (shuffled == images.flatten(1)).all()
    assert (shuffled[1] - shuffled[0] == 16).all(), "one order for all images"


def test_twins_are_nearer_than_a_quarter_of_what_real_images_are() -> None:
    """Real images at 0, 4, 8: the nearest is 4 away, so twins are nearer than 1."""
    real = low_resolution(torch.tensor([0.0, 4.0, 8.0]).view(3, 1, 1, 1))
    near = near_distance(real)
    assert near == 1.0
    assert twins(torch.tensor([[0.0], [0.9], [5.0], [6.0]]).double(), near).tolist() == [True, True, False, False]

"""Progress lines, and the cost and power that `validate` prints."""

from __future__ import annotations

import logging
from pathlib import Path

import pandas as pd
import pytest

from pipeline.adversarial import gan_cost
from pipeline.adversarial.semantics import FrozenJudge
from pipeline.config.experiment import Experiment
from pipeline.config.families import validate_gan
from pipeline.config.loading import load_experiment
from pipeline.core import progress
from pipeline.core.errors import DataError
from pipeline.measures.resampling import Estimate
from pipeline.supervised import classifier_cost
from pipeline.verdict.power import (
    expectation,
    patients_a_side,
    patients_needed,
    shown_difference,
    sides_tested,
    smallest_differences,
)


@pytest.fixture
def demo() -> Experiment:
    return load_experiment(Path(__file__).resolve().parents[1] / "configs" / "demo.yaml", ["compute.precision=float32"])


def test_progress_says_how_far_how_fast_and_how_long(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    caplog.set_level(logging.INFO, logger="radaug.progress")
    line = progress.Progress("work", 1000, "images", done=200)
    for seconds, done in ((1, 210), (4, 300), (5, 400)):
        now[0] = 100.0 + seconds
        line.update(done)
    slow = progress.Progress("fits", 3, "fits")
    now[0] += 20
    slow.update(2)
    assert caplog.messages == [
        "work: 400 of 1,000 images, 40 a second, 0 min 15 s left",
        "fits: 2 of 3 fits, 10.0 s each, 0 min 10 s left",
    ]


def test_flops_of_a_gan_step_are_those_counted_by_hand(demo: Experiment) -> None:
    """One layer at a time, multiply and add counted as two, for a batch of 2 at 8 x 8 with width 4."""
    small = demo.model_copy(
        update={
            "gan": demo.gan.model_copy(
                update={
                    "num_images": 2, "batch_size": 2, "generator_width": 4, "discriminator_width": 4,
                    "latent_dim": 3, "embedding_dim": 1,
                }
            ),
            "data": demo.data.model_copy(update={"spatial_size": 8}),
        }
    )  # fmt: skip
    batch = 2
    generator = 2 * (4 * (4 * 16) + 4 * 8 + 64 * 9 * 4)  # first grid, the norm's code, one doubling 4 -> 8
    first = 2 * 16 * 16 * 4  # 8 -> 4; the images need no gradient when the discriminator moves
    discriminator = first + 2 * (16 * 9 * 4 * 4 + 4)  # a 3 x 3, the score
    fakes = batch * generator
    discriminators_move = fakes + 2 * batch * (3 * discriminator - first)
    generators_move = 3 * fakes + batch * 2 * discriminator
    counted = gan_cost.estimate(small).flops
    assert counted == discriminators_move + generators_move


@pytest.mark.parametrize(("family", "sites"), [("cyclegan", ["N", "S"]), ("stargan", ["N", "S", "E"])])
@pytest.mark.parametrize("between", ["sites", "archives"])
def test_translators_between_sites_are_forecast_without_training_their_judge(
    demo: Experiment, monkeypatch: pytest.MonkeyPatch, family: str, sites: list[str], between: str
) -> None:
    def trained(*_: object) -> None:
        raise AssertionError("the classifier of gan.semantic was trained for a forecast")

    monkeypatch.setattr(FrozenJudge, "learn", trained)
    gan = {"family": family, "between": between, "by_site": True, "semantic": 1.0, "generator_width": 8}
    data = demo.data.model_copy(update={"spatial_size": 8, "site": "hospital", "site_names": tuple(sites)})
    translator = demo.model_copy(update={"gan": validate_gan(gan | {"num_images": 64}), "data": data})
    shape = gan_cost.shape_of_nets(translator)
    told = len(data.classes) if between == "sites" else 1  # archives are told apart, their classes are not
    assert (shape.num_classes, shape.classes_a_site) == (told * len(sites), len(data.classes))
    assert gan_cost.weights_mib(translator) > 0 and gan_cost.estimate(translator).flops > 0


def test_the_plan_counts_every_classifier(demo: Experiment) -> None:
    assert classifier_cost.number_of_fits(demo) == 3 * 4 + 1
    more = demo.model_copy(update={"gan": demo.gan.model_copy(update={"gan_seeds": 2})})
    assert classifier_cost.number_of_fits(more) == 3 * (2 + 2 * 2) + 2


def test_the_smallest_difference_shrinks_with_the_root_of_the_patients() -> None:
    few, many = (smallest_differences("auroc", 0.05, number, number) for number in (50, 200))
    assert few[0] / many[0] == pytest.approx(2, rel=0.03) and few[1] / many[1] == pytest.approx(2, rel=0.03)
    assert smallest_differences("auroc", 0.05, 0, 50) == (float("inf"), float("inf"))


def test_the_smallest_difference_of_a_rate_by_hand() -> None:
    """64 diseased patients at a rate of 0.8: variance 0.16 / 64; (1.96 + 0.8416) x sqrt(2 x 0.0025 x (1 - 0.97))."""
    best, worst = smallest_differences("sensitivity", 0.05, 64, 500)
    assert best == pytest.approx(2.8016 * (2 * 0.0025 * 0.03) ** 0.5, rel=1e-4)
    assert worst == pytest.approx(2.8016 * (2 * 0.0025 * 0.3) ** 0.5, rel=1e-4)


def test_the_patients_that_a_margin_needs_by_hand() -> None:
    """A rate of 0.8 and a margin of 0.02: (1.96 + 0.8416)^2 x 2 x 0.16 x (1 - 0.97) / 0.02^2 = 188.37 with the disease,
    of 64 : 500 in all, and ten times as many where errors correlate by 0.7."""
    best, worst = patients_needed("sensitivity", 0.05, 0.02, 64, 500)
    assert best == pytest.approx(188.37 * 564 / 64, rel=2e-3)
    assert worst == pytest.approx(1883.7 * 564 / 64, rel=2e-3)


@pytest.mark.parametrize(
    ("positives", "negatives", "said"),
    [(12, 24, 'expect "inconclusive"'), (300, 300, 'may be "inconclusive"'), (4000, 4000, "these are enough")],
)
def test_what_is_to_be_expected_in_words(positives: int, negatives: int, said: str) -> None:
    sentence = expectation("auroc", 0.05, 0.02, positives, negatives)
    assert said in sentence and f"With {positives + negatives} test patients" in sentence
    assert ("you need about" in sentence) == ("enough" not in sentence)


def test_patients_with_both_kinds_of_images_count_on_both_sides() -> None:
    both = [("test", label, f"p{number}", f"{label}{number}") for number in range(5) for label in ("a", "b")]
    table = pd.DataFrame(both, columns=["split", "label", "patient_id", "image_id"])
    assert patients_a_side(table, ("b",)) == (5, 5)
    assert patients_a_side(table[:1], ("b",)) == (0, 1)
    assert sides_tested(table, ("b",), "image") == (5, 5), "images are compared where every patient has both"
    assert sides_tested(table, ("b",), "patient") == (5, 0)


@pytest.mark.parametrize(("positives", "negatives"), [(0, 9), (1, 9), (9, 1)])
def test_a_side_of_one_patient_is_refused_with_the_mend(positives: int, negatives: int) -> None:
    with pytest.raises(DataError, match=r"each side needs two.*kfold"):
        expectation("auroc", 0.05, 0.02, positives, negatives)


def test_the_difference_that_an_error_could_show_by_hand() -> None:
    """An error of 0.01 with 10 degrees of freedom: t 2.2281 and 0.8791 of a table of Student's distribution."""
    assert shown_difference(Estimate(0.0, 0.01, 10), 0.05) == pytest.approx(0.031072, abs=2e-6)
    assert shown_difference(Estimate(0.0, 0.0, 1), 0.05) == 0.0

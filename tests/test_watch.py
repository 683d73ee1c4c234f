"""What the collapse watch sees: planted collapses trip it, healthy sets do not, and looking moves nothing."""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from pipeline.adversarial.condition_sampler import ConditionSampler
from pipeline.adversarial.families import FAMILIES
from pipeline.adversarial.families.sngan import SnganConfig
from pipeline.adversarial.gan_cost import noise_training
from pipeline.adversarial.loop import GanTraining, train
from pipeline.adversarial.rollback import complaints
from pipeline.adversarial.watch import ClassOfReal, Probe, Reading, overfitting, validation_images, within_share
from pipeline.config.data import DataConfig
from pipeline.config.families import validate_gan
from pipeline.config.gan import WatchConfig
from pipeline.core.compute import Hardware
from pipeline.core.cost import FlopCount
from pipeline.core.records import Record
from pipeline.data.batches.dataset import open_dataset
from pipeline.nets.sizes import ImageShape
from pipeline.report.quality_tables import FIGURES
from pipeline.report.reading import StageEntry
from pipeline.report.tables import checks_table, watch_table
from pipeline.report.words import METRIC_NAMES

MakeInputs = Callable[..., dict[str, Path]]


def blobs(num: int, seed: int, size: tuple[int, ...] = (16, 16)) -> Tensor:
    """Smooth random images with a little noise, [num, 1, *size]."""
    random = torch.Generator().manual_seed(seed)
    coarse = torch.randn(num, 1, *[4] * len(size), generator=random)
    smooth = interpolate(coarse, size=size, mode="bilinear" if len(size) == 2 else "trilinear")
    return (0.5 * smooth + 0.05 * torch.randn(num, 1, *size, generator=random)).clamp(-1, 1)


def wrong_with(samples: Tensor) -> set[str]:
    """Names of the measures that the default limits find wrong in samples, against 32 blobs."""
    return set(complaints(Reading(*ClassOfReal(blobs(32, 1), seed=0).compare(samples)), WatchConfig()))


@pytest.mark.parametrize("seed", range(2, 12))
def test_images_of_the_same_kind_as_the_real_ones_are_good(seed: int) -> None:
    assert wrong_with(blobs(32, seed)) == set()


def test_one_image_for_everything_trips_every_measure_of_images() -> None:
    samples = (2 * blobs(1, 2)).clamp(-1, 1).expand(32, -1, -1, -1)  # an ordinary one would lie in some balls
    assert wrong_with(samples) == {"similarity", "reached", "twins"}
    similarity, _, twins = ClassOfReal(blobs(32, 1), seed=0).compare(samples)
    assert similarity == pytest.approx(1, abs=1e-5) and twins == 1


def test_slight_variations_of_one_image_trip_too() -> None:
    samples = blobs(1, 2) + 0.02 * torch.randn(32, 1, 16, 16, generator=torch.Generator().manual_seed(3))
    assert {"similarity", "twins"} <= wrong_with(samples)


def test_two_modes_are_found() -> None:
    samples = blobs(2, 2).repeat(16, 1, 1, 1) + 0.02 * torch.randn(32, 1, 16, 16)
    assert "twins" in wrong_with(samples)


def test_images_far_from_all_real_ones_are_not_covering() -> None:
    assert wrong_with((blobs(32, 2) + 0.9).clamp(-1, 1)) == {"reached"}


def test_twins_are_counted_one_by_one() -> None:
    samples = blobs(32, 2)
    samples[20:25] = samples[5:10]
    assert ClassOfReal(blobs(32, 1), seed=0).compare(samples)[2] == 10 / 32


def test_a_class_of_one_or_of_few_images_is_not_measured() -> None:
    assert ClassOfReal(blobs(1, 1), seed=0).compare(blobs(1, 2)) == (None, None, None)
    similarity, reached, twins = ClassOfReal(blobs(5, 1), seed=0).compare(blobs(5, 2))
    assert reached is None and similarity is not None and twins is not None
    assert complaints(Reading(), WatchConfig()) == {}


def logits(mean: float, per_class: tuple[int, int] = (16, 16)) -> tuple[Tensor, Tensor]:
    """Logits of two classes; those of class 1 lie 10 higher."""
    label = torch.tensor([0] * per_class[0] + [1] * per_class[1])
    spread = torch.linspace(-0.1, 0.1, len(label)).flip(0)
    return mean + 10.0 * label + (spread - spread.mean()), label


def test_overfitting_is_the_share_of_the_gap_and_does_not_depend_on_how_many_a_class() -> None:
    parts = [logits(2, (16, 16)), logits(1, (4, 12)), logits(-2, (16, 16))]
    assert overfitting(*parts) == pytest.approx((2 - 1) / (2 + 2), abs=0.03)
    assert overfitting(logits(2), logits(2), logits(-2)) == pytest.approx(0)
    memorised = overfitting(logits(2), logits(-2.5), logits(-2))
    assert memorised == pytest.approx(4.5 / 4)
    assert set(complaints(Reading(0.1, 0.8, 0.0, memorised), WatchConfig())) == {"overfitting"}


def test_overfitting_means_nothing_where_training_images_look_like_fakes() -> None:
    random = torch.Generator().manual_seed(0)
    label = torch.zeros(64, dtype=torch.int64)
    one, other, third = (torch.randn(64, generator=random) for _ in range(3))
    assert overfitting((one, label), (other - 5, label), (third, label)) is None


def state_of(training: GanTraining) -> bytes:
    """All of a training that a checkpoint holds, as its file."""
    file = io.BytesIO()
    torch.save(training.state_dict(), file)
    return file.getvalue()


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("size", [(12, 12), (8, 9, 10)])
def test_a_look_at_any_family_moves_nothing(name: str, size: tuple[int, ...]) -> None:
    small = {"batch_size": 4, "latent_dim": 6, "embedding_dim": 4, "generator_width": 4, "discriminator_width": 4}
    training = noise_training(
        validate_gan({"family": name} | small), ImageShape(size, 1, 2), Hardware("cpu", "float32")
    )
    train(training, 2 * training.images_per_step, lambda _: None)
    images = next(iter(training.streams.values())).images
    rows = torch.arange(16)
    many = replace(
        images,
        places=None,
        stored=torch.randint(0, 255, (16, 1, *size), dtype=torch.uint8),
        label=rows % 2,
        masks=torch.randint(0, 2, (16, 1, *size), dtype=torch.uint8),
        attributes=torch.zeros(16, 0),
        patient=None,
    )
    probe = Probe(8, ConditionSampler(many, FAMILIES[name].needs, (1,)), many, 2, 6, seed=0)
    before, random = state_of(training), torch.get_rng_state()
    reading = probe.read(training)
    assert state_of(training) == before
    assert torch.equal(torch.get_rng_state(), random)
    nets = training.context.nets
    assert all(module.training for net in nets.values() for module in net.modules())
    assert probe.read(training) == reading
    assert reading.finite and None not in (reading.similarity, reading.reached, reading.twins)
    with torch.no_grad():
        next(nets["generator"].parameters()).fill_(float("inf"))
    assert probe.read(training) == Reading(finite=False)


def test_a_translator_of_few_sources_makes_no_twins() -> None:
    """Three images of one class are all that those of the other can be made from: each is translated once."""
    small = {"batch_size": 4, "latent_dim": 6, "embedding_dim": 4, "generator_width": 4, "discriminator_width": 4}
    training = noise_training(
        validate_gan({"family": "cyclegan"} | small), ImageShape((16, 16), 1, 2), Hardware("cpu", "float32")
    )
    images = next(iter(training.streams.values())).images
    many = replace(
        images,
        places=None,
        stored=(127.5 * (blobs(35, 1) + 1)).to(torch.uint8),
        label=torch.tensor([0] * 32 + [1] * 3),
        masks=None,
        attributes=None,
        patient=None,
    )
    probe = Probe(32, ConditionSampler(many, ("source",), (1,)), many, 2, 6, seed=0)
    assert torch.bincount(probe.label).tolist() == [3, 3]
    training.ema.nets["generator"].forward = lambda z, condition: condition.source  # the best translator of one domain
    assert probe.read(training).twins == 0


def test_attributes_of_validation_images_are_standardised_as_those_of_training_images(
    noise_inputs: MakeInputs,
) -> None:
    dataset = open_dataset(noise_inputs()["prepare"])
    dataset.manifest["age"] = [str(10 * number) for number in range(23)] + ["unknown"]
    train, val = np.array([1, 2, 3, 4, 5]), np.array([12, 23])
    images = validation_images(dataset, train, val, ("normal", "disease"), ("age",), "cpu")
    assert images.attributes is not None
    expected = torch.tensor([[(120 - 30) / 200**0.5], [0.0]])
    torch.testing.assert_close(images.attributes, expected)


def test_no_measure_of_the_watch_has_the_name_of_another_figure_of_the_report() -> None:
    """One name, one meaning: `coverage` and `duplicates` once stood for two things each."""
    own = {field.name for field in fields(Reading)}
    limits = set(WatchConfig.model_fields) - {"checks", "images", "share", "rollbacks"}
    assert own - {"finite"} == limits
    assert not own & {*FIGURES, *METRIC_NAMES, *DataConfig.model_fields}


def test_the_report_shows_the_delivered_state_and_every_check() -> None:
    numbers = {"similarity": 0.125, "reached": 0.5, "twins": 0.0, "overfitting": None}
    shown = [(0, 40, "good"), (0, 48, "similarity 0.95 (at most 0.9)"), (1, 40, "good"), (1, 48, "twins")]
    checks = [
        {"attempt": attempt, "num_images": images, **numbers, "finding": finding} for attempt, images, finding in shown
    ]
    watch = {"rollbacks": 1, "ended_early": True, "checks": checks}
    stages = [
        StageEntry(Record("fit-gan", figures, fold=fold, gan_seed=0), Path())
        for fold, figures in enumerate([{"num_images": 64}, {"num_images": 40, "watch": watch}])
    ]
    run: Any = SimpleNamespace(of_kind=lambda _: stages, released=lambda _: stages[1])
    table = watch_table(run)
    assert table is not None
    assert table.rows == (("fold 1, GAN seed 0", "4 (2)", "0.12", "0.50", "0.00", "–", "1, then ended early"),)
    assert table.tones == ("caution",)
    every = checks_table(run)
    assert every is not None
    assert [row[:2] + row[-1:] for row in every.rows] == [(str(a + 1), str(n), finding) for a, n, finding in shown]
    unwatched: Any = SimpleNamespace(of_kind=lambda _: stages[:1], released=lambda _: None)
    assert watch_table(unwatched) is checks_table(unwatched) is None


@pytest.mark.parametrize(
    ("shown", "classes", "share", "checks", "images"),
    [
        (100_000, 3, 0.05, 10, 32),
        (13_000, 3, 0.05, 10, 32),
        (2_600, 2, 0.05, 10, 10),  # 200 samples' worth: 100 a class
        (520, 2, 0.05, 2, 10),  # 40: 20 a class
        (52, 2, 0.05, 1, 8),  # 4: fewer than one check takes
        (52, 2, 5.0, 10, 20),
    ],
)
def test_short_trainings_are_looked_at_with_fewer_images_and_less_often(
    shown: int, classes: int, share: float, checks: int, images: int
) -> None:
    """A sample is 0.65 of a training image's work."""
    allowed = within_share(WatchConfig(share=share, similarity=0.5), shown, classes)
    assert allowed == WatchConfig(checks=checks, images=images, share=share, similarity=0.5)
    assert within_share(WatchConfig(checks=0), shown, classes) == WatchConfig(checks=0)


@pytest.mark.parametrize("size", [(32, 32), (16, 16, 16)])
@pytest.mark.parametrize("name", ["sngan", "vae", "wgan", "stylegan2"])
def test_a_check_is_no_more_work_than_the_share_reckons_with(name: str, size: tuple[int, ...]) -> None:
    """In FLOPs, as torch counts them; wgan's check is the dearest beside its training."""
    small = {"family": name, "batch_size": 8, "generator_width": 8, "discriminator_width": 8}
    training = noise_training(validate_gan(small), ImageShape(size, 1, 2), Hardware("cpu", "float32"))
    images = next(iter(training.streams.values())).images
    rows = torch.arange(16) % len(images.label)
    many = type(images)(images.stored[rows], images.label[rows], images.scaling)
    probe = Probe(8, ConditionSampler(many), many, 2, 64, seed=0)
    shown = 16 * training.images_per_step  # lazy terms come every 4 and 16 steps
    with FlopCount() as trained:
        train(training, shown, lambda _: None)
    with FlopCount() as looked:
        probe.read(training)
    assert looked.total / len(probe.label) < 0.65 * trained.total / shown


@pytest.mark.parametrize("part", [1, 12, 100])
def test_a_check_takes_as_many_images_at_once_as_the_training_but_8_to_32(part: int) -> None:
    training = noise_training(validate_gan({"family": "sngan"}), ImageShape((8, 8), 1, 2), Hardware("cpu", "float32"))
    images = training.streams["labelled"].images
    rows = torch.arange(96) % len(images.label)
    many = type(images)(images.stored[rows], images.label[rows], images.scaling)
    probe = Probe(48, ConditionSampler(many), many, 2, 64, seed=0, part=part)
    seen: list[int] = []
    for net in (training.ema.nets["generator"], training.context.nets["discriminator"]):
        forward = net.forward
        net.forward = lambda given, condition, own=forward: (seen.append(len(given)), own(given, condition))[1]
    probe.read(training)
    assert sum(seen) == 4 * 96 and max(seen) == {1: 8, 12: 12, 100: 32}[part]


@pytest.mark.parametrize(
    ("size", "width", "limit_s"),
    [((32, 32), 32, 0.5), pytest.param((32, 32, 32), 16, 4.0, marks=pytest.mark.slow)],
)
def test_a_check_is_cheap(size: tuple[int, ...], width: int, limit_s: float) -> None:
    """Processor time of a check on 2 x 32 samples with the default network."""
    config = SnganConfig(generator_width=width, discriminator_width=width)
    training = noise_training(config, ImageShape(size, 1, 2), Hardware("cpu", "float32"))
    images = training.streams["labelled"].images
    rows = torch.arange(128) % len(images.label)
    many = images.part(rows)
    probe = Probe(32, ConditionSampler(many), many, 2, config.latent_dim, seed=0)
    assert len(probe.label) == 64
    times = []
    for _ in range(2):
        started = time.process_time()
        probe.read(training)
        times.append(time.process_time() - started)
    assert min(times) < limit_s

"""Adaptation between sites: each method against its paper's formula, a worked case or a plain implementation of it."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from arm_stage import CLASSES, CPU, MakeInputs, material_of, settings, with_pool
from torch import nn

from pipeline.config.arm_facts import Align
from pipeline.core.errors import ConfigError, DataError
from pipeline.data.batches.dataset import DataSet
from pipeline.data.batches.intensities import distribution, equalised, matched, recentred, standardised, with_amplitudes
from pipeline.downstream.material import Material
from pipeline.downstream.regimens import regimen_of
from pipeline.nets.classifiers import last_layer
from pipeline.supervised.alignment import Dann, coral_distance, covariance, inputs_of, make_alignment, reversal
from pipeline.supervised.batches import Batches, Share
from pipeline.supervised.fit import Phase, Regimen, fit, partners_across
from pipeline.supervised.norms import with_statistics_of


@pytest.fixture
def material(noise_inputs: MakeInputs, tmp_path: Path) -> Material:
    """Hospital A is unlabelled but for three of its images; of B there are seven labelled ones."""
    return material_of(with_pool(noise_inputs(num=48)), tmp_path / "parts")


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-1, 1, shape).astype(np.float32)


def test_each_image_is_standardised_by_itself() -> None:
    images = np.stack([noise(1, 6, 5) / 4, 0.3 + noise(1, 6, 5, seed=1) / 9, np.full((1, 6, 5), 0.25, np.float32)])
    found = standardised(images)
    for image, made in zip(images[:2], found, strict=False):
        np.testing.assert_allclose(made, (image - image.mean()) / image.std() / 3, atol=1e-5)
    assert not found[2].any(), "an image of one value has no spread"
    np.testing.assert_allclose(standardised(2 * images[:2] - 0.1), found[:2], atol=1e-5)


def test_equalisation_takes_a_value_to_its_share() -> None:
    """Worked: four values at the middles of bins, a quarter each, become the shares 1/4 … 1."""
    image = np.array([[[[-1.0, -1 + 64.5 / 128], [-1 + 127.5 / 128, 1.0]]]])
    np.testing.assert_allclose((equalised(image)[0, 0] + 1) / 2, [[0.25, 0.5], [0.75, 1.0]], atol=1e-6)
    found = equalised((noise(2, 1, 40, 40) + 1) ** 2 / 2 - 1)
    counts = np.histogram(found[0], bins=8, range=(-1, 1))[0]
    np.testing.assert_allclose(counts, 200, atol=25)


def test_matching_gives_the_references_values_in_the_images_order() -> None:
    """Worked: of as many values as the reference, the k-th smallest becomes the reference's k-th smallest."""
    image, reference = noise(1, 1, 4, 4, 4), noise(1, 1, 4, 4, 4, seed=1) / 2
    found = matched(image, distribution(reference))
    np.testing.assert_allclose(np.sort(found.ravel()), np.sort(reference.ravel()), atol=1e-6)
    np.testing.assert_array_equal(np.argsort(found.ravel()), np.argsort(image.ravel()))
    halves = matched(np.array([[[[0.0, 0.0, 1.0, 1.0]]]]), distribution(np.array([[[[-1.0, -0.5, 0.5, 0.7]]]])))
    np.testing.assert_allclose(halves.ravel(), [-0.5, -0.5, 0.7, 0.7], atol=1e-6)


@pytest.mark.parametrize("shape", [(24, 30), (23, 23), (12, 13, 14)])
def test_amplitudes_are_swapped_as_in_the_papers_own_code(shape: tuple[int, ...]) -> None:
    """The authors' `FDA_source_to_target_np`: a centred square of the shifted amplitudes, in numpy, axis by axis."""
    source, target, beta = 0.2 + noise(1, *shape) / 8, 0.7 + noise(1, *shape, seed=1) / 8, 0.09
    axes = tuple(range(1, 1 + len(shape)))
    amplitude, phase = np.abs(np.fft.fftn(source, axes=axes)), np.angle(np.fft.fftn(source, axes=axes))
    own = np.fft.fftshift(amplitude, axes=axes)
    other = np.fft.fftshift(np.abs(np.fft.fftn(target, axes=axes)), axes=axes)
    reach = int(np.floor(min(shape) * beta))
    window = tuple(slice(side // 2 - reach, side // 2 + reach + 1) for side in shape)
    own[:, *window] = other[:, *window]
    expected = np.fft.ifftn(np.fft.ifftshift(own, axes=axes) * np.exp(1j * phase), axes=axes).real
    assert reach >= 1 and expected.min() > 0 and expected.max() < 1
    found = with_amplitudes(2 * source[None] - 1, 2 * target[None] - 1, beta)[0]
    np.testing.assert_allclose((found + 1) / 2, expected, atol=1e-5)
    assert found.mean() > 0 > (2 * source - 1).mean(), "a dark image gets the mean of a bright one"


def test_a_sites_mean_goes_and_the_common_one_comes() -> None:
    np.testing.assert_allclose(recentred(np.array([[[0.5, 0.9]]]), np.array([[0.2, 0.1]]), np.array([[0.1, 0.4]])),
                               [[[0.4, 1.0]]])  # fmt: skip


def test_coral_is_the_papers_distance_of_numpys_covariances() -> None:
    one, two = noise(9, 4), 2 * noise(7, 4, seed=1)
    distance = np.square(np.cov(one.T) - np.cov(two.T)).sum() / (4 * 4**2)
    found = coral_distance(covariance(torch.from_numpy(one)), covariance(torch.from_numpy(two)))
    assert float(found) == pytest.approx(distance, rel=1e-5)
    both, domain = torch.from_numpy(np.concatenate([one, two])), torch.tensor([0] * 9 + [1] * 7)
    assert float(make_alignment("coral", 4, 2)(both, domain, 0.5)) == pytest.approx(distance, rel=1e-5)
    assert float(make_alignment("coral", 4, 2)(both[:9], domain[:9], 0.5)) == 0, "one domain alone is like itself"


def test_gradients_come_back_reversed_by_the_papers_schedule() -> None:
    assert reversal(0) == 0 and reversal(0.1) == pytest.approx(math.tanh(0.5)) and reversal(1) > 0.9999
    torch.manual_seed(0)
    dann, domain = Dann(5, 2), torch.tensor([0, 0, 0, 1])
    given = torch.randn(4, 5)
    plain, reversed_ = given.clone().requires_grad_(), given.clone().requires_grad_()
    weights = torch.tensor([1 / 3, 1 / 3, 1 / 3, 1]) / 2
    losses = nn.functional.cross_entropy(dann.tell(plain), domain, reduction="none")
    loss = (weights * losses).sum()
    found = dann(reversed_, domain, 0.1)
    assert found.item() == pytest.approx(loss.item(), rel=1e-5), "each domain counts the same"
    own = torch.autograd.grad(loss, [plain, *dann.parameters()])
    other = torch.autograd.grad(found, [reversed_, *dann.parameters()])
    torch.testing.assert_close(other[0], -math.tanh(0.5) * own[0])
    for one, two in zip(own[1:], other[1:], strict=True):
        torch.testing.assert_close(two, one)


def test_batch_norms_take_the_statistics_of_the_images_at_hand(material: Material) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.Flatten(), nn.Dropout(0.5), nn.Linear(300, 2)).eval()
    before, rows = copy.deepcopy(net.state_dict()), material.target_rows
    adapted = with_statistics_of(net, material.dataset, rows, CPU)
    grids = net[0](material.dataset.tensor(rows)).detach().numpy()
    norm = adapted[1]
    np.testing.assert_allclose(norm.running_mean, grids.mean(axis=(0, 2, 3)), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(norm.running_var, grids.transpose(1, 0, 2, 3).reshape(3, -1).var(axis=1, ddof=1),
                               rtol=1e-4)  # fmt: skip
    for name, value in net.state_dict().items():
        torch.testing.assert_close(value, before[name])
        if "running" not in name and "tracked" not in name:
            torch.testing.assert_close(adapted.state_dict()[name], value)
    with pytest.raises(ConfigError, match="Linear has no batch norm"):
        with_statistics_of(nn.Linear(2, 2), material.dataset, rows, CPU)


def test_pairs_are_of_one_class_and_two_sites() -> None:
    label, domain = np.array([0, 0, 0, 1, 1, 1]), np.array([0, 1, 1, 0, 0, 0])
    random = np.random.default_rng(0)
    drawn = np.array([partners_across(label, domain, random) for _ in range(30)])
    assert set(drawn[:, 0]) == {1, 2} and set(drawn[:, 1]) == {0} and (drawn[:, 3:] == [3, 4, 5]).all()


def test_the_target_stream_has_no_label_and_weighs_nothing(material: Material) -> None:
    (phase,) = regimen_of("real+classical+dann", settings(), material).phases
    _, target = phase.shares
    assert set(target.rows) == set(material.target_rows) <= set(material.rows("unlabelled"))
    assert set(material.dataset.manifest["hospital"].iloc[target.rows]) == {"A"}
    batch = Batches(phase.shares, 8, CLASSES, "cpu", seed=0).next()
    assert batch.weight.tolist() == [1.0] * 4 + [0.0] * 4 and not batch.target[4:].any()
    assert batch.domain[4:].tolist() == [0] * 4 and set(batch.domain[:4].tolist()) == {0, 1}, "A is 0, B is 1"
    assert set(material.dataset.manifest["label"].iloc[target.rows]) == {""}


def test_looks_and_statistics_know_the_site_of_every_image(material: Material) -> None:
    sites, plain = material.sites, material.plain
    everything = np.arange(len(sites))
    for look in ("matched", "fourier"):
        seen = material.seen_as(look).dataset.tensor(everything)
        same = (seen - plain.tensor(everything)).abs().flatten(1).amax(dim=1) < 1e-3
        np.testing.assert_array_equal(same, sites == "A")
    seen = material.seen_as("site_centred").dataset
    learnt = np.concatenate([material.rows("train"), material.rows("unlabelled")])

    def apart(dataset: DataSet) -> float:
        one, two = (dataset.tensor(learnt[sites[learnt] == name]).mean(dim=0) for name in ("A", "B"))
        return float((one - two).abs().mean())

    assert apart(seen) < 0.05 < apart(plain)


def test_without_a_second_site_there_is_nothing_to_align(noise_inputs: MakeInputs, tmp_path: Path) -> None:
    inputs = noise_inputs(num=48)
    for name in ("prepare", "split"):
        table = (inputs[name] / "manifest.csv").read_text().replace(",A", ",B")
        (inputs[name] / "manifest.csv").write_text(table)
    alone = replace(material_of(inputs, tmp_path / "parts"), archives=())
    brought = [("coral", "bring two sites"), ("amplitudemix", "bring two sites")]
    for arm, said in [*brought, ("crosssitemixup", "no class has labelled")]:
        with pytest.raises(DataError, match=said):
            regimen_of(f"real+classical+{arm}", settings(), alone)
    with pytest.raises(DataError, match="has no image of one"):
        _ = replace(alone, archives=("A",)).target_rows


def test_coral_brings_the_features_of_two_sites_nearer(material: Material) -> None:
    """A planted difference of contrast: the term leaves less of it in the features than training without it does."""
    flat = np.isin(material.plain.manifest["hospital"], "A").reshape(-1, 1, 1, 1)
    stored = np.where(flat, 100 + material.plain.images // 8, material.plain.images)
    dataset = replace(material.plain, images=stored.astype(np.uint8))
    rows = material.rows("train")
    labelled = Share(dataset, rows, domains=material.domains(rows))
    target = replace(material.target, dataset=dataset)

    def distance(align: Align | None) -> float:
        net = fit(settings(steps=60), Regimen((Phase((labelled, target), 60, align=align),)), CLASSES, CPU, seed=0)
        sites = [dataset.tensor(np.flatnonzero(flat.ravel() == own)) for own in (True, False)]
        with inputs_of(last_layer(net)) as seen, torch.no_grad():
            _ = [net(images) for images in sites]
        return float(coral_distance(*map(covariance, seen)))

    assert distance("coral") < 0.7 * distance(None)

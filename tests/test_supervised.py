"""The supervised loop: losses, mixtures and batches by worked numbers and plain loops; phases by what they move."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import ndimage
from torch import Tensor, nn

from pipeline.config.experiment import ClassifierConfig
from pipeline.core.compute import Hardware, place
from pipeline.core.errors import DataError, NonFiniteLoss
from pipeline.data.batches.dataset import DataSet, open_dataset
from pipeline.data.batches.scaling import Scaling
from pipeline.data.batches.streams import StoredImages, Stream
from pipeline.nets.classifiers import last_layer, make_classifier
from pipeline.nets.discriminators import StridedTrunk
from pipeline.nets.extractors import EffNetLite0
from pipeline.nets.pretrained import PretrainedEffNet
from pipeline.supervised.batches import Batches, Share, channels_last
from pipeline.supervised.encoders import fit_encoder
from pipeline.supervised.fit import Phase, Regimen, apply_classifier, class_terms, fit
from pipeline.supervised.loop import minimise
from pipeline.supervised.losses import (
    balancing_weights,
    log_prior,
    mixed_amplitudes,
    mixed_pairs,
    nt_xent,
    weighted_cross_entropy,
)

MakeInputs = Callable[..., dict[str, Path]]
CLASSES = ("normal", "disease")
CPU = Hardware("cpu", "float32")
SCALING = Scaling(1.0, 0.0, "none", (0.0, 255.0), "uint8")


def grey(labels: list[str], levels: list[int]) -> DataSet:
    """Images of one grey level each."""
    manifest = pd.DataFrame({"image_id": [str(i) for i in range(len(labels))], "label": labels, "patient_id": ""})
    images = np.array(levels, dtype=np.uint8).reshape(-1, 1, 1, 1) * np.ones((1, 1, 8, 8), dtype=np.uint8)
    return DataSet(Path("grey"), manifest, images, SCALING)


def everything(dataset: DataSet, **changes: object) -> Share:
    return Share(dataset, np.arange(len(dataset.images)), **changes)  # type: ignore[arg-type]


def test_mixup_by_hand() -> None:
    images = torch.tensor([1.0, 3.0, 5.0]).view(3, 1, 1, 1)
    target = torch.eye(3)
    mixed, soft = mixed_pairs(images, target, torch.tensor([0.25, 1.0, 0.5]), torch.tensor([1, 2, 0]))
    assert mixed.flatten().tolist() == [0.25 * 1 + 0.75 * 3, 3.0, 0.5 * 5 + 0.5 * 1]
    assert soft.tolist() == [[0.25, 0.75, 0.0], [0.0, 1.0, 0.0], [0.5, 0.0, 0.5]]


@pytest.mark.parametrize("sides", [(9, 12), (5, 6, 8)])
def test_the_amplitudes_of_another_scanner_undo_what_this_ones_linear_filter_did(sides: tuple[int, ...]) -> None:
    """A filter that is symmetric and periodic changes amplitudes alone: all of the other's give its image, half of them
    the mean of both, none one's own."""
    image = np.random.default_rng(1).random(sides)
    blurred = ndimage.gaussian_filter(image, 0.7, mode="wrap")
    pair = torch.from_numpy(np.stack([image, blurred])[:, None] * 2 - 1).float()
    for share in (0.0, 0.5, 1.0):
        seen = mixed_amplitudes(pair, torch.full((2,), share), torch.tensor([1, 0]))
        torch.testing.assert_close(seen, share * pair + (1 - share) * pair.flip(0), atol=1e-5, rtol=0)


def test_class_weights_by_hand_and_against_torch() -> None:
    weights = balancing_weights(torch.tensor([30.0, 10.0]))
    torch.testing.assert_close(weights, torch.tensor([40 / 60, 40 / 20]))
    random = torch.Generator().manual_seed(0)
    logits, label = torch.randn(40, 2, generator=random), torch.tensor([0] * 30 + [1] * 10)
    found = weighted_cross_entropy(logits, nn.functional.one_hot(label, 2).float(), torch.ones(40), weights)
    # over all 40 images the weights sum to 40, so that torch's own normalisation gives the same
    torch.testing.assert_close(found, nn.functional.cross_entropy(logits, label, weight=weights))


def test_an_images_weight_counts_in_the_mean_and_at_zero_the_image_is_gone() -> None:
    logits, target = torch.tensor([[0.0, 0.0], [2.0, 0.0]]), torch.tensor([[1.0, 0.0], [0.5, 0.5]])
    one, two = math.log(2), math.log(1 + math.exp(-2)) + 1.0  # -(log p_0 + log p_1) / 2, and log p_1 = log p_0 - 2
    ones = torch.ones(2)
    for weight in (1.0, 0.25, 0.0):
        found = weighted_cross_entropy(logits, target, torch.tensor([1.0, weight]), ones).item()
        assert found == pytest.approx((one + weight * two) / (1 + weight), rel=1e-6)


def test_logit_adjustment_by_hand() -> None:
    shift = log_prior(torch.tensor([3.0, 1.0]))
    loss = weighted_cross_entropy(torch.zeros(1, 2) + shift, torch.tensor([[0.0, 1.0]]), torch.ones(1), torch.ones(2))
    assert loss.item() == pytest.approx(-math.log(0.25))  # as rare as it is, at equal logits


def test_nt_xent_is_the_papers_double_loop() -> None:
    random = torch.Generator().manual_seed(0)
    one, two = torch.randn(5, 7, generator=random), torch.randn(5, 7, generator=random)
    views = [*one.double(), *two.double()]

    def likeness(i: int, j: int) -> float:
        return math.exp(float(views[i] @ views[j] / (views[i].norm() * views[j].norm())) / 0.5)

    losses = []
    for i in range(10):
        j = (i + 5) % 10
        losses.append(-math.log(likeness(i, j) / sum(likeness(i, k) for k in range(10) if k != i)))
    assert nt_xent(one, two, 0.5).item() == pytest.approx(sum(losses) / 10, rel=1e-5)


def test_a_stream_that_is_not_balanced_shows_every_image_once_a_round() -> None:
    label = torch.tensor([0] * 9 + [1])
    images = StoredImages(torch.zeros(10, 1, 2, 2, dtype=torch.uint8), label, SCALING)
    natural, balanced = Stream(images, 5, 0, balanced=False), Stream(images, 5, 0)
    for _ in range(3):
        assert sorted([*natural.next_rows().tolist(), *natural.next_rows().tolist()]) == list(range(10))
    assert sum((label[balanced.next_rows()] == 1).sum().item() for _ in range(2)) == 5


def test_soft_labels_go_with_their_images_and_the_data_sets_labels_are_not_read() -> None:
    dataset = grey(["?", "also unknown", "normal"], [0, 100, 200])
    soft = np.array([[0.9, 0.1], [0.2, 0.8], [0.5, 0.5]])
    batches = Batches([everything(dataset, soft=soft)], 6, CLASSES, "cpu", 0)
    batch = batches.next()
    expected = dict(zip((0, 100, 200), soft.tolist(), strict=True))
    levels = ((batch.images[:, 0, 0, 0] + 1) * 127.5).round().int().tolist()
    assert sorted(levels) == [0, 0, 100, 100, 200, 200]
    for level, target in zip(levels, batch.target, strict=True):
        assert target.tolist() == pytest.approx(expected[level])
    with pytest.raises(DataError, match="labels outside"):
        Batches([everything(dataset)], 6, CLASSES, "cpu", 0)


def test_a_fading_share_loses_its_weight_and_the_others_keep_theirs() -> None:
    dataset = grey(["normal", "disease"], [0, 255])
    batches = Batches([everything(dataset), everything(dataset, weight=3.0, fades=True)], 8, CLASSES, "cpu", 0)
    for progress in (0.0, 0.25, 1.0):
        assert batches.next(progress).weight.tolist() == [1.0] * 2 + [1 - progress] * 6


def test_frequencies_are_those_of_the_labelled_shares() -> None:
    dataset = grey(["normal"] * 6 + ["disease"] * 2, [0] * 8)
    pool = everything(dataset, soft=np.full((8, 2), 0.5))
    weights, shift = class_terms(Phase((everything(dataset), pool), 1, loss="class_weights"), CLASSES, "cpu")
    assert weights.tolist() == pytest.approx([8 / 12, 8 / 4]) and shift.tolist() == [0, 0]
    weights, shift = class_terms(Phase((everything(dataset),), 1, loss="logit_adjustment"), CLASSES, "cpu")
    assert weights.tolist() == [1, 1] and shift.tolist() == pytest.approx([math.log(0.75), math.log(0.25)])


@pytest.mark.parametrize(
    ("loss", "balanced", "expected"),
    [("plain", False, 0.25), ("plain", True, 0.5), ("class_weights", False, 0.5), ("logit_adjustment", False, 0.5)],
)
def test_where_images_tell_nothing_a_remedy_of_imbalance_says_one_half(
    loss: str, balanced: bool, expected: float
) -> None:
    """3 : 1 images that all look the same: the likelihood's optimum is the prior, the balanced optimum one half."""
    dataset = grey(["normal"] * 24 + ["disease"] * 8, [128] * 32)
    config = ClassifierConfig(lr=0.05, weight_decay=0, batch_size=32)
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 2))
    phase = Phase((everything(dataset, balanced=balanced),), 150, classical=False, loss=loss)  # type: ignore[arg-type]
    fitted = fit(config, Regimen((phase,), net=net), CLASSES, CPU, seed=0)
    assert apply_classifier(fitted, dataset, np.arange(1), CPU)[0, 1] == pytest.approx(expected, abs=0.01)


class Recorder(nn.Module):
    """A linear classifier that keeps what it was shown."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Tensor] = []
        self.layer = nn.Linear(64, 2)

    def forward(self, images: Tensor) -> Tensor:
        self.seen.append(images.detach().clone())
        logits: Tensor = self.layer(images.flatten(1))
        return logits


def test_mixup_shows_mixtures_from_a_beta_distribution() -> None:
    dataset = grey(["normal", "disease"], [0, 255])
    for mixup in (False, True):
        net = Recorder()
        phase = Phase((everything(dataset),), 100, classical=False, mixup=mixup)
        fit(ClassifierConfig(batch_size=32), Regimen((phase,), net=net), CLASSES, CPU, seed=0)
        shares = (torch.cat(net.seen)[:, 0, 0, 0] + 1) / 2
        if not mixup:
            assert set(shares.tolist()) == {0.0, 1.0}
            continue
        inner = shares[(shares > 1e-6) & (shares < 1 - 1e-6)].double()
        # pairs of different images: 16 of the 31 others; Beta(a, a) has variance 1 / (4 (2 a + 1)) = 0.1389 at 0.4
        assert len(inner) / 3200 == pytest.approx(0.5, abs=0.03)
        assert inner.mean().item() == pytest.approx(0.5, abs=0.03)
        assert inner.var().item() == pytest.approx(1 / (4 * 1.8), abs=0.01)


@pytest.mark.parametrize("network", ["small_cnn", "resnet18", "densenet121"])
def test_the_last_layer_alone_is_fitted_again(noise_inputs: MakeInputs, network: str) -> None:
    data = open_dataset(noise_inputs((32, 32), num=8)["prepare"])
    net = make_classifier(network, spatial_dims=2, channels=1, num_classes=2)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    head = next(name for name, module in net.named_modules() if module is last_layer(net))
    config = ClassifierConfig(lr=1e-9, weight_decay=0, batch_size=4)
    fit(config, Regimen((Phase((everything(data),), 2, head="alone"),), net=net), CLASSES, CPU, seed=0)
    for name, value in net.state_dict().items():
        fresh = name == f"{head}.weight"
        assert torch.equal(value, before[name]) != fresh or name == f"{head}.bias", name


def test_a_fresh_head_leaves_the_trunk_and_trains_all(noise_inputs: MakeInputs) -> None:
    data = open_dataset(noise_inputs((12, 12), num=8)["prepare"])
    share = everything(data)

    def heads(head: str, lr: float) -> tuple[Tensor, Tensor, nn.Module]:
        phases = (Phase((share,), 2), Phase((share,), 2, head=head))  # type: ignore[arg-type]
        config = ClassifierConfig(lr=lr, weight_decay=0, batch_size=4)
        net = fit(config, Regimen(phases), CLASSES, CPU, seed=0)
        first = next(iter(net.parameters()))
        return first.detach(), last_layer(net).weight.detach(), net

    trunk, kept, _ = heads("kept", 1e-9)
    same, fresh, _ = heads("fresh", 1e-9)
    torch.testing.assert_close(trunk, same, atol=1e-6, rtol=0)
    assert (kept - fresh).abs().max() > 1e-2
    moved, _, net = heads("fresh", 1e-2)
    assert (moved - same).abs().max() > 1e-3
    assert all(parameter.requires_grad for parameter in net.parameters())


@pytest.mark.parametrize("size", [(40, 30), (12, 10, 14)])
def test_the_pretrained_network_is_the_extractors_with_a_layer_behind_it(size: tuple[int, ...]) -> None:
    images = torch.randn(3, 1, *size, generator=torch.Generator().manual_seed(0)).clamp(-1, 1)
    net = PretrainedEffNet(channels=1, num_classes=2).eval()
    with torch.no_grad():
        torch.testing.assert_close(net(images), net.head(EffNetLite0().extract(images)), atol=1e-4, rtol=1e-4)
    net.train()(images).sum().backward()
    assert net.trunk._conv_stem.weight.grad.abs().sum() > 0
    with pytest.raises(DataError, match="takes 1 or 3"):
        PretrainedEffNet(channels=2, num_classes=2)


@pytest.mark.parametrize("kind", ["simclr", "autoencoder"])
@pytest.mark.parametrize("size", [(12, 12), (8, 10, 8)])
def test_encoders_train_their_trunk_in_2d_and_3d(noise_inputs: MakeInputs, kind: str, size: tuple[int, ...]) -> None:
    data = open_dataset(noise_inputs(size, num=16)["prepare"])
    images = StoredImages(torch.from_numpy(np.array(data.images)), torch.full((16,), -1), data.scaling)

    def trained(steps: int) -> nn.Module:
        torch.manual_seed(0)
        trunk = StridedTrunk(spatial_size=size, channels=1, width=4)
        features = trunk.features
        return fit_encoder(
            kind, trunk, features, images, steps=steps, batch_size=4, hardware=CPU, seed=0  # type: ignore[arg-type]
        )  # fmt: skip

    still, moved, again = trained(0), trained(3), trained(3)
    for start, end, repeat in zip(still.parameters(), moved.parameters(), again.parameters(), strict=True):
        assert not torch.equal(start, end)
        assert torch.equal(end, repeat)


def test_a_loss_that_is_not_finite_moves_nothing_and_names_what_was_trained() -> None:
    weight = nn.Parameter(torch.ones(3))
    seen: list[Tensor] = []

    def loss_at(step: int) -> Tensor:
        seen.append(weight.detach().clone())
        return (weight * (torch.nan if step == 2 else 1.0)).sum()

    with pytest.raises(NonFiniteLoss, match=r"the loss of the encoder became nan at step 2\. The weights are finite"):
        minimise(loss_at, [weight], steps=5, lr=0.1, weight_decay=0.0, what="the encoder")
    assert not torch.equal(seen[0], seen[1]) and torch.equal(weight.detach(), seen[2])


def test_a_gradient_that_is_not_finite_is_named_as_the_culprit_and_precision_before_the_rate() -> None:
    """The square root's slope at 0 is infinite, though the loss is not."""
    weight = nn.Parameter(torch.zeros(3))
    with pytest.raises(NonFiniteLoss, match=r"gradient of an earlier step was not\. Set compute\.precision: float32"):
        minimise(lambda step: weight.sqrt().sum(), [weight], steps=5, lr=0.1, weight_decay=0.0, what="the encoder")


@pytest.mark.parametrize("size", [(6, 5), (4, 6, 5)])
def test_images_of_one_channel_lie_as_the_weights_do(size: tuple[int, ...]) -> None:
    """Then the first convolution's output does, and all that follows; torch alone would choose the other order."""
    images = torch.rand(2, 1, *size)
    net = place(make_classifier("small_cnn", spatial_dims=len(size), channels=1, num_classes=2), CPU)
    laid = channels_last(images)
    assert torch.equal(laid, images)
    assert net.features[0](laid).stride(1) == 1 != net.features[0](images).stride(1)  # type: ignore[index,operator]


def test_a_denoising_autoencoder_learns_to_denoise(monkeypatch: pytest.MonkeyPatch) -> None:
    """Images of two grey levels: after training the error lies far below that of the mean image."""
    dataset = grey(["normal", "disease"] * 8, [40, 215] * 8)
    images = StoredImages(torch.from_numpy(dataset.images), torch.full((16,), -1), SCALING)
    losses: list[float] = []
    plain = nn.functional.mse_loss

    def noted(found: Tensor, wanted: Tensor) -> Tensor:
        loss = plain(found, wanted)
        losses.append(loss.item())
        return loss

    monkeypatch.setattr("pipeline.supervised.encoders.nn.functional.mse_loss", noted)
    trunk = StridedTrunk(spatial_size=(8, 8), channels=1, width=8)
    fit_encoder("autoencoder", trunk, trunk.features, images, steps=150, batch_size=16, hardware=CPU, seed=0)
    assert np.mean(losses[-10:]) < 0.2 * images.scaling.to_model(images.stored).var().item()

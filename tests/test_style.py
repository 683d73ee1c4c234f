"""StyleGAN2: modulated convolutions, mixed styles, path length, truncation, noise, lazy regularisers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, conv3d

from pipeline.adversarial.assembly import assemble
from pipeline.adversarial.families.stylegan2 import Stylegan2Config
from pipeline.adversarial.loop import GanTraining, train
from pipeline.adversarial.styles import PathLength, StyleTurn, mixed, path_length, style_turn
from pipeline.adversarial.turns import Context
from pipeline.config.augment import AugmentConfig
from pipeline.core.compute import Hardware
from pipeline.data.batches.augmentation import Augmenter
from pipeline.data.batches.draws import Draws
from pipeline.data.batches.scaling import Scaling
from pipeline.data.batches.streams import Batch, StoredImages
from pipeline.nets.conditions import Condition
from pipeline.nets.sizes import ImageShape
from pipeline.nets.style import EqualCode, ModulatedConv, StyleDiscriminator, StyleGenerator, resized

SIZES = {2: (12, 20), 3: (8, 9, 10)}
grid = pytest.mark.parametrize("dims", [2, 3])


def draws(seed: int = 0) -> Draws:
    return Draws(torch.Generator().manual_seed(seed))


def generator(size: tuple[int, ...] = (12, 20), num_attributes: int = 0) -> StyleGenerator:
    torch.manual_seed(4)
    return StyleGenerator(ImageShape(size, 1, 2, num_attributes), latent_dim=6, embedding_dim=5, width=3, num_layers=2)


def training(dims: int = 2, precision: str = "float32", **changes: Any) -> GanTraining:
    size = SIZES[dims]
    settings = {
        "batch_size": 4, "latent_dim": 6, "embedding_dim": 5, "generator_width": 8, "discriminator_width": 8,
    } | changes  # fmt: skip
    images = StoredImages(
        stored=torch.randint(0, 255, (8, 1, *size), generator=torch.Generator().manual_seed(1), dtype=torch.uint8),
        label=torch.arange(8) % 2,
        scaling=Scaling(1.0, 0.0, "none", (0.0, 255.0), "uint8"),
    )
    return assemble(Stylegan2Config(**settings), images, ImageShape(size, 1, 2), Hardware("cpu", precision), seed=3)


@grid
@pytest.mark.parametrize("demodulate", [True, False])
def test_modulated_convolution_equals_one_with_each_images_own_weights(dims: int, demodulate: bool) -> None:
    """Equations 1 and 3 of the paper, written out image by image."""
    torch.manual_seed(0)
    layer = ModulatedConv(dims, 3, 5, 3, style_dim=4, demodulate=demodulate, gain=1.5)
    nn.init.normal_(layer.bias)
    features, w = torch.randn(4, 3, *SIZES[dims]), torch.randn(4, 4)
    convolve = {2: conv2d, 3: conv3d}[dims]
    expected = []
    for image, own in zip(features, w, strict=True):
        style = 1 + layer.style.weight @ own / math.sqrt(4)
        weight = layer.weight * style.view(1, 3, *[1] * dims) / math.sqrt(3 * 3**dims)
        if demodulate:
            norms = torch.stack([part.square().sum().sqrt() for part in weight])
            weight = 1.5 * weight / norms.view(5, 1, *[1] * dims)
        expected.append(convolve(image[None], weight, layer.bias, padding=1))
    torch.testing.assert_close(layer(features, w), torch.cat(expected), atol=1e-5, rtol=1e-4)


@grid
def test_demodulated_outputs_have_unit_deviation_whatever_the_style(dims: int) -> None:
    torch.manual_seed(0)
    layer = ModulatedConv(dims, 32, 16, 3, style_dim=4, gain=1.0)
    features = torch.randn(6, 32, *[24 if dims == 2 else 12] * dims)
    inside = (..., *[slice(1, -1)] * dims)
    for size in (0.1, 30.0):
        outputs = layer(features, size * torch.randn(6, 4)).detach()[inside]
        deviation = outputs.flatten(2).std(dim=2)
        assert float(deviation.mean()) == pytest.approx(1, abs=0.02)
        assert (deviation - 1).abs().max() < 0.2


@grid
def test_resizing_is_the_paper_s_filter_up_and_a_box_down(dims: int) -> None:
    """Doubling spreads a voxel by [1, 3, 3, 1] / 4 along each axis; halving takes the mean of each pair."""
    voxel = torch.zeros(1, 1, *[5] * dims)
    voxel[(0, 0, *[2] * dims)] = 1
    spread = torch.tensor([0, 0, 0, 1, 3, 3, 1, 0, 0, 0]) / 4
    letters = "ab" if dims == 2 else "abc"
    expected = torch.einsum(f"{','.join(letters)}->{letters}", *[spread] * dims)
    torch.testing.assert_close(resized(voxel, 2)[0, 0], expected)
    ramp = torch.arange(7.0).expand(1, 1, *[2] * (dims - 1), 7)
    assert resized(ramp, 0.5).flatten().tolist() == [0.5, 2.5, 4.5]


class Recording(Draws):
    """Keeps what it drew."""

    def randn(self, shape: Sequence[int]) -> Tensor:
        self.last = super().randn(shape)
        return self.last


class LinearGenerator(nn.Module):
    """Images of 2 x 3 voxels that are a known matrix times the two layers' styles."""

    latent_dim, num_styles = 4, 2

    def __init__(self) -> None:
        super().__init__()
        self.matrix = nn.Parameter(torch.randn(2, 6, 4, generator=torch.Generator().manual_seed(8)))

    def map(self, z: Tensor, condition: Condition) -> Tensor:
        return z * self.matrix.sum().sign()  # a mapping with a graph

    def synthesise(self, w: Tensor) -> Tensor:
        return torch.einsum("lvd,bld->bv", self.matrix, w).view(-1, 1, 2, 3)


def turn_of(nets: dict[str, nn.Module], random: Draws, batch: int, mixing: float = 0.9, **states: nn.Module) -> Any:
    table = Context(nets, Augmenter(AugmentConfig()), random, nullcontext(), states)
    batches = {"labelled": Batch(torch.zeros(batch, 1, 2, 3), torch.arange(batch) % 2)}
    return style_turn(mixing)(table, batches, ("generator",))


def test_path_length_of_a_linear_generator_and_its_running_mean() -> None:
    """|Jᵀ y| is |Mᵀ y| for a linear generator: in the root mean square over layers, on half of the batch."""
    net, random, state = LinearGenerator(), Recording(torch.Generator().manual_seed(2)), PathLength()
    mean = 0.0
    for _ in range(3):
        value = path_length(turn_of({"generator": net}, random, 6, path_length=state))
        assert random.last.shape == (3, 1, 2, 3)
        lengths = []
        for noise in random.last.flatten(1) / math.sqrt(6):
            squares = [float((matrix.T @ noise).square().sum()) for matrix in net.matrix.detach()]
            lengths.append(math.sqrt(sum(squares) / 2))
        mean += 0.01 * (sum(lengths) / 3 - mean)
        expected = sum((length - mean) ** 2 for length in lengths) / 3
        assert float(value.detach()) == pytest.approx(expected, rel=1e-5)
        assert float(state.get_buffer("mean")) == pytest.approx(mean, rel=1e-5)


@grid
def test_path_length_and_r1_can_be_differentiated_by_every_weight(dims: int) -> None:
    for player, term in ((0, "r1"), (1, "path_length")):
        whole = training(dims)
        mover = whole.recipe.players[player]
        turn = whole.turn(mover)
        train_only = {name: net for name, net in whole.context.nets.items() if name in mover.trains}
        next(one.term for one in mover.terms if one.name == term)(turn).backward()
        for net in train_only.values():
            gradients = {
                name: weight.grad for name, weight in net.named_parameters() if "bias" not in name and weight.ndim > 1
            }
            for name, gradient in gradients.items():
                assert gradient is not None and torch.isfinite(gradient).all() and gradient.any(), name


def test_mixed_styles_change_at_the_crossover() -> None:
    own, other = torch.zeros(4, 2), torch.ones(4, 2)
    styles = mixed(own, other, torch.tensor([0, 1, 3, 5]), 5)
    assert styles.shape == (4, 5, 2)
    assert styles[..., 0].tolist() == [[1, 1, 1, 1, 1], [0, 1, 1, 1, 1], [0, 0, 0, 1, 1], [0, 0, 0, 0, 0]]


def test_images_of_one_style_in_all_layers_are_those_of_that_style() -> None:
    net = generator().eval()
    w = net.map(torch.randn(4, 6), Condition(label=torch.tensor([0, 1, 0, 1])))
    pure = net.synthesise(w)
    for crossover, first, second in ((0, w.flip(0), w), (net.num_styles, w, w.flip(0))):
        styles = mixed(first, second, torch.full((4,), crossover), net.num_styles)
        torch.testing.assert_close(net.synthesise(styles), pure)
    half = net.synthesise(mixed(w, w.flip(0), torch.full((4,), 3), net.num_styles))
    assert not torch.allclose(half, pure, atol=1e-4)


@pytest.mark.parametrize("mixing", [0.0, 0.3, 1.0])
def test_the_asked_share_of_images_is_mixed_at_every_crossover(mixing: float) -> None:
    net = generator()
    turn: StyleTurn = turn_of({"generator": net}, draws(), 2000, mixing)
    w = net.map(turn.z, turn.condition)
    is_own = (turn.styles == w[:, None]).all(dim=2)
    assert is_own[:, 0].all()
    assert (is_own.int().diff(dim=1) <= 0).all()  # never back
    is_mixed = ~is_own.all(dim=1)
    assert float(is_mixed.float().mean()) == pytest.approx(mixing, abs=0.04)
    if mixing:
        assert sorted(is_own[is_mixed].sum(dim=1).unique().tolist()) == list(range(1, net.num_styles))


@grid
def test_truncation_goes_from_the_image_to_the_mean_image_of_its_own_condition(dims: int) -> None:
    net = generator(SIZES[dims], num_attributes=1).eval()
    z = torch.randn(4, 6, generator=torch.Generator().manual_seed(3))
    condition = Condition(label=torch.tensor([0, 0, 1, 1]), attributes=torch.tensor([[1.0], [1.0], [1.0], [-1.0]]))
    with torch.no_grad():
        torch.testing.assert_close(net.truncated(z, condition, 1.0), net(z, condition))
        means = net.truncated(z, condition, 0.0)
        many = torch.randn(4000, 6, generator=torch.Generator().manual_seed(9))
        for row, (label, attribute) in enumerate([(0, 1.0), (0, 1.0), (1, 1.0), (1, -1.0)]):
            same = Condition(label=torch.full((4000,), label), attributes=torch.full((4000, 1), attribute))
            w = net.map(many, same)
            assert (net.mean_style(condition)[row] - w.mean(dim=0)).abs().max() < 0.15 * w.std()
        torch.testing.assert_close(means, net.synthesise(net.mean_style(condition)))
        torch.testing.assert_close(means[0], means[1])
        assert not torch.allclose(means[1], means[2], atol=1e-3) and not torch.allclose(means[2], means[3], atol=1e-3)
        steps = [(net.truncated(z, condition, psi) - means).square().mean() for psi in (0.25, 0.5, 1.0)]
        assert steps[0] < steps[1] < steps[2]


@grid
def test_noise_is_drawn_in_training_and_fixed_otherwise(dims: int) -> None:
    net = generator(SIZES[dims])
    z, condition = torch.randn(1, 6).expand(3, 6), Condition(label=torch.zeros(3, dtype=torch.int64))
    with torch.no_grad():
        still = net(z, condition)
        net.draws = draws()
        torch.testing.assert_close(net(z, condition), still)  # noise begins with strength 0
        for level in net.levels:
            for conv in level.convs:
                conv.strength.fill_(0.5)
        first, second = net(z, condition), net(z, condition)
        assert not torch.allclose(first, second, atol=1e-3)
        assert not torch.allclose(first[0], first[1], atol=1e-3)
        net.eval()
        fixed = net(z, condition)
        torch.testing.assert_close(fixed, net(z, condition), atol=0, rtol=0)
        torch.testing.assert_close(fixed[0], fixed[1])
        assert not torch.allclose(fixed, still, atol=1e-3)


def test_r1_and_path_length_are_lazy_and_weighted_for_it() -> None:
    whole = training(r1_gamma=0.3, r1_every=16, path_weight=2.0, path_every=4)
    discriminator_player, generator_player = whole.recipe.players
    for step in (0, 1, 4, 16):
        turn = whole.turn(discriminator_player)
        images = turn.real_seen.clone().requires_grad_()
        logits = whole.context.nets["discriminator"](images, turn.condition).logits
        (slope,) = torch.autograd.grad(logits.sum(), images)
        figures = whole.stepper.move(discriminator_player, [turn], 1, step)
        assert ("discriminator.r1" in figures) == (step in (0, 16))
        if step in (0, 16):
            expected = 16 * 0.3 / 2 * float(slope.square().sum() / len(images))
            assert float(figures["discriminator.r1"]) == pytest.approx(expected, rel=1e-3)
        figures = whole.stepper.move(generator_player, [whole.turn(generator_player)], 1, step)
        assert ("generator.path_length" in figures) == (step != 1)
    mean = whole.context.states["path_length"].get_buffer("mean")
    assert float(mean) > 0 and not mean.requires_grad


def test_a_regulariser_of_weight_0_is_not_computed() -> None:
    whole = training(r1_gamma=0.0, path_weight=0.0)
    assert [[term.name for term in player.terms] for player in whole.recipe.players] == [["logistic"], ["logistic"]]


@grid
def test_recomputed_activations_give_the_same_training(dims: int) -> None:
    kept, recomputed = (training(dims, checkpointing=wanted) for wanted in (False, True))
    for whole in (kept, recomputed):
        train(whole, 8, lambda _: None)
    for name in ("generator", "discriminator"):
        pairs = zip(kept.context.nets[name].parameters(), recomputed.context.nets[name].parameters(), strict=True)
        for one, other in pairs:
            torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


@grid
def test_styles_stay_float32_where_images_are_made_in_bf16(dims: int) -> None:
    whole = training(dims, "bf16")
    turn: Any = whole.turn(whole.recipe.players[1])
    assert turn.fake.dtype == torch.float32 and turn.styles.dtype == torch.float32
    exact = whole.context.nets["generator"]
    train(whole, 8, lambda _: None)
    assert all(torch.isfinite(value).all() for value in exact.parameters())


def test_class_and_attributes_have_equal_parts_in_the_code() -> None:
    torch.manual_seed(0)
    code = EqualCode(ImageShape((8, 8), 1, 3, num_attributes=1), size=4000)
    base = code(Condition(label=torch.tensor([1]), attributes=torch.zeros(1, 1))).detach()
    moved = code(Condition(label=torch.tensor([1]), attributes=torch.ones(1, 1))).detach() - base
    assert float(base.square().mean()) == pytest.approx(0.5, abs=0.05)
    assert float(moved.square().mean()) == pytest.approx(0.5, abs=0.05)
    with pytest.raises(ValueError, match="needs 1 attributes"):
        code(Condition(label=torch.tensor([1])))


@grid
def test_the_discriminator_reads_class_attributes_and_its_neighbours_in_the_batch(dims: int) -> None:
    torch.manual_seed(0)
    net = StyleDiscriminator(ImageShape(SIZES[dims], 1, 2, num_attributes=1), width=4)
    images = torch.randn(4, 1, *SIZES[dims])
    base = Condition(label=torch.zeros(4, dtype=torch.int64), attributes=torch.zeros(4, 1))
    with torch.no_grad():
        logits = net(images, base).logits
        assert logits.shape == (4,)
        for changed in (
            Condition(base.label, None, base.attributes + 1),
            Condition(base.label + 1, None, base.attributes),
        ):
            assert not torch.allclose(net(images, changed).logits, logits, atol=1e-3)
        alike = net(images[:1].expand_as(images), base).logits  # four times the first image: no deviation
        torch.testing.assert_close(alike, alike[:1].expand(4))
        assert abs(float(alike[0] - logits[0])) > 1e-3

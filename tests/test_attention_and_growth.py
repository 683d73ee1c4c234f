"""Self-attention, equalised layers and progressive growing: against plain formulas."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from pipeline.adversarial.assembly import assemble
from pipeline.adversarial.growth import Growth, drift, grown
from pipeline.adversarial.loop import GanTraining, sample, train
from pipeline.config.families import validate_gan
from pipeline.core.compute import Hardware
from pipeline.data.batches.scaling import Scaling
from pipeline.data.batches.streams import StoredImages
from pipeline.nets.attention import SelfAttention, attend, attended_grid
from pipeline.nets.conditions import condition_of
from pipeline.nets.equalised import EqualConv, EqualLinear, MinibatchDeviation, PixelNorm
from pipeline.nets.growing import GrowingDiscriminator, GrowingGenerator
from pipeline.nets.sizes import ImageShape

both_dims = pytest.mark.parametrize("dims", [2, 3])
LABEL = torch.tensor([0, 1, 2, 0])


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def training_of(name: str, size: tuple[int, ...], **changes: Any) -> GanTraining:
    values = {"family": name, "batch_size": 4, "latent_dim": 6, "generator_width": 8, "discriminator_width": 8}
    stored = torch.randint(0, 255, (12, 1, *size), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    images = StoredImages(stored, torch.arange(12) % 3, Scaling(1.0, 0.0, "none", (0.0, 255.0), "uint8"))
    return assemble(validate_gan(values | changes), images, ImageShape(size, 1, 3), Hardware("cpu", "float32"), 3)


# --- attention


@both_dims
def test_attention_begins_as_identity_and_its_gate_learns(dims: int) -> None:
    layer, features = SelfAttention(dims, 8), noise(2, 8, *[4] * dims)
    out = layer(features)
    assert torch.equal(out, features)
    out.square().sum().backward()
    assert layer.gate.grad is not None and float(layer.gate.grad.abs()) > 0


@both_dims
def test_attention_equals_the_papers_formula_voxel_by_voxel(dims: int) -> None:
    layer, features = SelfAttention(dims, 16).eval(), noise(2, 16, *[4] * dims)
    nn.init.constant_(layer.gate, 0.7)
    max_pool = (nn.functional.max_pool2d, nn.functional.max_pool3d)[dims - 2]
    with torch.no_grad():
        f, g, h, v = (part.weight.flatten(1) for part in (layer.query, layer.key, layer.value, layer.out))
        assert [len(part) for part in (f, g, h, v)] == [2, 2, 8, 16]  # C / 8, C / 8, C / 2, C
        expected = torch.empty_like(features).flatten(2)
        for image in range(2):
            x = features[image].flatten(1)
            keys = max_pool((g @ x).view(1, 2, *[4] * dims), 2).flatten(2)[0]
            values = max_pool((h @ x).view(1, 8, *[4] * dims), 2).flatten(2)[0]
            for voxel in range(x.shape[1]):
                similar = [math.exp(float((f @ x[:, voxel]) @ keys[:, key])) for key in range(keys.shape[1])]
                mixed = sum(weight / sum(similar) * values[:, key] for key, weight in enumerate(similar))
                expected[image, :, voxel] = x[:, voxel] + 0.7 * (v @ mixed)
        torch.testing.assert_close(layer(features).flatten(2), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("similar", "carried"), [(3, 8), (8, 3), (1, 1)])
def test_the_fused_kernel_gives_softmax_and_its_gradient(similar: int, carried: int) -> None:
    parts = [noise(2, similar, 50, seed=1), noise(2, similar, 9, seed=2), noise(2, carried, 9, seed=3)]
    mine, plain = ([part.clone().requires_grad_() for part in parts] for _ in range(2))
    out = attend(*mine)
    queries, keys, values = plain
    expected = torch.einsum("bvm,bmn->bvn", values, torch.einsum("bcm,bcn->bmn", keys, queries).softmax(dim=1))
    torch.testing.assert_close(out, expected)
    out.square().sum().backward()
    expected.square().sum().backward()
    for one, other in zip(mine, plain, strict=True):
        torch.testing.assert_close(one.grad, other.grad, atol=1e-4, rtol=1e-4)


class LargestTensor(TorchDispatchMode):
    """Remembers how many bytes the largest tensor had that any operation made."""

    bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        made = [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
        self.bytes = max([self.bytes, *(tensor.numel() * tensor.element_size() for tensor in made)])
        return result


def test_the_attention_table_is_never_held() -> None:
    table = 4 * 1728 * 216  # bytes of N queries by N / 8 keys, N = 12³
    features = noise(1, 8, 12, 12, 12).requires_grad_()
    with LargestTensor() as fused:
        SelfAttention(3, 8)(features).sum().backward()
    assert fused.bytes < table / 8
    with LargestTensor() as plain:
        (noise(1, 1728, 2) @ noise(1, 2, 216)).softmax(dim=2)
    assert plain.bytes == table  # the measure does see tables


def test_attention_acts_on_the_largest_grid_that_is_small_enough() -> None:
    assert attended_grid([(8, 8), (16, 16), (32, 32)], 16) == 1
    assert attended_grid([(16, 16, 16), (8, 8, 8)], 16) == 0
    assert attended_grid([(16, 24), (8, 12)], 16) == 1
    assert attended_grid([(32, 32)], 16) is None


# --- equalised layers


@both_dims
def test_equalised_weights_have_the_papers_spread_at_run_time(dims: int) -> None:
    torch.manual_seed(0)
    conv, linear = EqualConv(dims, 32, 48, 3), EqualLinear(256, 200, gain=0.5, lr_multiplier=0.01, bias=1.0)
    assert float((conv.weight * conv.scale).detach().std()) == pytest.approx(math.sqrt(2 / (32 * 3**dims)), rel=0.02)
    assert float((linear.weight * linear.scale).detach().std()) == pytest.approx(0.5 / math.sqrt(256), rel=0.02)
    images, features = noise(2, 32, *[5] * dims), noise(2, 256)
    with torch.no_grad():
        nn.init.normal_(conv.bias)
        convolve = (nn.functional.conv2d, nn.functional.conv3d)[dims - 2]
        expected = convolve(images, conv.weight * math.sqrt(2 / (32 * 3**dims)), conv.bias, padding=1)
        torch.testing.assert_close(conv(images), expected, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(linear(torch.zeros(1, 256)), torch.ones(1, 200))
        before = linear(features)
        linear.weight += 1  # a learning step moves the function a hundredth as far as without the multiplier
        moved = features.sum(dim=1, keepdim=True) * 0.5 / math.sqrt(256) * 0.01
        torch.testing.assert_close(linear(features) - before, moved.expand(-1, 200), atol=1e-4, rtol=1e-3)


@both_dims
def test_pixel_norm_keeps_directions_and_makes_the_mean_square_one(dims: int) -> None:
    features = 5 * noise(2, 6, *[3] * dims)
    out = PixelNorm()(features)
    torch.testing.assert_close(out.square().mean(dim=1), torch.ones(2, *[3] * dims))
    torch.testing.assert_close(nn.functional.cosine_similarity(out, features), torch.ones(2, *[3] * dims))


@both_dims
@pytest.mark.parametrize(("batch", "group"), [(8, 4), (6, 3), (2, 2), (5, 1)])
def test_minibatch_deviation_against_a_plain_loop(dims: int, batch: int, group: int) -> None:
    features = noise(batch, 3, *[4] * dims)
    out = MinibatchDeviation(group_size=4)(features)
    assert out.shape == (batch, 4, *[4] * dims) and torch.equal(out[:, :3], features)
    for image in range(batch):
        groups = batch // group
        mates = [features[other].flatten() for other in range(batch) if other % groups == image % groups]
        assert len(mates) == group
        mean = sum(mates) / group
        deviation = (sum((mate - mean) ** 2 for mate in mates) / group).sqrt().mean()
        torch.testing.assert_close(out[image, 3], deviation.expand(*[4] * dims), atol=2e-4, rtol=1e-4)


def test_minibatch_deviation_of_identical_images_is_nothing() -> None:
    out = MinibatchDeviation()(noise(1, 3, 4, 4).expand(4, -1, -1, -1))
    assert out[:, 3].abs().max() < 2e-4  # the root of the 1e-8 that keeps its gradient finite


# --- growing


def growing(kind: Any, size: tuple[int, ...]) -> Any:
    torch.manual_seed(0)
    more = {"latent_dim": 6, "embedding_dim": 4} if kind is GrowingGenerator else {}
    return kind(ImageShape(size, 1, 3), width=4, **more).eval()


def made_at(generator: GrowingGenerator, growth: float) -> Tensor:
    generator.growth.fill_(growth)
    return sample(generator, noise(4, 6), condition_of(LABEL))


@both_dims
def test_an_image_is_made_of_blocks_of_its_level(dims: int) -> None:
    generator = growing(GrowingGenerator, (16,) * dims)
    assert generator.levels == 2
    for level, block in ((0, 4), (1, 2)):
        image = made_at(generator, level)
        coarse = image[(..., *[slice(None, None, block)] * dims)]
        repeated = coarse
        for axis in range(2, 2 + dims):
            repeated = repeated.repeat_interleave(block, dim=axis)
        assert torch.equal(image, repeated)
        finer = coarse.diff(dim=2).abs().mean()
        assert finer > 0  # neighbouring blocks differ
    assert made_at(generator, 2).diff(dim=2)[:, :, ::2].abs().mean() > 0


@both_dims
def test_a_level_is_faded_in_linearly(dims: int) -> None:
    generator = growing(GrowingGenerator, (16,) * dims)
    small, middle, whole = (made_at(generator, growth) for growth in (0, 1, 2))
    torch.testing.assert_close(made_at(generator, 0.25), 0.75 * small + 0.25 * middle)
    torch.testing.assert_close(made_at(generator, 1.5), 0.5 * middle + 0.5 * whole)


@both_dims
def test_a_discriminator_sees_no_more_than_its_level(dims: int) -> None:
    discriminator = growing(GrowingDiscriminator, (16,) * dims)
    images = noise(4, 1, *[16] * dims)
    sign = torch.ones(16)
    sign[1::2] = -1  # +1, -1, +1, ... along one axis: its means over pairs are 0
    stripes = sign.view(16, *[1] * (dims - 1)).expand(images.shape)
    for growth, sees in ((0, False), (1, False), (1.25, True), (2, True)):
        discriminator.growth.fill_(growth)
        with torch.no_grad():
            logits, striped = (discriminator(x, condition_of(LABEL)).logits for x in (images, images + stripes))
        assert (not torch.allclose(logits, striped, atol=1e-4)) is sees, growth


@both_dims
def test_a_discriminators_fade_is_the_mean_of_both_ways_in(dims: int) -> None:
    discriminator = growing(GrowingDiscriminator, (8,) * dims)
    discriminator.growth.fill_(0.3)
    images, act = noise(4, 1, *[8] * dims), lambda x: nn.functional.leaky_relu(x, 0.2)
    pool = (nn.functional.avg_pool2d, nn.functional.avg_pool3d)[dims - 2]
    with torch.no_grad():
        coarse = act(discriminator.images[0](pool(images, 2)))
        block = discriminator.blocks[0]
        fine = pool(act(block.second(act(block.first(act(discriminator.images[1](images)))))), 2)
        features = act(discriminator.last(discriminator.deviation(0.7 * coarse + 0.3 * fine)))
        dense = act(discriminator.dense(features.flatten(1)))
        classes = discriminator.embedding.weight.T[LABEL]  # gain √3 over √3 classes: the table itself
        expected = discriminator.score(dense)[:, 0] + (classes * dense).sum(dim=1) / math.sqrt(dense.shape[1])
        torch.testing.assert_close(discriminator(images, condition_of(LABEL)).logits, expected, atol=1e-5, rtol=1e-5)


def test_levels_that_are_not_there_get_no_gradient() -> None:
    generator = growing(GrowingGenerator, (16, 16))
    for growth, moving in ((0.0, [True, False, False]), (0.5, [True, True, False]), (2.0, [False, False, True])):
        generator.zero_grad()
        generator.growth.fill_(growth)
        generator(noise(4, 6), condition_of(LABEL)).square().sum().backward()
        assert [bool(head.weight.grad.abs().sum() > 0) for head in generator.images] == moving


@pytest.mark.parametrize("size", [(9, 18), (8, 9, 11)])
def test_a_frame_puts_halvings_where_the_generators_are(size: tuple[int, ...]) -> None:
    discriminator, generator = growing(GrowingDiscriminator, size), growing(GrowingGenerator, size)
    whole = tuple(side * 2**generator.levels for side in generator.grid)
    framed = discriminator._framed(made_at(generator, 0))
    assert framed.shape[2:] == whole and whole != size
    pool = (nn.functional.avg_pool2d, nn.functional.avg_pool3d)[len(size) - 2]
    coarse = nn.functional.interpolate(pool(framed, 2), scale_factor=2.0, mode="nearest")
    inside = discriminator._framed(torch.ones(4, 1, *size)) == 1
    same = torch.isclose(coarse, framed) | ~inside
    edges = torch.zeros_like(same)
    for axis, (side, grid) in enumerate(zip(size, whole, strict=True), start=2):
        if side != grid:
            edges.narrow(axis, 0, 2).fill_(True)
            edges.narrow(axis, grid - 2, 2).fill_(True)
    assert (same | edges).all()


@pytest.mark.parametrize(
    ("num_images", "growth"),
    [(0, 0), (99, 0), (100, 0), (150, 0.5), (200, 1), (250, 1), (300, 1), (375, 1.75), (450, 2), (550, 2.5), (600, 3),
     (1199, 3)],
)  # fmt: skip
def test_growth_at_given_images(num_images: int, growth: float) -> None:
    """1,200 images, half of them growing by three levels: six parts of 100 images."""
    assert grown(num_images / 1200, 0.5, 3) == pytest.approx(growth)
    nets = {"generator": growing(GrowingGenerator, (32, 32)), "other": nn.Linear(1, 1)}
    training: Any = SimpleNamespace(num_images=num_images, total_images=1200, context=SimpleNamespace(nets=nets))
    Growth(0.5)(training)
    assert float(nets["generator"].growth) == pytest.approx(growth)


def test_without_growing_nets_are_whole_from_the_beginning() -> None:
    assert grown(0.0, 0.0, 3) == 3


def test_a_progan_grows_in_training_and_its_average_with_it() -> None:
    training = training_of("progan", (8, 8), num_images=80, growing=0.5)
    seen: list[float] = []
    train(training, 44, lambda now: seen.append(float(now.ema.nets["generator"].growth)))
    assert seen == pytest.approx([0, 0, 0, 0, 0, 0, 0.2, 0.4, 0.6, 0.8, 1])
    assert float(training.context.nets["discriminator"].growth) == 1
    figures = {name: float(value) for name, value in training.figures.items()}
    assert figures["wasserstein_estimate"] == pytest.approx(-figures["discriminator.wasserstein"], abs=1e-6)
    assert figures["discriminator.gradient_penalty"] >= 0
    assert figures["discriminator"] == pytest.approx(
        sum(figures[f"discriminator.{term}"] for term in ("wasserstein", "gradient_penalty", "drift")), abs=1e-5
    )


def test_drift_is_the_mean_square_of_real_logits() -> None:
    turn: Any = SimpleNamespace(real_logits=torch.tensor([1.0, -2.0, 4.0]))
    assert float(drift(turn)) == 7

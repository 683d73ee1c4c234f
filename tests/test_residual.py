"""Residual nets with self-attention, orthogonality, truncation, and what the three families cost."""

from __future__ import annotations

from itertools import combinations
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from scipy.stats import norm, truncnorm
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from pipeline.adversarial.families import FAMILIES
from pipeline.adversarial.loop import sample
from pipeline.adversarial.orthogonality import off_diagonal, orthogonality
from pipeline.config.families import validate_gan
from pipeline.nets.attention import SelfAttention
from pipeline.nets.conditions import Condition, condition_of
from pipeline.nets.generators import ConditionalBatchNorm
from pipeline.nets.residual import ResidualDiscriminator, ResidualGenerator, TruncatingGenerator, truncated_normal
from pipeline.nets.sizes import ImageShape

both_dims = pytest.mark.parametrize("dims", [2, 3])
LABEL = torch.tensor([0, 1, 2, 0])


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def residual(kind: type[ResidualGenerator], size: tuple[int, ...], latent_dim: int = 6, skip_z: bool = True) -> Any:
    torch.manual_seed(0)
    return kind(ImageShape(size, 1, 3), latent_dim, embedding_dim=4, width=4, attention_side=8, skip_z=skip_z)


@both_dims
def test_spectral_norm_holds_in_both_nets(dims: int) -> None:
    size = (16,) * dims
    generator = residual(ResidualGenerator, size)
    discriminator = ResidualDiscriminator(ImageShape(size, 1, 3), width=4, attention_side=8)
    for _ in range(3):  # power iterations, beside the 15 that a new layer has had
        with torch.no_grad():
            discriminator(generator(noise(4, 6), condition_of(LABEL)), condition_of(LABEL))
    for net in (generator.eval(), discriminator.eval()):
        layers = [module for name, module in net.named_modules() if isinstance(module, nn.modules.conv._ConvNd)]
        layers.append(net.start if net is generator else net.score)
        assert any(module is net.attention.query for module in layers)
        for layer in layers:
            weight = layer.weight.detach().flatten(1)
            assert float(torch.linalg.matrix_norm(weight, 2)) == pytest.approx(1, abs=0.1)


def test_z_is_cut_with_the_first_pieces_longer() -> None:
    assert residual(ResidualGenerator, (32, 32), latent_dim=8).pieces == [2, 2, 2, 2]
    assert residual(ResidualGenerator, (32, 32), latent_dim=6).pieces == [2, 2, 1, 1]
    assert residual(ResidualGenerator, (32, 32), latent_dim=2).pieces == [1, 1, 0, 0]
    assert residual(ResidualGenerator, (32, 32), skip_z=False).pieces == [6, 0, 0, 0]


def test_skip_z_reaches_its_own_block_only_and_the_embedding_is_shared() -> None:
    generator = residual(TruncatingGenerator, (32, 32), latent_dim=8).eval()
    seen: list[list[Tensor]] = []
    for block in generator.blocks:
        block.register_forward_hook(lambda _, inputs, out: seen[-1].append(inputs[1]))
    z = noise(4, 8)
    other = torch.cat([z[:, :6], -z[:, 6:]], dim=1)  # the last block's piece
    for one in (z, other):
        seen.append([])
        generator(one, condition_of(LABEL))
    assert [torch.equal(*codes) for codes in zip(*seen, strict=True)] == [True, True, False]
    [embedding] = [module for module in generator.modules() if isinstance(module, nn.Embedding)]
    for code, piece in zip(seen[0], z.split(2, dim=1)[1:], strict=True):
        assert torch.equal(code, torch.cat([embedding(LABEL), piece], dim=1))


def test_without_skip_z_norms_see_the_condition_alone() -> None:
    generator = residual(ResidualGenerator, (16, 16), skip_z=False)
    norms = [module for module in generator.modules() if isinstance(module, ConditionalBatchNorm)]
    assert norms and all(module.affine.in_features == 4 for module in norms)


def test_orthogonality_against_a_plain_loop_and_worked_numbers() -> None:
    assert float(off_diagonal(torch.tensor([[1.0, 0], [1, 1]]))) == 2  # products [[1, 1], [1, 2]]
    assert float(off_diagonal(3 * torch.linalg.qr(noise(6, 6))[0])) == pytest.approx(0, abs=1e-6)
    rows = noise(5, 7)
    expected = 2 * sum(float(one @ other) ** 2 for one, other in combinations(rows, 2))
    assert float(off_diagonal(rows)) == pytest.approx(expected, rel=1e-5)


def test_the_orthogonal_term_reads_weights_not_embeddings_or_biases() -> None:
    net = nn.Sequential(nn.Embedding(3, 2), nn.Conv2d(1, 2, 1), nn.Linear(2, 2))
    for weight in net.parameters():
        nn.init.ones_(weight)
    turn: Any = SimpleNamespace(context=SimpleNamespace(nets={"generator": net}))
    assert float(orthogonality(turn).detach()) == 2 * 1 + 2 * 2**2  # conv: two rows [1]; linear: two rows [1, 1]


def test_truncated_noise_has_the_quantiles_of_a_truncated_normal() -> None:
    z = torch.cat([noise(4000), torch.tensor([0.0, -9.0, 9.0])])
    spreads = []
    for threshold in (2.0, 1.0, 0.2):
        mine = truncated_normal(z, threshold)
        expected = truncnorm(-threshold, threshold).ppf(norm.cdf(z.double().numpy()))
        torch.testing.assert_close(mine.double(), torch.from_numpy(expected), atol=1e-5, rtol=1e-5)
        assert mine.abs().max() <= threshold and mine[-3] == 0
        assert float(mine.std()) == pytest.approx(truncnorm(-threshold, threshold).std(), rel=0.05)
        spreads.append(float(mine.var()))
    assert spreads == sorted(spreads, reverse=True)


def test_sampling_with_psi_truncates_at_twice_psi() -> None:
    generator, z = residual(TruncatingGenerator, (8, 8)), noise(4, 6)
    expected = sample(generator, truncated_normal(z, 1.0), condition_of(LABEL))
    assert torch.equal(sample(generator, z, condition_of(LABEL), 0.5), expected)
    assert not torch.allclose(sample(generator, z, condition_of(LABEL)), expected)


@pytest.mark.parametrize("name", ["sagan", "biggan", "progan"])
@both_dims
def test_nets_cost_about_what_the_default_familys_do(name: str, dims: int) -> None:
    """PyTorch's counter leaves out the fused kernel on the CPU, so attention's products are added by hand."""
    flops = {}
    width, size = {2: (32, (32, 32)), 3: (16, (32, 32, 32))}[dims]
    for family in (name, "sngan"):
        config = validate_gan({"family": family, "generator_width": width, "discriminator_width": width})
        nets, _ = FAMILIES[family].build(config, ImageShape(size, 1, 3))
        condition = Condition(label=torch.tensor([0]))
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            image = nets["generator"].eval()(noise(1, 64), condition)
            nets["discriminator"].eval()(image, condition)
        attentions = [module for net in nets.values() for module in net.modules() if isinstance(module, SelfAttention)]
        products = 16**dims * 8**dims  # queries times pooled keys
        channels = sum(len(layer.query.weight) + len(layer.value.weight) for layer in attentions)
        flops[family] = counter.get_total_flops() + 2 * products * channels
    assert 0.71 <= flops[name] / flops["sngan"] <= 1.43

"""VAE and VAE-GAN: the bound against torch.distributions, and who learns from what."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributions import Normal, kl_divergence
from torch.nn.functional import binary_cross_entropy_with_logits, mse_loss
from torch.nn.utils import parametrize

from pipeline.adversarial.assembly import assemble
from pipeline.adversarial.autoencoding import AutoencodingTurn, FeatureAutoencodingTurn, divergence, reconstruction
from pipeline.adversarial.loop import GanTraining, train
from pipeline.config.augment import AugmentConfig
from pipeline.config.families import validate_gan
from pipeline.core.compute import Hardware
from pipeline.data.batches.scaling import Scaling
from pipeline.data.batches.streams import StoredImages
from pipeline.nets.conditions import Condition, condition_of
from pipeline.nets.discriminators import ProjectionDiscriminator
from pipeline.nets.encoders import Encoder, FeatureDiscriminator, Posterior
from pipeline.nets.sizes import ImageShape

PLAIN = AugmentConfig(brightness=0, contrast=0, shift=0, rotate_degrees=0, scale=0, noise=0).model_dump()
SIZE = (12, 12)


def training_of(family: str, stored: Tensor | None = None, precision: str = "float32", **changes: Any) -> GanTraining:
    values = {
        "family": family, "num_images": 10_000, "batch_size": 6, "latent_dim": 5, "embedding_dim": 4,
        "generator_width": 8, "discriminator_width": 8, "augment": PLAIN,
    }  # fmt: skip
    if stored is None:
        random = torch.Generator().manual_seed(1)
        stored = torch.randint(0, 255, (12, 1, *SIZE), generator=random, dtype=torch.uint8)
    images = StoredImages(stored, torch.arange(len(stored)) % 2, Scaling(1.0, 0.0, "none", (0.0, 255.0), "uint8"))
    shape = ImageShape(tuple(stored.shape[2:]), 1, 2)
    return assemble(validate_gan(values | changes), images, shape, Hardware("cpu", precision), seed=3)


def turn_of(training: GanTraining, player: str) -> Any:
    return training.turn(next(one for one in training.recipe.players if one.name == player))


def gradients(training: GanTraining, net: str) -> list[Tensor]:
    found = [weight.grad for weight in training.context.nets[net].parameters()]
    assert all(gradient is not None for gradient in found)
    return [gradient for gradient in found if gradient is not None]


def random_posterior(batch: int = 7, latent_dim: int = 5) -> Posterior:
    random = torch.Generator().manual_seed(2)
    mean, log_variance = torch.randn(2, batch, latent_dim, generator=random)
    return Posterior(mean, log_variance)


def test_divergence_is_that_of_torch_distributions() -> None:
    posterior = random_posterior()
    one = Normal(posterior.mean, posterior.log_variance.exp().sqrt())
    expected = kl_divergence(one, Normal(torch.zeros(()), torch.ones(()))).sum(dim=1)
    torch.testing.assert_close(posterior.divergence(), expected)


def test_draws_have_the_posteriors_mean_and_spread() -> None:
    posterior = Posterior(torch.tensor([[2.0, -1.0]]), torch.tensor([[math.log(4.0), math.log(0.25)]]))
    z = posterior.draw(torch.randn(40_000, 2, generator=torch.Generator().manual_seed(0)))
    torch.testing.assert_close(z.mean(dim=0), torch.tensor([2.0, -1.0]), atol=0.04, rtol=0)  # 4 standard errors
    torch.testing.assert_close(z.std(dim=0), torch.tensor([2.0, 0.5]), atol=0, rtol=0.02)


def test_gradients_pass_through_a_draw() -> None:
    mean, log_variance = torch.tensor([[0.5]], requires_grad=True), torch.tensor([[math.log(9.0)]], requires_grad=True)
    z = Posterior(mean, log_variance).draw(torch.tensor([[2.0]]))
    assert z.item() == pytest.approx(0.5 + 3 * 2)
    z.backward()
    assert mean.grad is not None and mean.grad.item() == 1
    assert log_variance.grad is not None and log_variance.grad.item() == pytest.approx(0.5 * 3 * 2)


def test_reconstruction_is_the_likelihood_under_the_likeliest_scale() -> None:
    images = torch.tensor([[0.5, -0.5], [1.0, 0.0]])
    decoded = images + torch.tensor([[0.1, -0.1], [0.3, 0.3]])  # squared errors 0.01, 0.01, 0.09, 0.09: mean 0.05
    value = reconstruction(SimpleNamespace(compared=(decoded, images)))  # type: ignore[arg-type]
    assert value.item() == pytest.approx(0.5 * math.log(2 * math.pi * 0.05) + 0.5)
    scales = torch.linspace(0.05, 0.8, 400)
    losses = torch.stack([-Normal(decoded, scale).log_prob(images).mean() for scale in scales])
    assert value.item() == pytest.approx(losses.min().item(), abs=1e-4)
    assert scales[losses.argmin()].item() == pytest.approx(math.sqrt(0.05), abs=0.002)


def test_a_perfect_reconstruction_is_finite() -> None:
    images = torch.zeros(2, 3)
    assert math.isfinite(reconstruction(SimpleNamespace(compared=(images, images))).item())  # type: ignore[arg-type]


def test_divergence_is_counted_a_voxel() -> None:
    posterior = Posterior(torch.ones(4, 6), torch.zeros(4, 6))  # ½ nat a dimension
    turn = SimpleNamespace(posterior=posterior, compared=(None, torch.zeros(4, 1, 5, 10)))
    assert divergence(turn).item() == pytest.approx(6 * 0.5 / 50)  # type: ignore[arg-type]


@pytest.mark.parametrize(("size", "channels"), [((12, 12), 1), ((9, 17), 1), ((20, 24), 2), ((8, 9, 10), 1)])
def test_an_encoder_takes_any_size(size: tuple[int, ...], channels: int) -> None:
    encoder = Encoder(ImageShape(size, channels, 2, num_attributes=1), latent_dim=5, embedding_dim=4, width=4)
    condition = Condition(label=torch.tensor([0, 1, 1]), attributes=torch.zeros(3, 1))
    posterior = encoder(torch.randn(3, channels, *size), condition)
    assert posterior.mean.shape == posterior.log_variance.shape == (3, 5)
    other = Condition(label=condition.label, attributes=torch.ones(3, 1))
    encoder.eval()
    images = torch.randn(3, channels, *size)
    assert not torch.equal(encoder(images, condition).mean, encoder(images, other).mean)


def test_posterior_noise_comes_from_the_trainings_draws() -> None:
    first, second = training_of("vae"), training_of("vae")
    torch.manual_seed(0)
    one = turn_of(first, "autoencoder").reconstruction
    torch.manual_seed(1)
    assert torch.equal(one, turn_of(second, "autoencoder").reconstruction)
    third = training_of("vae")
    third.context.draws.rand((1,))
    assert not torch.equal(one, turn_of(third, "autoencoder").reconstruction)


@pytest.mark.parametrize("family", ["vae", "vae-gan"])
def test_the_encoder_sees_images_as_they_are(family: str) -> None:
    training = training_of(family, augment={"brightness": 0.5, "cutout": 0.5})
    turn: AutoencodingTurn = training.turn(training.recipe.players[0])  # type: ignore[assignment]
    mean = turn.posterior.mean.detach()
    encoder = training.context.nets["encoder"]
    torch.testing.assert_close(mean, encoder(turn.batch.images, turn.condition).mean.detach())


def test_a_step_of_the_vae_follows_the_evidence_bound() -> None:
    """Gradients against a bound written with torch.distributions; its scale is held, as at the optimum it may be."""
    training, plain = training_of("vae", kl=0.7), training_of("vae", kl=0.7)
    player = training.recipe.players[0]
    figures = training.stepper.move(player, [training.turn(player)], 1, 0)
    batch = plain.streams["labelled"].next()
    condition = condition_of(batch.label)
    posterior = plain.context.nets["encoder"](batch.images, condition)
    q = Normal(posterior.mean, (0.5 * posterior.log_variance).exp())
    z = q.loc + q.scale * plain.context.draws.randn((6, 5))
    decoded = plain.context.nets["generator"](z, condition)
    scale = mse_loss(decoded, batch.images).sqrt().detach()
    bound = -Normal(decoded, scale).log_prob(batch.images).sum(dim=(1, 2, 3))
    bound = bound + 0.7 * kl_divergence(q, Normal(0.0, 1.0)).sum(dim=1)
    loss = bound.mean() / 144
    loss.backward()
    assert float(figures["autoencoder"]) == pytest.approx(loss.item(), abs=1e-5)
    for net in ("encoder", "generator"):
        for mine, theirs in zip(gradients(training, net), gradients(plain, net), strict=True):
            torch.testing.assert_close(mine, theirs, atol=1e-6, rtol=1e-3)


def larsen(training: GanTraining, player: str) -> Tensor:
    """Loss of a player of the VAE-GAN, written out after algorithm 1 of Larsen et al. (2016)."""
    nets, draws = training.context.nets, training.context.draws
    batch = training.streams["labelled"].next()
    condition = condition_of(batch.label)
    fake = nets["generator"](draws.randn((6, 5)), condition) if player != "encoder" else None
    posterior = nets["encoder"](batch.images, condition)
    q = Normal(posterior.mean, (0.5 * posterior.log_variance).exp())
    decoded = nets["generator"](q.loc + q.scale * draws.randn((6, 5)), condition)
    real, recon = nets["discriminator"](batch.images, condition), nets["discriminator"](decoded, condition)
    spread = real.features[0].detach().std()
    error = (recon.features[0] - real.features[0].detach()) / spread
    likelihood = -Normal(0.0, error.detach().square().mean().sqrt()).log_prob(error).mean()
    if fake is None:
        return likelihood + kl_divergence(q, Normal(0.0, 1.0)).sum(dim=1).mean() / real.features[0][0].numel()
    prior = nets["discriminator"](fake, condition).logits
    right, wrong = torch.ones(6), torch.zeros(6)
    cross_entropy = binary_cross_entropy_with_logits
    if player == "discriminator":
        fakes = cross_entropy(prior, wrong) + cross_entropy(recon.logits, wrong)
        return cross_entropy(real.logits, right) + fakes / 2
    return 0.3 * likelihood + (cross_entropy(prior, right) + cross_entropy(recon.logits, right)) / 2


@pytest.mark.parametrize("name", ["discriminator", "encoder", "generator"])
def test_each_player_of_the_vae_gan_learns_from_its_terms_alone(name: str) -> None:
    """The encoder gets no adversarial gradient, the discriminator none of the likelihood."""
    training, plain = (training_of("vae-gan", reconstruction=0.3) for _ in range(2))
    player = next(one for one in training.recipe.players if one.name == name)
    assert player.trains == (name,)
    figures = training.stepper.move(player, [training.turn(player)], 1, 0)
    with parametrize.cached():
        loss = larsen(plain, name)
        loss.backward()
    assert float(figures[name]) == pytest.approx(loss.item(), abs=1e-5)
    for mine, theirs in zip(gradients(training, name), gradients(plain, name), strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-6, rtol=1e-3)
    assert all(
        weight.grad is None
        for net, module in training.context.nets.items()
        for weight in module.parameters()
        if net != name
    )


def test_every_net_of_the_vae_gan_learns_in_bf16_too() -> None:
    training = training_of("vae-gan", precision="bf16")
    for player in training.recipe.players:
        training.stepper.move(player, [training.turn(player)], 1, 0)
        assert all(gradient.abs().max() > 0 for gradient in gradients(training, player.name) if gradient.ndim > 1)


def test_an_image_and_its_reconstruction_are_seen_under_one_augmentation() -> None:
    strong = PLAIN | {"brightness": 0.5, "contrast": 0.5, "shift": 0.3, "rotate_degrees": 20, "cutout": 0.5}
    training = training_of("vae-gan", augment=strong)
    turn: FeatureAutoencodingTurn = turn_of(training, "generator")
    turn.__dict__["reconstruction"] = turn.batch.images.clone()
    assert not torch.allclose(turn.real_seen, turn.batch.images)
    with parametrize.cached():
        reconstructed, images = turn.compared
    torch.testing.assert_close(reconstructed, images)


def test_the_features_shown_are_those_that_the_logit_is_made_of() -> None:
    shape = ImageShape((12, 16), 1, 3)
    shows, hides = FeatureDiscriminator(shape, 4).eval(), ProjectionDiscriminator(shape, 4).eval()
    hides.load_state_dict(shows.state_dict())
    images, condition = torch.randn(5, 1, 12, 16), condition_of(torch.tensor([0, 1, 2, 0, 1]))
    judgement = shows(images, condition)
    torch.testing.assert_close(judgement.logits, hides(images, condition).logits)
    pooled = judgement.features[0].sum(dim=(2, 3))
    expected = shows.score(pooled)[:, 0] + shows.projection(pooled, condition)
    torch.testing.assert_close(judgement.logits, expected)


def test_a_vae_uses_its_latent_and_its_class() -> None:
    """Blobs whose place is random and whose brightness is the class: z must carry the one, the class the other."""
    random = torch.Generator().manual_seed(0)
    centre = 3 + 6 * torch.rand(64, 2, generator=random)
    rows, columns = torch.meshgrid(torch.arange(12), torch.arange(12), indexing="ij")
    squared = (rows - centre[:, :1, None]).square() + (columns - centre[:, 1:, None]).square()
    bright = torch.where(torch.arange(64) % 2 == 1, 250.0, 120.0)
    stored = (bright[:, None, None] * torch.exp(-squared / 8)).to(torch.uint8)[:, None]
    training = training_of("vae", stored, batch_size=16, generator_lr=3e-3)
    train(training, 250 * 16, lambda _: None)
    turn: AutoencodingTurn = turn_of(training, "autoencoder")
    assert turn.posterior.divergence().mean().item() > 2
    error = mse_loss(turn.reconstruction, turn.batch.images)
    assert error.item() < 0.3 * float(turn.batch.images.var(dim=0).mean())
    generator = training.ema.nets["generator"].eval()
    z = torch.randn(100, 5, generator=random)
    dark, light = (generator(z, condition_of(torch.full((100,), k))).amax(dim=(1, 2, 3)).mean().item() for k in (0, 1))
    assert light - dark > 0.25  # 1 between the classes' brightest voxels; samples blur it

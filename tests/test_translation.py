"""CycleGAN, pix2pix and SPADE: their terms against plain numbers, and what is special about their nets."""

from __future__ import annotations

import io
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pipeline.adversarial.assembly import assemble
from pipeline.adversarial.loop import GanTraining, train
from pipeline.adversarial.translation import (
    CycleTurn,
    ImageBuffer,
    augmented_alike,
    cycle_error,
    feature_matching,
    identity_error,
    pixel_error,
)
from pipeline.adversarial.turns import Context
from pipeline.config.augment import DISCRIMINATOR_AUGMENT, AugmentConfig
from pipeline.config.families import validate_gan
from pipeline.core.compute import Hardware
from pipeline.data.batches.augmentation import Augmenter
from pipeline.data.batches.draws import Draws
from pipeline.data.batches.scaling import Scaling
from pipeline.data.batches.streams import Batch, StoredImages
from pipeline.nets.conditions import Condition, Judgement
from pipeline.nets.sizes import ImageShape
from pipeline.nets.spade import SpadeGenerator
from pipeline.nets.translators import ResidualTranslator

PLAIN = AugmentConfig(brightness=0, contrast=0, shift=0, rotate_degrees=0, scale=0, noise=0)
both_dims = pytest.mark.parametrize("size", [(12, 12), (8, 9, 10)])


def draws_of(seed: int) -> Draws:
    return Draws(torch.Generator().manual_seed(seed))


def training_of(name: str, size: tuple[int, ...] = (12, 12), **changes: Any) -> GanTraining:
    values = {
        "family": name, "batch_size": 4, "latent_dim": 6, "embedding_dim": 4, "generator_width": 4,
        "discriminator_width": 4,
    }  # fmt: skip
    random = torch.Generator().manual_seed(1)
    images = StoredImages(
        stored=torch.randint(0, 255, (12, 1, *size), generator=random, dtype=torch.uint8),
        label=torch.arange(12) % 3,
        scaling=Scaling(1.0, 0.0, "none", (0.0, 255.0), "uint8"),
        masks=torch.randint(0, 2, (12, 1, *size), generator=random, dtype=torch.uint8),
    )
    shape = ImageShape(size, 1, 3, positive=(2,))
    return assemble(validate_gan(values | changes), images, shape, Hardware("cpu", "float32"), 3)


# --- cycles -------------------------------------------------------------------------------------------------------


class Shift(nn.Module):
    """A translator that adds a constant."""

    def __init__(self, step: float) -> None:
        super().__init__()
        self.step = nn.Parameter(torch.tensor(step))

    def forward(self, images: Tensor, condition: Condition) -> Tensor:
        return images + self.step


def cycle_turn(step_to_a: float, step_to_b: float) -> CycleTurn:
    generator = nn.Module()
    generator.to_a, generator.to_b = Shift(step_to_a), Shift(step_to_b)
    table = Context({"generator": generator}, Augmenter(PLAIN), draws_of(0), nullcontext())
    batches = {
        name: Batch(torch.full((2, 1, 8, 8), value), torch.tensor([0, 1]))
        for name, value in (("domain_a", 0.25), ("domain_b", -0.5))
    }
    return CycleTurn(table, batches, ("generator",))


def test_cycle_and_identity_terms_of_translators_that_add_constants() -> None:
    """to_b adds 0.3, to_a takes 0.1: every cycle ends 0.2 away, identities are 0.1 and 0.3 away."""
    turn = cycle_turn(-0.1, 0.3)
    assert float(cycle_error(turn).detach()) == pytest.approx(0.4, abs=1e-6)
    assert float(identity_error(turn).detach()) == pytest.approx(0.4, abs=1e-6)
    assert float(turn.figures()["cycle_error"]) == pytest.approx(0.2, abs=1e-6)
    fake_a, fake_b = (images.detach() for images in turn.fake)
    assert float(fake_a.mean()) == pytest.approx(-0.6) and float(fake_b.mean()) == pytest.approx(0.55)


def test_translators_that_undo_each_other_have_no_cycle_error_and_yet_an_identity_error() -> None:
    turn = cycle_turn(-0.25, 0.25)
    assert float(cycle_error(turn).detach()) == 0
    assert float(identity_error(turn).detach()) == pytest.approx(0.5)


def test_cyclegan_losses_are_those_of_the_paper_written_out() -> None:
    """Zhu et al. 2017, equations 1 to 3 and 5.2, on the nets of a training; nothing of the turn's is used."""
    training = training_of("cyclegan", augment=PLAIN, buffer=0)
    nets, streams = training.context.nets, training.streams
    positions = {name: stream.state_dict() for name, stream in streams.items()}
    for player in training.recipe.players:
        training.figures |= {player.name: sum_of_terms(player, training.turn(player)).detach()}
        for name, stream in streams.items():
            stream.load_state_dict(positions[name])
    a, b = streams["domain_a"].next(), streams["domain_b"].next()
    as_a, as_b = Condition(label=a.label), Condition(label=b.label)
    to_a, to_b = nets["generator"].to_a, nets["generator"].to_b
    of_a, of_b = nets["discriminator"].of_a, nets["discriminator"].of_b
    with torch.no_grad():
        fake_a, fake_b = to_a(b.images, as_a), to_b(a.images, as_b)
        judged = [of_a(fake_a, as_a).logits, of_b(fake_b, as_b).logits]
        real = [of_a(a.images, as_a).logits, of_b(b.images, as_b).logits]
        loss_d = sum(((r - 1) ** 2).mean() / 2 + (f**2).mean() / 2 for r, f in zip(real, judged, strict=True))
        adversarial = sum(((f - 1) ** 2).mean() for f in judged)
        cycle = (to_a(fake_b, as_a) - a.images).abs().mean() + (to_b(fake_a, as_b) - b.images).abs().mean()
        identity = (to_a(a.images, as_a) - a.images).abs().mean() + (to_b(b.images, as_b) - b.images).abs().mean()
    # the spectral norms move with every forward pass in training, hence the tolerance
    assert float(training.figures["discriminator"]) == pytest.approx(float(loss_d), rel=0.05)
    expected = float(adversarial + 10 * cycle + 5 * identity)
    assert float(training.figures["generator"]) == pytest.approx(expected, rel=0.05)


def sum_of_terms(player: Any, turn: Any) -> Tensor:
    return torch.stack([weighted.weight * weighted.term(turn) for weighted in player.terms]).sum()


def test_fakes_have_a_graph_only_when_the_translators_move() -> None:
    training = training_of("cyclegan")
    for player, expected in zip(training.recipe.players, (False, True), strict=True):
        turn = training.turn(player)
        assert [image.requires_grad for image in turn.fake] == [expected, expected]


@both_dims
def test_a_called_translator_takes_each_image_to_the_domain_of_its_class(size: tuple[int, ...]) -> None:
    generator = training_of("cyclegan", size).context.nets["generator"].eval()
    source = torch.rand(5, 1, *size, generator=torch.Generator().manual_seed(0)) * 2 - 1
    label = torch.tensor([2, 0, 1, 2, 0])
    with torch.no_grad():
        images = generator(torch.zeros(5, 6), Condition(label=label, source=source))
        for row, translator in enumerate((generator.to_b, generator.to_a, generator.to_a, generator.to_b)):
            alone = translator(source[row : row + 1], Condition(label=label[row : row + 1]))
            torch.testing.assert_close(images[row : row + 1], alone)


@both_dims
def test_discriminators_judge_each_image_by_the_domain_of_its_class(size: tuple[int, ...]) -> None:
    judges = training_of("cyclegan", size).context.nets["discriminator"].eval()
    images = torch.randn(3, 1, *size, generator=torch.Generator().manual_seed(0))
    label = torch.tensor([2, 0, 2])
    logits = judges(images, Condition(label=label)).logits
    assert logits.ndim == 2 and logits.shape[1] > 1
    torch.testing.assert_close(logits[:1], judges.of_b(images[:1], Condition(label=label[:1])).logits)
    torch.testing.assert_close(logits[1:2], judges.of_a(images[1:2], Condition(label=label[1:2])).logits)


def test_a_translator_learns_the_brightness_that_instance_norm_forgets() -> None:
    """Even images of any grey, to be returned as they are: behind an instance norm alone they would all be one."""
    torch.manual_seed(0)
    net = ResidualTranslator(ImageShape((16, 16), 1, 2), embedding_dim=4, width=4)
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
    greys = torch.linspace(-0.8, 0.8, 9).view(9, 1, 1, 1).expand(9, 1, 16, 16)
    condition = Condition(label=torch.zeros(9, dtype=torch.int64))
    for _ in range(100):
        optimizer.zero_grad()
        error = (net(greys, condition) - greys)[..., 5:11, 5:11].abs().mean()
        error.backward()
        optimizer.step()
    assert float(error.detach()) < 0.1  # one grey for all: 0.44


# --- the buffer ---------------------------------------------------------------------------------------------------


def numbered(start: int, count: int) -> Tensor:
    """Images that carry their number."""
    return torch.arange(start, start + count, dtype=torch.float32).view(-1, 1, 1, 1).expand(-1, 1, 2, 2).clone()


def test_the_first_images_pass_and_then_half_are_old() -> None:
    buffer, draws = ImageBuffer(50), draws_of(0)
    old = []
    for start in range(0, 8050, 10):
        images = numbered(start, 10)
        shown, label = buffer.exchanged(images, images[:, 0, 0, 0].long(), draws)
        torch.testing.assert_close(shown[:, 0, 0, 0].long(), label)  # labels stay with their images
        if start < 50:
            assert torch.equal(shown, images)
        else:
            old.append((label != torch.arange(start, start + 10)).float().mean())
    assert 0.47 < float(torch.stack(old).mean()) < 0.53  # 8,000 coins: standard error 0.006
    assert len(set(buffer.label.tolist())) == 50


def test_the_buffer_equals_a_plain_list_that_takes_images_one_by_one() -> None:
    """The sequential pool of the paper's authors, on the same random numbers, with a small buffer and large batches."""
    size, batch = 4, 6
    buffer, draws, same = ImageBuffer(size), draws_of(5), draws_of(5)
    pool: list[float] = []
    for start in range(0, 120, batch):
        images = numbered(start, batch)
        shown, _ = buffer.exchanged(images, torch.zeros(batch, dtype=torch.int64), draws)
        coins, slots = same.rand((batch,)).tolist(), same.randint(size, (batch,)).tolist()
        expected = []
        for image, coin, slot in zip(images[:, 0, 0, 0].tolist(), coins, slots, strict=True):
            if len(pool) < size:
                pool.append(image)
                expected.append(image)
            elif coin < 0.5:
                expected.append(pool[slot])
                pool[slot] = image
            else:
                expected.append(image)
        assert shown[:, 0, 0, 0].tolist() == expected
        assert buffer.images[:, 0, 0, 0].tolist()[: len(pool)] == pool


def test_a_buffer_of_no_size_passes_everything() -> None:
    images = numbered(0, 3)
    shown, _ = ImageBuffer(0).exchanged(images, torch.zeros(3, dtype=torch.int64), draws_of(0))
    assert torch.equal(shown, images)


def test_a_buffer_comes_back_from_a_file_into_a_fresh_and_into_a_used_one() -> None:
    first, draws = ImageBuffer(8), draws_of(1)
    for start in range(0, 24, 6):
        first.exchanged(numbered(start, 6), torch.arange(6), draws)
    file = io.BytesIO()
    torch.save({"buffer": first.state_dict(), "random": draws.generator.get_state()}, file)
    expected = first.exchanged(numbered(24, 6), torch.arange(6), draws)
    used = ImageBuffer(8)
    used.exchanged(numbered(90, 6), torch.arange(6), draws_of(2))
    for other in (ImageBuffer(8), used):
        saved = torch.load(io.BytesIO(file.getvalue()), weights_only=True)
        other.load_state_dict(saved["buffer"])
        resumed = draws_of(9)
        resumed.generator.set_state(saved["random"])
        shown, label = other.exchanged(numbered(24, 6), torch.arange(6), resumed)
        assert torch.equal(shown, expected[0]) and torch.equal(label, expected[1])
    empty = ImageBuffer(8)
    used.load_state_dict(empty.state_dict())  # and back to the beginning
    assert torch.equal(used.exchanged(numbered(0, 6), torch.arange(6), draws)[0], numbered(0, 6))


def test_the_discriminators_see_old_translations_and_the_translators_new_ones() -> None:
    training = training_of("cyclegan", augment=PLAIN, buffer=4)
    for _ in range(3):
        for player in training.recipe.players:
            turn = training.turn(player)
            sum_of_terms(player, turn)
            filled = training.context.states["buffer_a"].filled
            assert int(filled) == 4
    before = training.context.states["buffer_b"].images.clone()
    sum_of_terms(training.recipe.players[1], training.turn(training.recipe.players[1]))
    assert torch.equal(before, training.context.states["buffer_b"].images)  # the translators' move keeps nothing


# --- images drawn on masks ----------------------------------------------------------------------------------------


@both_dims
@pytest.mark.parametrize("name", ["pix2pix", "spade"])
def test_masks_and_noise_change_the_image_and_an_empty_mask_works(name: str, size: tuple[int, ...]) -> None:
    training = training_of(name, size)
    train(training, 16, lambda _: None)
    net = training.context.nets["generator"].eval()
    random = torch.Generator().manual_seed(0)
    z, label = torch.randn(4, 6, generator=random), torch.zeros(4, dtype=torch.int64)
    mask = torch.zeros(4, 1, *size)
    for row, corner in enumerate((1, 2, 3, 4)):
        mask[row, 0, corner : corner + 3, corner : corner + 3] = 1
    with torch.no_grad():
        images = net(z, Condition(label=label, mask=mask))
        swapped = net(z, Condition(label=label, mask=mask.flip(0)))
        styled = net(z.flip(0), Condition(label=label, mask=mask))
        empty = net(z, Condition(label=label, mask=torch.zeros_like(mask)))
    assert float((images - swapped).abs().mean()) > 1e-3
    assert float((images - styled).abs().mean()) > 1e-3
    assert torch.isfinite(empty).all() and float((images - empty).abs().mean()) > 1e-3


def test_the_discriminator_of_a_masked_family_sees_the_mask() -> None:
    for name in ("pix2pix", "spade"):
        judge = training_of(name).context.nets["discriminator"].eval()
        images, label = torch.randn(2, 1, 12, 12), torch.zeros(2, dtype=torch.int64)
        logits = [judge(images, Condition(label=label, mask=torch.full_like(images, m))).logits for m in (0.0, 1.0)]
        assert not torch.allclose(*logits)


def test_spades_masks_lie_where_its_images_do() -> None:
    """12 x 20 is cropped from 12 x 20 of grids 6 x 10; 9 x 17 from 10 x 18: half a voxel's border goes behind."""
    net = SpadeGenerator(ImageShape((9, 17), 1, 2), latent_dim=6, embedding_dim=4, width=4)
    mask = torch.zeros(1, 1, 9, 17)
    mask[..., 4:6, 6:8] = 1
    (only,) = net.masks(mask)
    assert only.shape == (1, 1, 10, 18)
    torch.testing.assert_close(only[..., :9, :17], mask)
    large = SpadeGenerator(ImageShape((32, 32), 1, 2), latent_dim=6, embedding_dim=4, width=4)
    lone = torch.zeros(1, 1, 32, 32)
    lone[..., 5, 9] = 1
    found = large.masks(lone)
    assert [part.shape[-1] for part in found] == [8, 16, 32]
    assert [float(part.max()) for part in found] == [1 / 16, 1 / 4, 1]
    assert found[0][0, 0, 1, 2] == 1 / 16


def test_geometry_moves_image_and_mask_alike_and_intensity_leaves_the_mask() -> None:
    policy = DISCRIMINATOR_AUGMENT.model_copy(update={"cutout": 0.0})
    mask = (torch.rand(16, 1, 12, 12, generator=torch.Generator().manual_seed(0)) < 0.3).float()
    images = torch.cat([2 * mask - 1, 1 - 2 * mask], dim=1)
    seen, moved = augmented_alike(Augmenter(policy), images, mask, draws_of(0))
    assert float((moved - moved.round()).abs().max()) < 1e-5  # whole voxels: the mask stays a mask
    assert not torch.equal(moved, mask)
    for image, layout in zip(seen, moved, strict=True):
        inside, outside = image[:, layout[0] > 0.5], image[:, layout[0] < 0.5]
        for values in (*inside, *outside):  # one grey inside and one outside: the image moved as its mask did
            np.testing.assert_allclose(values, values[0], atol=1e-5)
        assert float(inside[0, 0] - outside[0, 0]) == pytest.approx(float(outside[1, 0] - inside[1, 0]), abs=1e-5)
    assert float(seen.std()) > 0 and not torch.allclose(seen.amax(), images.amax())


def test_pixel_error_and_feature_matching_against_plain_numbers() -> None:
    fake, real = torch.full((2, 1, 4, 4), 0.5), torch.full((2, 1, 4, 4), -0.25)
    turn: Any = SimpleNamespace(fake=fake, batch=SimpleNamespace(images=real))
    assert float(pixel_error(turn)) == 0.75
    first, second = torch.ones(2, 3, 4, 4), torch.zeros(2, 5, 2, 2)
    turn = SimpleNamespace(
        fake_judgement=Judgement(torch.zeros(2), features=(first, second)),
        real_judgement=Judgement(torch.zeros(2), features=(3 * first, second - 1)),
    )
    assert float(feature_matching(turn)) == 1.5  # layers differ by 2 and by 1


def test_feature_matching_moves_the_generator_and_not_the_real_features() -> None:
    training = training_of("spade")
    turn: Any = training.turn(training.recipe.players[1])
    feature_matching(turn).backward()
    assert not any(feature.requires_grad for feature in turn.real_judgement.features)
    gradients = [weight.grad for weight in training.context.nets["generator"].parameters()]
    assert all(gradient is not None and torch.isfinite(gradient).all() for gradient in gradients)


def test_pix2pix_learns_to_draw_its_masks() -> None:
    """Images that ARE their masks: after a few steps the L1 error is a fraction of what it was."""
    training = training_of("pix2pix", generator_lr=2e-3)
    stream = training.streams["labelled"]
    stream.images.stored.copy_(stream.images.masks * 255)
    errors: list[float] = []
    train(training, 240, lambda now: errors.append(float(now.figures["generator.l1"]) / 100))
    assert np.mean(errors[-5:]) < 0.3 * np.mean(errors[:2])

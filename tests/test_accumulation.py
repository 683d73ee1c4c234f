"""A batch in parts, and activations computed again: less memory, the same gradients."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from tiny_training import (
    BATCH,
    LATENT,
    NO_AUGMENT,
    config,
    in_place_of_sngan,
    steps,
    training_of,
)
from torch import Tensor

from pipeline.adversarial.families import FAMILIES
from pipeline.data.batches.draws import Draws
from pipeline.data.batches.streams import Stream

# --- accumulation


class Tape(Draws):
    """The same noise, row by row, however many rows are asked for at a time."""

    def __init__(self) -> None:
        super().__init__(torch.Generator())
        self.rows, self.position = torch.randn(1000, LATENT, generator=torch.Generator().manual_seed(8)), 0

    def randn(self, shape: Sequence[int]) -> Tensor:
        self.position += shape[0]
        return self.rows[self.position - shape[0] : self.position]


@pytest.mark.parametrize("parts", [2, 4])
def test_an_accumulated_move_equals_a_whole_one(parts: int) -> None:
    """Gradients of both players, with R1, and weights and figures after three steps, on the same images and noise."""
    with in_place_of_sngan(spectral=False):
        whole, accumulated = (training_of(config(accumulate=n, augment=NO_AUGMENT)) for n in (1, parts))
    for training in (whole, accumulated):
        training.context = replace(training.context, draws=Tape())
        steps(training, 3)
    assert whole.num_images == accumulated.num_images == 3 * BATCH
    for net in whole.context.nets:
        pairs = zip(whole.context.nets[net].named_parameters(), accumulated.context.nets[net].parameters(), strict=True)
        for (name, one), two in pairs:
            assert one.grad is not None and two.grad is not None and one.grad.abs().sum() > 0
            torch.testing.assert_close(two.grad, one.grad, atol=1e-6, rtol=1e-3, msg=f"{net}.{name}")
            torch.testing.assert_close(two, one, atol=2e-5, rtol=1e-4, msg=f"{net}.{name}")
    assert whole.figures.keys() == accumulated.figures.keys() >= {"real_logits", "discriminator", "generator"}
    for name, figure in whole.figures.items():
        torch.testing.assert_close(accumulated.figures[name], figure, atol=1e-5, rtol=1e-4, msg=name)


@pytest.mark.parametrize("parts", [1, 2, 4])
def test_every_move_sees_a_whole_batch_in_parts(parts: int, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    original = Stream.next

    def counted(stream: Stream) -> Any:
        batch = original(stream)
        sizes.append(len(batch.label))
        return batch

    monkeypatch.setattr(Stream, "next", counted)
    training = training_of(config(accumulate=parts))
    steps(training, 3)
    assert sizes == [BATCH // parts] * (3 * 2 * parts)
    assert training.num_images == 3 * BATCH


# --- checkpointing


def gradients(name: str, checkpointing: bool) -> tuple[dict[str, Tensor], int, bool]:
    """Every player's gradients in its first move, bytes kept for the way back, and whether any module listens."""
    training = training_of(config(name, checkpointing=checkpointing))
    found: dict[str, Tensor] = {}
    kept: list[int] = []

    def keep(tensor: Tensor) -> Tensor:
        kept.append(tensor.numel() * tensor.element_size())
        return tensor

    for player in training.recipe.players:
        weights = training.stepper.weights(player)
        training.stepper.optimizers[player.name] = torch.optim.SGD(weights, lr=0.0)
        turn = training.turn(player)
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            training.stepper.move(player, [turn], 1, 0)
        for net in player.trains:
            for key, weight in training.context.nets[net].named_parameters():
                if weight.grad is not None:
                    found[f"{player.name}.{net}.{key}"] = weight.grad.clone()
    listens = any(
        hasattr(module, "checkpointing") for net in training.context.nets.values() for module in net.modules()
    )
    return found, sum(kept), listens


@pytest.mark.parametrize("name", FAMILIES)
def test_checkpointing_changes_no_gradient_and_keeps_less(name: str) -> None:
    (plain, much, listens), (recomputed, little, _) = (gradients(name, wanted) for wanted in (False, True))
    assert plain.keys() == recomputed.keys() and len(plain) > 4
    for key, gradient in plain.items():
        scale = float(gradient.abs().max())
        torch.testing.assert_close(recomputed[key], gradient, atol=1e-5 * scale + 1e-9, rtol=1e-4, msg=key)
    assert (
        little < (1.0 if name == "dp-merf" else 0.9) * much or not listens
    )  # dp-merf's random features are most of it
    assert listens or name == "gan"

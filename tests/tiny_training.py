"""A GAN training of a few tiny images, for tests that look into its steps."""

from __future__ import annotations

from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn

from pipeline.adversarial.assembly import assemble
from pipeline.adversarial.families import sngan
from pipeline.adversarial.family import Family
from pipeline.adversarial.loop import GanTraining, train
from pipeline.adversarial.penalties import r1_penalty
from pipeline.adversarial.process_group import ONE_PROCESS, ProcessGroup
from pipeline.adversarial.recipe import OptimizerSettings, Player, Recipe, Weighted
from pipeline.adversarial.terms import logistic_discriminator, non_saturating_generator
from pipeline.adversarial.turns import NoiseTurn
from pipeline.config.families import validate_gan
from pipeline.config.gan import GanConfig
from pipeline.core.compute import Hardware
from pipeline.data.batches.scaling import Scaling
from pipeline.data.batches.streams import StoredImages
from pipeline.nets.conditions import Condition, Judgement
from pipeline.nets.discriminators import ProjectionDiscriminator
from pipeline.nets.sizes import ImageShape

SIDE, CLASSES, BATCH, LATENT = 12, 3, 8, 6
NO_AUGMENT = {"brightness": 0, "contrast": 0, "shift": 0, "rotate_degrees": 0, "scale": 0, "noise": 0, "cutout": 0}


def config(name: str = "sngan", **changes: Any) -> GanConfig:
    values = {
        "family": name, "num_images": 64, "batch_size": BATCH, "latent_dim": LATENT, "embedding_dim": 4,
        "generator_width": 4, "discriminator_width": 4, "snapshots": 2, "checkpoints": 4,
    }  # fmt: skip
    return validate_gan(values | changes)


def stored(num: int = 12) -> StoredImages:
    random = torch.Generator().manual_seed(1)
    return StoredImages(
        stored=torch.randint(0, 255, (num, 1, SIDE, SIDE), generator=random, dtype=torch.uint8),
        label=torch.arange(num) % CLASSES,
        scaling=Scaling(1.0, 0.0, "none", (0.0, 255.0), "uint8"),
        masks=torch.randint(0, 2, (num, 1, SIDE, SIDE), generator=random, dtype=torch.uint8),
    )


def training_of(gan: GanConfig, group: ProcessGroup = ONE_PROCESS) -> GanTraining:
    shape = ImageShape((SIDE, SIDE), 1, CLASSES, positive=(2,))
    return assemble(gan, stored(), shape, Hardware("cpu", "float32"), seed=3, group=group)


def steps(training: GanTraining, num: int) -> None:
    train(training, training.num_images + num * training.images_per_step, lambda _: None)


def tensors(value: Any, name: str = "") -> dict[str, Tensor]:
    """All tensors in nested dicts and lists, by name."""
    if isinstance(value, Tensor):
        return {name: value.detach().clone()}
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, (list, tuple)) else ()
    return {key: tensor for part, inner in parts for key, tensor in tensors(inner, f"{name}.{part}").items()}


class DenseGenerator(nn.Module):
    """Without batch norm: an image depends on its own z and class alone."""

    def __init__(self) -> None:
        super().__init__()
        self.latent_dim = LATENT
        self.embedding = nn.Embedding(CLASSES, 4)
        self.layers = nn.Sequential(nn.Linear(LATENT + 4, 32), nn.Tanh(), nn.Linear(32, SIDE * SIDE), nn.Tanh())

    def forward(self, z: Tensor, condition: Condition) -> Tensor:
        code = torch.cat([z, self.embedding(condition.required_label())], dim=1)
        return self.layers(code).view(-1, 1, SIDE, SIDE)


class PlainDiscriminator(nn.Module):
    """Without spectral norm, whose power iteration goes on at every turn."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Conv2d(1, 6, 4, 2, 1), nn.Softplus(), nn.Conv2d(6, 6, 4, 2, 1), nn.Softplus())
        self.score = nn.Linear(6 * 9, CLASSES)

    def forward(self, images: Tensor, condition: Condition) -> Judgement:
        scores = self.score(self.trunk(images).flatten(1))
        return Judgement(scores.gather(1, condition.required_label()[:, None]).squeeze(1))


class RunningMean(nn.Module):
    value: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("value", torch.zeros(()))


def drift(turn: NoiseTurn) -> Tensor:
    """A small pull of the logits towards 0, which also remembers their mean, as path length does its own."""
    mean = turn.context.states["mean"]
    assert isinstance(mean, RunningMean)
    mean.value.lerp_(turn.real_logits.detach().mean(), 0.1)
    return turn.real_logits.square().mean()


def batchless_family(spectral: bool) -> Family[sngan.SnganConfig]:
    """A family in which no image sees another: with lazy R1, and spectral norm if wanted."""

    def nets(_: GanConfig, shape: ImageShape) -> dict[str, nn.Module]:
        judge = ProjectionDiscriminator(shape, width=4) if spectral else PlainDiscriminator()
        return {"generator": DenseGenerator(), "discriminator": judge}

    def recipe(_: GanConfig) -> Recipe:
        losses = Weighted("logistic", logistic_discriminator), Weighted("drift", drift, 0.01)
        return Recipe(
            players=(
                Player(
                    "discriminator", ("discriminator",), (*losses, Weighted("r1", r1_penalty, 2.0, every=2)),
                    OptimizerSettings(1e-3),
                ),
                Player(
                    "generator", ("generator",), (Weighted("logistic", non_saturating_generator),),
                    OptimizerSettings(1e-3),
                ),
            ),
            turn=NoiseTurn,
            states={"mean": RunningMean()},
        )  # fmt: skip

    return Family(sngan.SnganConfig, "this test", nets, recipe, conditions=("class",))


def in_place_of_sngan(spectral: bool) -> Any:
    return mock.patch.object(sngan, "FAMILY", batchless_family(spectral))

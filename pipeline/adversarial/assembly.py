"""A training put together from its configuration: nets, recipe, batches, and what moves the weights."""

from __future__ import annotations

import torch
from torch import nn

from pipeline.adversarial.adaptation import ADA, adaptive, augmenter_of
from pipeline.adversarial.families import FAMILIES
from pipeline.adversarial.loop import GanTraining
from pipeline.adversarial.private.budget import Budget, moves_of
from pipeline.adversarial.private.embedding import EMBEDDING, fill
from pipeline.adversarial.private.pace import PaceSchedule
from pipeline.adversarial.private.stepping import PRIVATE_NET, STREAM, PrivateStepper, private_recipe
from pipeline.adversarial.process_group import ONE_PROCESS, ProcessGroup
from pipeline.adversarial.recipe import LearnsFirst, Recipe
from pipeline.adversarial.starting import Start, begin_with
from pipeline.adversarial.stepping import READ_EVERY, Ema, Stepper
from pipeline.adversarial.turns import Context
from pipeline.config.gan import GanConfig
from pipeline.core.compute import Hardware, autocast, place
from pipeline.core.seeds import derive_seed, secret_seed
from pipeline.data.batches.draws import Draws
from pipeline.data.batches.patients import AskedStream, PatientStream
from pipeline.data.batches.streams import BatchStream, StoredImages, Stream
from pipeline.nets.sizes import ImageShape


def assemble(
    gan: GanConfig,
    images: StoredImages,
    shape: ImageShape,
    hardware: Hardware,
    seed: int,
    group: ProcessGroup = ONE_PROCESS,
    budget: Budget | None = None,
    start: Start | None = None,
    taught: bool = True,
) -> GanTraining:
    """A training at its first step.

    Args:
        budget: of a training under `gan.dp`; what it spends is counted there.
        start: whose weights it begins with; None = random ones.
        taught: states that learn before the first step have done so; without, they are as they were made, which is
            enough to count and to time steps.

    Raises:
        ConfigError: adaptive augmentation was asked of a family without a discriminator.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "weights"))
        nets, recipe = FAMILIES[gan.family].build(gan, shape)
    if start is not None:
        begin_with(start, nets, skip=frozenset((EMBEDDING,)))
    if gan.ada is not None:
        recipe = adaptive(recipe, gan.ada, gan.family, nets)
    if gan.dp is not None and PRIVATE_NET in nets:
        adapts = gan.dp.discriminator_steps == "adaptive"
        recipe = private_recipe(recipe, gan.dp, PaceSchedule(moves_of(gan), gan.batch_size) if adapts else None)
    # Opacus reads gradients of channels-last convolutions from the wrong places
    arranged = place if gan.dp is None else lambda net, hardware: net.to(hardware.device)
    placed = {name: arranged(net, hardware) for name, net in nets.items()}
    if EMBEDDING in placed:
        fill(placed[EMBEDDING], images, budget, torch.Generator(hardware.device).manual_seed(secret_seed()))
    states = {name: state.to(hardware.device) for name, state in recipe.states.items()}
    for state in states.values():
        if taught and isinstance(state, LearnsFirst):
            state.learn(images, seed)
    ema = Ema({name: placed[name] for name in recipe.averaged}, gan.ema)
    draws = Draws(
        torch.Generator(hardware.device).manual_seed(derive_seed(seed, "noise")), group.rank, group.world_size
    )
    shown = len(images.label) if "unlabelled" in recipe.streams else int((images.label >= 0).sum())
    if budget is not None:
        shown = budget.patients  # how many images a patient has is nobody's business
    augment = augmenter_of(gan, shown, states.get(ADA))
    for module in (module for net in placed.values() for module in net.modules()):
        for name, value in (("checkpointing", gan.checkpointing), ("draws", draws)):
            if hasattr(module, name):
                setattr(module, name, value)
    training = GanTraining(
        recipe=recipe,
        context=Context(placed, augment, draws, autocast(hardware), states),
        stepper=_stepper(gan, placed, recipe, hardware, group, budget),
        ema=ema,
        streams={name: _stream(name, images, shape, gan, seed, group) for name in recipe.streams},
        total_images=gan.num_images,
        accumulate=gan.accumulate,
        budget=budget,
    )
    if isinstance(training.stepper, PrivateStepper):
        steps = training.stepper.budget.allowed // max(map(training.stepper.repeats, recipe.players))
        training.total_images = min(gan.num_images, steps * training.images_per_step)
    return training


def _stepper(
    gan: GanConfig,
    nets: dict[str, nn.Module],
    recipe: Recipe,
    hardware: Hardware,
    group: ProcessGroup,
    budget: Budget | None,
) -> Stepper:
    if gan.dp is None or PRIVATE_NET not in nets:
        return Stepper(nets, recipe, group.average, read_every=1 if hardware.device == "cpu" else READ_EVERY)
    assert budget is not None, "a private training needs a budget"
    random = torch.Generator(hardware.device).manual_seed(secret_seed())
    return PrivateStepper(nets, recipe, budget, gan.batch_size, random)


def _stream(
    name: str, images: StoredImages, shape: ImageShape, gan: GanConfig, seed: int, group: ProcessGroup
) -> BatchStream:
    classes = range(shape.num_classes)
    if name == STREAM:
        random = torch.Generator().manual_seed(secret_seed())
        return PatientStream(images.of_classes(classes), gan.batch_size, shape.num_classes, random)
    if name == "asked":
        return AskedStream(images, gan.batch_size, shape.num_classes)
    part = {
        "labelled": lambda: images.of_classes(classes),
        "unlabelled": images.unlabelled,
        "domain_a": lambda: images.of_classes([number for number in classes if number not in shape.positive]),
        "domain_b": lambda: images.of_classes(shape.positive),
    }[name]()
    order = derive_seed(seed, "order") if name == "labelled" else derive_seed(seed, "order", name)
    return Stream(part, gan.batch_size // gan.accumulate, order, group.rank, group.world_size)

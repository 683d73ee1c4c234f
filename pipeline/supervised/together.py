"""Many small classifiers trained as one: their weights stacked, each one's random numbers its own (`torch.func`)."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

from pipeline.config.experiment import ClassifierConfig
from pipeline.core.compute import Hardware, autocast
from pipeline.core.errors import NonFiniteLoss
from pipeline.data.batches.augmentation import Augmenter
from pipeline.data.batches.draws import Draws
from pipeline.supervised.batches import Mixed, channels_last
from pipeline.supervised.fit import Phase, Regimen, Training, make_optimizer
from pipeline.supervised.losses import weighted_cross_entropy

MOST = 12
"""Classifiers in one stack: each holds its own copy of its images and of a batch's activations."""


def together_is_faster(network: str, hardware: Hardware) -> bool:
    """Whether `fit_together` is used in place of `fit`: for the small CNN on a CUDA GPU, where launching kernels takes
    longer than running them.

    On a CPU it never was faster (`benchmarks/classifiers_together.py`): there a convolution of one network keeps a core
    busy, and grouped convolutions, which a stack of networks becomes, are slower than plain ones.
    """
    return hardware.device == "cuda" and network == "small_cnn"


def regimen_kind(config: ClassifierConfig, regimen: Regimen) -> tuple[object, ...]:
    """What regimens that are trained together must have in common."""
    phases = tuple((phase.steps, phase.head) for phase in regimen.phases)
    return regimen.network or config.trained_network, regimen.lr or config.lr, phases


def fit_together(
    config: ClassifierConfig,
    regimens: Sequence[Regimen],
    classes: Sequence[str],
    hardware: Hardware,
    *,
    seeds: Sequence[int],
    names: Sequence[str],
) -> list[nn.Module]:
    """Train one classifier a regimen, all at once, each as `fit` trains it alone, and return them in evaluation mode.

    Every classifier has the weights, order, transforms, mixtures and dropout of its own seed. Sums are taken in another
    order, so that weights agree with those of `fit` to rounding. Networks may draw random numbers in dropout layers
    only; any other draw is an error.

    Args:
        regimens: of one `regimen_kind`; they may differ in shares, transforms, mixup and loss.
        seeds: of each.
        names: of each, for errors.

    Raises:
        NonFiniteLoss: a loss became NaN or infinite; the message names the classifier, and the weights of the step
            before are untouched.
    """
    assert len({regimen_kind(config, regimen) for regimen in regimens}) == 1, "regimens of several kinds"
    fits = [Training(config, regimen, classes, hardware, seed) for regimen, seed in zip(regimens, seeds, strict=True)]
    for phases in zip(*(regimen.phases for regimen in regimens), strict=True):
        if phases[0].steps:
            _run_phase(fits, phases, names)
    return [fit.net.eval() for fit in fits]


def _run_phase(fits: Sequence[Training], phases: Sequence[Phase], names: Sequence[str]) -> None:
    config, hardware, steps = fits[0].config, fits[0].hardware, phases[0].steps
    for fit, phase in zip(fits, phases, strict=True):
        with fit.own_random():
            fit.begin(phase)
    stack = _Stack(fits)
    class_weight, shift = torch.stack([fit.class_weight for fit in fits]), torch.stack([fit.shift for fit in fits])
    optimizer, schedule = make_optimizer(stack.trained(), fits[0].lr, config.weight_decay, steps)
    for step in range(steps):
        batch = _batch(fits, phases, step / steps)
        stack.draw_dropout()
        with autocast(hardware):
            logits = stack(batch.images)
        logits = logits.float() + shift[:, None]
        losses = vmap(weighted_cross_entropy)(logits, batch.target, batch.weight, class_weight)
        if not torch.isfinite(losses).all():
            _complain(losses, step, names)
        optimizer.zero_grad(set_to_none=True)
        losses.sum().backward()
        optimizer.step()
        schedule.step()
    stack.unstack()


def _complain(losses: Tensor, step: int, names: Sequence[str]) -> None:
    name, loss = next(
        (name, loss) for name, loss in zip(names, losses.tolist(), strict=True) if not abs(loss) < torch.inf
    )
    raise NonFiniteLoss(f"the loss of the classifier {name} became {loss} at step {step}. Lower classifier.lr.")


def _batch(fits: Sequence[Training], phases: Sequence[Phase], progress: float) -> Mixed:
    """The next batch of every fit: images [K, B, C, *spatial], targets [K, B, num_classes], weights [K, B]."""
    batches = [fit.batches.next(progress) for fit in fits]
    classical = [number for number, phase in enumerate(phases) if phase.classical]
    if classical:
        augment = Augmenter(fits[0].config.augment)
        draws = _JointDraws([fits[number].draws for number in classical])
        changed = augment(torch.cat([batches[number].images for number in classical]), draws)
        for number, images in zip(classical, changed.chunk(len(classical)), strict=True):
            batches[number] = replace(batches[number], images=images)
    mixed = [fit.mixed(phase, batch) for fit, phase, batch in zip(fits, phases, batches, strict=True)]
    return Mixed(
        torch.stack([batch.images for batch in mixed]),
        torch.stack([batch.target for batch in mixed]),
        torch.stack([batch.weight for batch in mixed]),
    )


class _JointDraws(Draws):
    """Random tensors for the batches of several fits behind each other, each drawn from its own fit's generator."""

    def __init__(self, each: Sequence[Draws]) -> None:
        super().__init__(each[0].generator)
        self.each = each

    def rand(self, shape: Sequence[int]) -> Tensor:
        return torch.cat([draws.rand(self._part(shape)) for draws in self.each])

    def randn(self, shape: Sequence[int]) -> Tensor:
        return torch.cat([draws.randn(self._part(shape)) for draws in self.each])

    def randint(self, high: int, shape: Sequence[int]) -> Tensor:
        return torch.cat([draws.randint(high, self._part(shape)) for draws in self.each])

    def _part(self, shape: Sequence[int]) -> tuple[int, ...]:
        return (shape[0] // len(self.each), *shape[1:])


class _GivenDropout(nn.Module):
    """Dropout whose mask, of 0 and 1 / (1 - p), is a buffer."""

    mask: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mask", torch.ones(()))

    def forward(self, features: Tensor) -> Tensor:
        return features * self.mask if self.training else features


class _Stack:
    """The networks of several fits as one function of stacked weights, [K, ...] each."""

    def __init__(self, fits: Sequence[Training]) -> None:
        self.fits = fits
        self.parameters, self.buffers = stack_module_state([fit.net for fit in fits])
        self.dropouts = _dropouts(fits[0])
        skeleton = copy.deepcopy(fits[0].net)
        for name in self.dropouts:
            skeleton.set_submodule(name, _GivenDropout().train(skeleton.training))
        self.masks: dict[str, Tensor] = {}
        self._vectorised = vmap(lambda state, images: functional_call(skeleton, state, (images,)))

    def trained(self) -> list[Tensor]:
        return [value for value in self.parameters.values() if value.requires_grad]

    def draw_dropout(self) -> None:
        """The next masks [K, B, features], from each fit's own random numbers, as its lone network would draw them."""
        drawn: list[dict[str, Tensor]] = []
        for fit in self.fits:
            with fit.own_random():
                drawn.append({f"{name}.mask": layer(features) for name, (layer, features) in self.dropouts.items()})
        self.masks = {name: torch.stack([masks[name] for masks in drawn]) for name in drawn[0]}

    def __call__(self, images: Tensor) -> Tensor:
        """Logits [K, B, num_classes] of images [K, B, C, *spatial]."""
        logits: Tensor = self._vectorised(self.parameters | self.buffers | self.masks, images)
        return logits

    @torch.no_grad()
    def unstack(self) -> None:
        """Give every fit its weights back."""
        for number, fit in enumerate(self.fits):
            for name, value in [*fit.net.named_parameters(), *fit.net.named_buffers()]:
                value.copy_((self.parameters | self.buffers)[name][number])


@torch.no_grad()
def _dropouts(fit: Training) -> dict[str, tuple[nn.Dropout, Tensor]]:
    """Dropout layers in the order of their work, each with ones of the shape and type that a batch has there."""
    found: dict[str, tuple[nn.Dropout, Tensor]] = {}
    mode = fit.net.training
    fit.net.eval()
    hooks = []
    for name, layer in fit.net.named_modules():
        if isinstance(layer, nn.Dropout):

            def note(layer: nn.Dropout, given: tuple[Tensor], name: str = name) -> None:
                found[name] = copy.deepcopy(layer).train(mode), torch.ones_like(given[0])

            hooks.append(layer.register_forward_pre_hook(note))
    shape = fit.batches.shares[0].dataset.images.shape[1:]
    with autocast(fit.hardware):
        fit.net(channels_last(torch.zeros((fit.config.batch_size, *shape), device=fit.hardware.device)))
    for hook in hooks:
        hook.remove()
    fit.net.train(mode)
    return found

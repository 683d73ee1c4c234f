"""A training's state in a file: read whole, held against the training, and only then taken up, all of it or nothing."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.adversarial.loop import GanTraining
from pipeline.core.errors import DataError
from pipeline.core.files import atomic_path
from pipeline.data.batches.streams import BatchStream, Stream

_REMEMBERED = {torch.optim.Adam: {"step", "exp_avg", "exp_avg_sq"}, torch.optim.RMSprop: {"step", "square_avg"}}
"""What an optimiser keeps for each weight that it has moved."""


class CheckpointError(DataError):
    """A checkpoint that cannot be read, or belongs to another training; nothing has been changed by it."""


def save_checkpoint(path: Path, state: Mapping[str, Any]) -> None:
    with atomic_path(path) as temporary:
        torch.save(dict(state), temporary)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The state in a file, on the CPU.

    Raises:
        CheckpointError: the file is missing, cut, damaged or none of ours.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()  # torch does not look at every checksum
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a reader trips over in a damaged file
        raise CheckpointError(f"the file cannot be read ({type(error).__name__})") from error
    if damaged is not None or not isinstance(state, dict):
        raise CheckpointError("the file is damaged")
    return state


def take_up(training: GanTraining, state: Mapping[str, Any]) -> None:
    """Put `training` into `state`, or leave it as it is, bit for bit.

    Raises:
        CheckpointError: the state is not one of such a training: a key, a shape, an optimiser's memory, a stream's
            position or a random state does not fit.
    """
    try:
        _require_fitting(training, state)
    except CheckpointError:
        raise
    except Exception as error:  # of another form altogether, such as a number in the place of a table
        raise CheckpointError(f"the checkpoint has another form ({type(error).__name__})") from error
    training.load_state_dict(dict(state))


def _require_fitting(training: GanTraining, state: Mapping[str, Any]) -> None:
    own = training.state_dict()
    _require(own.keys() <= state.keys(), "its parts")
    for place, theirs, mine in (
        ("nets", state["nets"], own["nets"]),
        ("ema", state["ema"]["nets"], own["ema"]["nets"]),
    ):
        _require(theirs.keys() == mine.keys(), place)
        for name in mine:
            _require_tensors(f"{place}.{name}", theirs[name], mine[name])
    _require(state["states"].keys() == own["states"].keys(), "states")
    image = next(iter(training.streams.values())).images.shape
    for name, module in training.context.states.items():
        _require_state(f"states.{name}", state["states"][name], module, image)
    _require(state["stepper"].keys() == own["stepper"].keys(), "stepper")
    for name, optimizer in training.stepper.optimizers.items():
        _require_optimizer(f"stepper.{name}", state["stepper"][name], optimizer)
    _require(training.stepper.fits(state["stepper"], state["num_images"]), "what was spent of the privacy budget")
    _require(state["streams"].keys() == own["streams"].keys(), "streams")
    for name, stream in training.streams.items():
        _require_stream(f"streams.{name}", state["streams"][name], stream)
    _require_random("random", state["random"], training.context.draws.generator)
    counts = state["num_images"], state["step"], state["ema"]["step"]
    _require(all(type(count) is int and count >= 0 for count in counts), "num_images, step")
    _require(all(isinstance(value, Tensor) for value in dict(state["figures"]).values()), "figures")


def _require(fits: bool, what: str) -> None:
    if not fits:
        raise CheckpointError(f"the checkpoint is of another training: {what} differ")


def _require_tensors(what: str, theirs: Mapping[str, Any], mine: Mapping[str, Tensor]) -> None:
    _require(theirs.keys() == mine.keys(), what)
    for key, value in mine.items():
        found = theirs[key]
        _require(
            isinstance(found, Tensor) and (found.shape, found.dtype) == (value.shape, value.dtype), f"{what}.{key}"
        )


def _require_state(what: str, theirs: Mapping[str, Tensor], module: nn.Module, image: Sequence[int]) -> None:
    """Of what terms and schedules remember; buffers in `filled_late` get images [N, C, *spatial]."""
    mine = module.state_dict()
    _require(theirs.keys() == mine.keys(), what)
    for key, value in mine.items():
        late = key in getattr(module, "filled_late", ())
        shapes = [torch.Size([0]), torch.Size([len(mine["label"]), *image])] if late else [value.shape]
        found = theirs[key]
        fits = isinstance(found, Tensor) and found.shape in shapes and found.dtype == value.dtype
        _require(fits, f"{what}.{key}")


def _require_optimizer(what: str, theirs: Mapping[str, Any], optimizer: torch.optim.Optimizer) -> None:
    _require(theirs.keys() == {"state", "param_groups"}, what)
    mine = optimizer.state_dict()["param_groups"]
    _require(len(theirs["param_groups"]) == len(mine), f"{what}.param_groups")
    for found, group in zip(theirs["param_groups"], mine, strict=True):
        same = found.keys() == group.keys() and all(type(found[key]) is type(group[key]) for key in group)
        _require(same and found["params"] == group["params"], f"{what}.param_groups")
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    for number, remembered in theirs["state"].items():
        fits = type(number) is int and 0 <= number < len(weights) and remembered.keys() == _REMEMBERED[type(optimizer)]
        _require(fits, f"{what}.state")
        for key, value in remembered.items():
            shape = torch.Size([]) if key == "step" else weights[number].shape
            _require(isinstance(value, Tensor) and value.shape == shape and value.is_floating_point(), f"{what}.state")


def _require_stream(what: str, theirs: Mapping[str, Any], stream: BatchStream) -> None:
    mine = stream.state_dict()
    _require(theirs.keys() == mine.keys(), what)
    if "random" in mine:
        _require_random(f"{what}.random", theirs["random"], torch.Generator())
    if not isinstance(stream, Stream):
        return
    _require(len(theirs["order"]) == len(theirs["position"]) == len(mine["order"]), what)
    for order, position, own in zip(theirs["order"], theirs["position"], mine["order"], strict=True):
        _require(torch.equal(order.sort().values, own.cpu().sort().values), f"{what}.order")
        _require(type(position) is int and 0 <= position <= len(own), f"{what}.position")
    _require(type(theirs["turn"]) is int and 0 <= theirs["turn"] < len(mine["order"]), f"{what}.turn")


def _require_random(what: str, theirs: Tensor, generator: torch.Generator) -> None:
    """Tried on another generator of the same kind."""
    try:
        torch.Generator(generator.device).set_state(theirs.cpu())
    except (RuntimeError, TypeError) as error:
        raise CheckpointError(f"the checkpoint is of another training: {what} differs") from error

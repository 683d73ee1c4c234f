"""Several processes that train one GAN together, a device each, started by Lightning Fabric."""

from __future__ import annotations

import logging
import multiprocessing
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from logging.handlers import QueueHandler, QueueListener
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor

from pipeline.core.errors import ConfigError, RadaugError
from pipeline.core.processes import end_with_parent

if TYPE_CHECKING:
    from lightning_fabric import Fabric

Result = TypeVar("Result")
_LOGGED = ("pipeline", "radaug")


@dataclass(frozen=True)
class ProcessGroup:
    """The processes that train together, as one of them sees it.

    Attributes:
        rank, world_size: this process's number, and how many there are.
        average: averages a tensor over all processes, in place; None = there is one process. All processes must call it
            equally often, or they wait for each other for ever.
    """

    rank: int = 0
    world_size: int = 1
    average: Callable[[Tensor], None] | None = None

    @property
    def leads(self) -> bool:
        """True for the one process that logs, draws and saves."""
        return self.rank == 0


ONE_PROCESS = ProcessGroup()


def require_devices(device: str, devices: int) -> None:
    """Refuse more processes than this machine can give a device of their own; on the CPU they share the cores.

    Raises:
        ConfigError: `compute.devices` is more than there are.
    """
    there = {"cpu": devices, "cuda": torch.cuda.device_count()}.get(device, 1)
    if devices > there:
        raise ConfigError(f"compute.devices: {devices} were asked for, but this machine has {there} of kind {device}.")


def launch(device: str, devices: int, function: Callable[..., Result], *args: Any) -> Result:
    """What `function(group, *args)` returns in the leading one of `devices` processes.

    The processes are started anew ("spawn") and find each other at a port of their own on this machine: gloo on the
    CPU, NCCL on GPUs. `function` and `args` must be picklable, the result too, and hold no tensor: its memory goes
    with its process. What the leading one logs is logged here.

    Gradients are averaged by `ProcessGroup.average` where `Stepper` moves a player, not by DistributedDataParallel: its
    reducer expects one forward and one backward pass a step through all of a net's weights, and a GAN's nets go through
    several, some frozen, some differentiated twice (R1, gradient penalty, path length).

    Raises:
        RadaugError: `function` raised it in all processes.
    """
    if devices == 1:
        return function(ONE_PROCESS, *args)
    from lightning_fabric import Fabric

    fabric = Fabric(accelerator=device, devices=devices, strategy="ddp_spawn", plugins=[_meeting_place()])
    with _logging_of_others() as queue:
        levels = {name: logging.getLogger(name).getEffectiveLevel() for name in _LOGGED}
        result = fabric.launch(partial(_member, queue=queue, levels=levels, function=function, args=args)).value
    if isinstance(result, RadaugError):
        raise result
    return result


class _Outcome:
    """A result that Fabric hands over as it is; of the collections that it knows it would make copies."""

    def __init__(self, value: Any) -> None:
        self.value = value


def _member(fabric: Fabric, queue: Any, levels: dict[str, int], function: Callable[..., Any], args: Any) -> _Outcome:
    """One process's part. Errors raised on purpose are returned: from another process only their text could come."""

    def average(tensor: Tensor) -> None:
        mean = fabric.all_reduce(tensor, reduce_op="mean")
        assert isinstance(mean, Tensor)
        tensor.copy_(mean)

    end_with_parent()
    group = ProcessGroup(fabric.global_rank, fabric.world_size, average)
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level if group.leads else logging.CRITICAL)
        logging.getLogger(name).addHandler(QueueHandler(queue))
        logging.getLogger(name).propagate = False
    try:
        return _Outcome(function(group, *args))
    except RadaugError as error:
        return _Outcome(error)
    finally:
        torch.distributed.destroy_process_group()  # its threads would abort a process that ends before they do


def _meeting_place() -> Any:
    """Fabric's environment of one machine with a free port of its own: it would take that of an earlier group."""
    from lightning_fabric.plugins.environments.lightning import LightningEnvironment, find_free_network_port

    environment = LightningEnvironment()
    environment._main_port = find_free_network_port()
    return environment


class _Passing(logging.Handler):
    """Hands another process's log records to this one's loggers."""

    def emit(self, record: logging.LogRecord) -> None:
        logging.getLogger(record.name).handle(record)


@contextmanager
def _logging_of_others() -> Iterator[Any]:
    """A queue whose log records are logged here."""
    queue = multiprocessing.get_context("spawn").Queue()
    listener = QueueListener(queue, _Passing())
    listener.start()
    try:
        yield queue
    finally:
        listener.stop()

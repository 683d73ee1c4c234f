"""Which device and precision a run uses, decided once and written into every record."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import nn

from pipeline.core.errors import ConfigError
from pipeline.core.small_convolutions import guard_small_convolutions

Net = TypeVar("Net", bound=nn.Module)
guard_small_convolutions()  # of every autocast in this process, also of one that is entered past `autocast`
_LAYOUTS = {4: torch.channels_last, 5: torch.channels_last_3d}


@dataclass(frozen=True)
class Hardware:
    """Resolved device ("cpu", "cuda", "mps") and precision ("float32" or "bf16")."""

    device: str
    precision: str


def resolve_hardware(device: str = "auto", precision: str = "auto") -> Hardware:
    """Turn `auto` into what this machine has: the GPU if there is one, bf16 where it is computed natively.

    Raises:
        ConfigError: a device was named that this machine does not have.
    """
    chosen = device
    if device == "auto":
        chosen = "cuda" if torch.cuda.is_available() else "cpu"
    if chosen == "cuda" and not torch.cuda.is_available():
        raise ConfigError("compute.device: cuda was asked for, but torch finds no GPU. Use auto or cpu.")
    if precision != "auto":
        return Hardware(chosen, precision)
    return Hardware(chosen, "bf16" if _native_bf16(chosen) else "float32")


def _native_bf16(device: str) -> bool:
    if device == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device == "cpu" and torch.cpu._is_avx512_bf16_supported()


def place(net: Net, hardware: Hardware) -> Net:
    """Move a net to the device, its convolutions in channels-last order."""
    net = net.to(hardware.device)
    for parameter in net.parameters():
        if parameter.ndim in _LAYOUTS:
            parameter.data = parameter.data.contiguous(memory_format=_LAYOUTS[parameter.ndim])
    return net


class _Autocast(AbstractContextManager[None]):
    """bf16 autocast that may be entered within itself; torch's own object would then stay switched on for ever."""

    def __init__(self, device: str) -> None:
        self.device = device
        self._entered: list[torch.autocast] = []

    def __enter__(self) -> None:
        context = torch.autocast(self.device, dtype=torch.bfloat16, cache_enabled=False)
        context.__enter__()
        self._entered.append(context)

    def __exit__(self, *error: object) -> None:
        self._entered.pop().__exit__(*error)


def autocast(hardware: Hardware) -> AbstractContextManager[None]:
    """bf16 autocast, to be entered as often as wished, or nothing. Weights and losses stay float32.

    On a CPU, convolutions whose kernel barely fits their image stay float32 too (`pipeline.core.small_convolutions`).
    """
    return nullcontext() if hardware.precision == "float32" else _Autocast(hardware.device)

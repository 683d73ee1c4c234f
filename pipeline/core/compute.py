"""Which device and precision a run uses, decided once and written into every record."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from pipeline.core.errors import ConfigError


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

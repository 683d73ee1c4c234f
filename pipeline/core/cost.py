"""What work is expected to cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry


@dataclass(frozen=True)
class CostEstimate:
    """Expected cost of a piece of work on this machine: floating-point operations, minutes, MiB at its peak."""

    flops: float
    minutes: float
    mib: float


PROCESS_MIB = 700.0
"""A Python process with torch, MONAI and Prefect loaded."""


class FlopCount(TorchDispatchMode):
    """Counts the floating-point operations of what runs in its `with` block, forward and backward.

    By torch's own formulas. Its `FlopCounterMode` follows modules with hooks that gradient penalties do not allow.
    """

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        formula = flop_registry.get(func.overloadpacket)
        if formula is not None:
            self.total += formula(*args, **(kwargs or {}), out_val=result)
        return result

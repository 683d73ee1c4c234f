"""What work is expected to cost."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class CostEstimate:
    """Expected cost of a piece of work on this machine: floating-point operations, minutes, MiB at its peak."""

    flops: float
    minutes: float
    mib: float


PROCESS_MIB = 700.0
"""A Python process with torch, MONAI and Prefect loaded."""

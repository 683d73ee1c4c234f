"""The map between stored numbers, physical values and the networks' [-1, 1]."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Scaling:
    """How a data set's numbers are to be read.

    physical = stored * scale + offset, in `unit`; the networks see `window` mapped to [-1, 1].

    Attributes:
        scale, offset: from stored to physical value.
        unit: "HU" for CT, "none" for images without a physical unit.
        window: (low, high) in physical values.
        dtype: of the stored array: uint8, int16, float16 or float32.
    """

    scale: float
    offset: float
    unit: str
    window: tuple[float, float]
    dtype: str

    def to_model(self, stored: torch.Tensor) -> torch.Tensor:
        """Stored numbers [B, C, *spatial] to float32 in [-1, 1]."""
        low, high = self.window
        physical = (stored.float() * self.scale).add_(self.offset)  # from here on in place
        return physical.sub_(low).mul_(2.0 / (high - low)).sub_(1.0).clamp_(-1.0, 1.0)

    def to_physical(self, model: np.ndarray) -> np.ndarray:
        """Images in [-1, 1] to physical values, float32."""
        low, high = self.window
        return ((np.clip(model, -1.0, 1.0) + 1.0) * (0.5 * (high - low)) + low).astype(np.float32)

    def to_stored(self, physical: np.ndarray) -> np.ndarray:
        """Physical values, clipped to the window, as they are stored; integers are rounded, not cut."""
        stored = (np.clip(physical, *self.window) - self.offset) / self.scale
        if np.issubdtype(np.dtype(self.dtype), np.integer):
            stored = np.rint(stored)
        return stored.astype(self.dtype)

    def as_json(self) -> dict[str, Any]:
        return asdict(self) | {"window": list(self.window)}

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> Scaling:
        low, high = fields["window"]
        return cls(**(fields | {"window": (float(low), float(high))}))

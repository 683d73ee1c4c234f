"""What a reader says of an image that it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.core.errors import UnreadableImage
from pipeline.data.images import read_image


def refusal(path: Path, spatial_dims: int = 2, series_id: str | None = None) -> str:
    """The reason; the name and the id of the made-up patients are never in the message."""
    with pytest.raises(UnreadableImage) as caught:
        read_image(path, spatial_dims=spatial_dims, series_id=series_id)
    assert "Secretname" not in str(caught.value)
    assert "P-77" not in str(caught.value)
    return caught.value.reason

"""Sources as a user has them, brought through the stage ingest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pipeline.config.loading import validate_experiment
from pipeline.data import ingest


def config(source: dict[str, Any], **data: Any) -> ingest.IngestConfig:
    plain = {"classes": ["a", "b"], "positive": ["b"]} | data
    return ingest.ingest_config(validate_experiment({"name": "t", "data": plain | {"source": source}}, "t"))


def ingested(folder: Path, source: dict[str, Any], **data: Any) -> Path:
    out = folder / "ingested"
    out.mkdir()
    ingest.run(config(source, **data), {}, out)
    return out


def png(path: Path, number: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(number).integers(0, 256, (12, 12), dtype=np.uint8)).save(path)

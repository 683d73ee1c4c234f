"""What the server of children has in memory: all stages with their libraries, and the digests of their code."""

from __future__ import annotations

import os
from importlib import import_module

from pipeline.core.sources import reach_of

_STAGES = (
    "pipeline.data.ingest", "pipeline.data.cohort.split", "pipeline.data.prepare", "pipeline.adversarial.fit",
    "pipeline.synthesis.synthesise", "pipeline.quality.measure", "pipeline.anomaly.detect",
    "pipeline.anomaly.shift_stage",
    "pipeline.privacy.memorisation", "pipeline.privacy.attack_stage", "pipeline.downstream.train",
    "pipeline.verdict.stage",
)  # fmt: skip
_AT_THE_FIRST_STEP = ("torch._dynamo",)
"""What torch's optimisers import when they are first used: seconds, in every process anew."""
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # a fork does not take a library's threads with it
for name in (*_STAGES, *_AT_THE_FIRST_STEP):
    import_module(name)
reach_of(frozenset(_STAGES))

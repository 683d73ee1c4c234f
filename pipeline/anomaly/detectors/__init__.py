"""The table of detectors: one file each. A file is found by its name and imported when it is asked for."""

from __future__ import annotations

from collections.abc import Mapping

from pipeline.anomaly.detector import DetectorFacts
from pipeline.config.anomaly import PACKAGE
from pipeline.config.by_name import ByName

DETECTORS: Mapping[str, DetectorFacts] = ByName(PACKAGE, "DETECTOR")

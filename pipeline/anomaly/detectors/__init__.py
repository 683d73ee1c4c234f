"""The table of detectors: one file each. A file is found by its name and imported when it is asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from pipeline.anomaly.detector import DetectorFacts
from pipeline.config.anomaly import detector_module, detector_names


class _Table(Mapping[str, DetectorFacts]):
    """Facts by name, in the alphabet's order."""

    def __getitem__(self, name: str) -> DetectorFacts:
        facts: DetectorFacts = detector_module(name).DETECTOR
        return facts

    def __iter__(self) -> Iterator[str]:
        return iter(detector_names())

    def __len__(self) -> int:
        return len(detector_names())


DETECTORS: Mapping[str, DetectorFacts] = _Table()

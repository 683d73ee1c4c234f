"""The table of attacks: one file each. A file is found by its name and imported when it is asked for."""

from __future__ import annotations

from collections.abc import Mapping

from pipeline.config.by_name import ByName
from pipeline.config.privacy import PACKAGE
from pipeline.privacy.attack import AttackFacts

ATTACKS: Mapping[str, AttackFacts] = ByName(PACKAGE, "ATTACK")

"""The table of attacks: one file each. A file is found by its name and imported when it is asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from pipeline.config.privacy import attack_module, attack_names
from pipeline.privacy.attack import AttackFacts


class _Table(Mapping[str, AttackFacts]):
    """Facts by name, in the alphabet's order."""

    def __getitem__(self, name: str) -> AttackFacts:
        facts: AttackFacts = attack_module(name).ATTACK
        return facts

    def __iter__(self) -> Iterator[str]:
        return iter(attack_names())

    def __len__(self) -> int:
        return len(attack_names())


ATTACKS: Mapping[str, AttackFacts] = _Table()

"""`radaug families`, `radaug detectors` and `radaug attacks`: what there is to choose from."""

from __future__ import annotations

import json
from typing import Any

from rich.console import Console
from rich.padding import Padding
from rich.text import Text


def print_families(*, as_json: bool) -> None:
    from pipeline.adversarial.families import FAMILIES

    _print(
        [
            {
                "name": family.name,
                "dimensions": family.dimensions,
                "conditions": family.conditions,
                "source": family.source,
                "note": family.note,
            }
            for family in FAMILIES.values()
        ],
        as_json=as_json,
    )


def print_detectors(*, as_json: bool) -> None:
    from pipeline.anomaly.detectors import DETECTORS

    _print(
        [
            {
                "name": name,
                "group": facts.group,
                "dimensions": facts.dimensions,
                "maps": facts.says_where,
                "needs_gan": facts.needs_gan,
                "own_gan": facts.own_gan,
                "needs_mixed": facts.needs_mixed,
                "trains": facts.trains,
                "source": facts.source,
                "note": facts.note,
            }
            for name, facts in DETECTORS.items()
        ],
        as_json=as_json,
    )


def print_attacks(*, as_json: bool) -> None:
    from pipeline.config.privacy import SHADOWED
    from pipeline.privacy.attacks import ATTACKS

    _print(
        [
            {
                "name": name,
                "holds": facts.holds,
                "gates": facts.gates,
                "shadows": name in SHADOWED,
                "source": facts.source,
                "note": facts.note,
            }
            for name, facts in ATTACKS.items()
        ],
        as_json=as_json,
    )


def _print(rows: list[dict[str, Any]], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(rows, indent=2))
        return
    console = Console(highlight=False)
    for row in rows:
        facts = [_fact(name, value) for name, value in row.items() if name not in ("name", "source", "note")]
        console.print(f"[bold]{row['name']}[/bold]  {' · '.join(filter(None, facts))}")
        for text in filter(None, (row["source"], row["note"])):
            console.print(Padding(Text(text), (0, 0, 0, 4)))


_SPOKEN = {
    "needs_gan": "needs a GAN", "own_gan": "of normal patients", "needs_mixed": "needs other images too",
    "trains": "trains a network", "gates": "has a say",
    "shadows": "trains shadow generators",
}  # fmt: skip


def _fact(name: str, value: Any) -> str:
    if name == "dimensions":
        return ", ".join(f"{number}D" for number in value)
    if isinstance(value, bool):
        return _SPOKEN.get(name, name) if value else ""
    if name == "holds":
        return f"holds {value}"
    return value if isinstance(value, str) else "by " + ", ".join(value)

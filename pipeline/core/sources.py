"""The rooms of the program: which may import which, and a hash of the sources that a room's stages can reach."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from pipeline.core.files import digest_json, digest_tree

_PACKAGE = Path(__file__).resolve().parents[1]
_TRAINED = ("adversarial", "supervised")
ROOM_IMPORTS: dict[str, tuple[str, ...]] = {
    "core": (),
    "config": ("core",),
    "data": ("config", "core"),
    "nets": ("config", "core"),
    "measures": ("core", "nets"),
    "supervised": ("nets", "data", "measures"),
    "adversarial": ("nets", "data", "measures"),
    "synthesis": _TRAINED,
    "quality": ("synthesis",),
    "downstream": ("synthesis",),
    "anomaly": ("synthesis",),
    "privacy": ("synthesis",),
    "verdict": ("quality", "downstream", "anomaly", "privacy"),
    "report": ("core", "config"),
}
"""Direct imports a room may make; what those may import, it may import too. `pyproject.toml` holds CI's contract."""


def reachable_rooms(room: str) -> frozenset[str]:
    """`room` and every room that it may import, at any distance."""
    found = {room}
    for imported in ROOM_IMPORTS[room]:
        found |= reachable_rooms(imported)
    return frozenset(found)


@cache
def source_hash(room: str) -> str:
    """Digest of all Python sources that a stage in `room` may reach: a change in any of them makes the stage stale."""
    return digest_json(
        {
            name: {path: digest for path, (_, digest) in digest_tree(_PACKAGE / name).items() if path.endswith(".py")}
            for name in sorted(reachable_rooms(room))
        }
    )

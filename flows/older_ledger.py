"""The ledger of earlier versions: a CSV file with a row a stage, without decisions or patients."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipeline.core.errors import UserError
from pipeline.data.batches.dataset import read_table

_COLUMNS = ("test_set", "when", "run", "stage", "fingerprint")
_NOT_KEPT = "not kept"
_EXTERNAL = " (external site)"


def older_looks(path: Path) -> list[dict[str, Any]]:
    """The looks in a ledger of an earlier version, as fields of `Look`; none where there is no such file.

    There, a run's verdict and its anomaly and privacy stages were a row each: the verdict's is its look. A curve had a
    row a size: a size that comes again begins another curve.

    Raises:
        UserError: it is damaged.
    """
    if not path.is_file():
        return []
    try:
        table = read_table(path)
    except (ValueError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: the ledger of looks is damaged. {_MEND}") from error
    lacking = [name for name in _COLUMNS if name not in table]
    if lacking:
        raise UserError(f"{path}: the ledger of looks has no column {', '.join(lacking)}. {_MEND}")
    found: dict[str, dict[str, Any]] = {}
    sizes: dict[tuple[str, str], tuple[str, set[str]]] = {}
    for row in table.to_dict("records"):
        stage, run, test_set = str(row["stage"]), str(row["run"]), str(row["test_set"])
        key = str(row["fingerprint"])
        if stage.startswith("curve"):
            first, seen = sizes.get((run, test_set), ("", set()))
            if not first or stage in seen:
                first, seen = key, set()
            sizes[run, test_set] = (first, seen | {stage})
            key = first
        elif not stage.startswith("verdict"):
            continue
        side = "external" if stage.endswith(_EXTERNAL) else "test"
        what = "curve" if stage.startswith("curve") else "run"
        look = found.setdefault(key, _look(row, what, key))
        look["sets"][side] = test_set
    return list(found.values())


def _look(row: dict[Any, Any], what: str, key: str) -> dict[str, Any]:
    return {
        "when": str(row["when"]), "run": str(row["run"]), "what": what, "settings": "", "fingerprint": key,
        "result": "", "utility": _NOT_KEPT, "release": _NOT_KEPT, "sets": {},
    }  # fmt: skip


_MEND = "Bring back a copy of it, or move it away: the count of looks then begins anew."

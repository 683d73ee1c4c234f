"""The names of a run's files and folders stand in one place."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from pipeline.core import layout
from pipeline.core.layout import gan_name, stage_name

ROOT = Path(__file__).parents[1]
FOLDERS = {layout.STAGES, layout.CHECKPOINTS, layout.FIGURES, layout.GRIDS}


@pytest.mark.parametrize(
    ("place", "stage", "gan"),
    [
        ((None, None), "downstream", ""),
        ((0, None), "downstream-fold-0", "fold-0"),
        ((10, 2), "downstream-fold-10-gan-2", "fold-10-gan-2"),
    ],
)
def test_a_stage_is_named_by_what_it_is(place: tuple[int | None, int | None], stage: str, gan: str) -> None:
    assert stage_name("downstream", *place) == stage
    assert gan_name(*place) == gan


def test_no_other_module_spells_a_name_of_the_layout() -> None:
    names = {value for value in vars(layout).values() if isinstance(value, str) and "." in value and " " not in value}
    names -= {layout.__name__, layout.__file__, layout.__package__}
    assert {"config.yaml", "verdict.json", "report.html", "predictions.csv", "record.json"} <= names
    found = []
    for path in [*(ROOT / "pipeline").rglob("*.py"), *(ROOT / "flows").rglob("*.py")]:
        if path == Path(layout.__file__):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            joined = node.right if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div) else None
            spelled = isinstance(node, ast.Constant) and node.value in names
            if spelled or (isinstance(joined, ast.Constant) and joined.value in FOLDERS):
                found.append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert found == []

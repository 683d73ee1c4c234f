"""metrics.csv: one set of columns, one writer, one reader."""

from __future__ import annotations

import re
from dataclasses import FrozenInstanceError
from pathlib import Path

import pytest

from pipeline.core.errors import DataError
from pipeline.core.metrics import MetricRow, as_text, read_metrics, table_of, write_metrics

HEADER = "stage,arm,fold,seed,gan_seed,split,label,subgroup,metric,value,ci_low,ci_high,n_patients,n_images,detail"


def test_the_file_by_hand_and_back(tmp_path: Path) -> None:
    rows = [
        MetricRow(stage="downstream", arm="real", fold="0", seed="1", metric="auroc", value="0.5", n_patients="007"),
        MetricRow(stage="probe", metric="probe_warning", subgroup="sex", detail='F, "M"'),
    ]
    write_metrics(tmp_path, rows)
    lines = (tmp_path / "metrics.csv").read_text(encoding="utf-8").splitlines()
    assert lines == [
        HEADER, "downstream,real,0,1,,,,,auroc,0.5,,,007,,", 'probe,,,,,,,sex,probe_warning,,,,,,"F, ""M"""',
    ]  # fmt: skip
    assert read_metrics(tmp_path) == rows
    write_metrics(tmp_path, [])
    assert (tmp_path / "metrics.csv").read_text(encoding="utf-8") == HEADER + "\n" and read_metrics(tmp_path) == []
    assert ",".join(table_of([])) == HEADER
    with pytest.raises(FrozenInstanceError):
        rows[0].value = "0.6"  # type: ignore[misc]


def test_figures_have_six_digits_and_stay_between_their_ends() -> None:
    shown = [as_text(0.123456789), as_text(1234567.0), as_text(1.0), as_text(None), as_text(1.02, 0, 1)]
    assert shown == ["0.123457", "1.23457e+06", "1", "", "1"]
    assert (as_text(-1.5, -1, 1), as_text(-0.1, 0, 1)) == ("-1", "0")


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"metrics.csv: is missing from .*radaug run"):
        read_metrics(tmp_path)
    (tmp_path / "metrics.csv").write_text("stage,metric\na,b\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"no column arm, fold, .*detail\. Do `radaug run` again"):
        read_metrics(tmp_path)


def test_the_columns_stand_once() -> None:
    """Two neighbouring ones, or the file's name, in quotes: only the one module spells them."""
    root = Path(__file__).parents[1]
    spelt = re.compile(r'"ci_high",\s*"n_patients"|["/]metrics\.csv"')
    files = [path for room in ("pipeline", "flows", "benchmarks") for path in (root / room).rglob("*.py")]
    found = {path.name for path in files if spelt.search(path.read_text(encoding="utf-8"))}
    assert found <= {"metrics.py", "layout.py", "flow.py"}  # the file is named in layout, the flow shows some columns

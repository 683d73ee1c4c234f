"""A stage function goes with its own configuration and with no other: mypy says so before anything runs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAIRS = """
from collections.abc import Mapping
from pathlib import Path
from pipeline.config.section import Section
from pipeline.core.cache import Stage, execute
from pipeline.core.records import Record

class Fit(Section):
    seed: int

class Split(Section):
    seed: int

def run(config: Fit, inputs: Mapping[str, Path], out_dir: Path) -> Record:
    return Record("fit")

right = Stage("fit", run, Fit(seed=1))
execute(right, Path())
reveal_type(right.config)
wrong = Stage("fit", run, Split(seed=1))
"""


SKIP = """
[mypy]
plugins = pydantic.mypy
strict = True
[mypy-torch.*,numpy.*,pandas.*,matplotlib.*,psutil.*]
follow_imports = skip
follow_imports_for_stubs = True
"""
"""Libraries of which the pair says nothing, and which take a minute to read."""


def test_a_wrong_pair_of_function_and_configuration_does_not_type_check(tmp_path: Path) -> None:
    (tmp_path / "pairs.py").write_text(PAIRS)
    (tmp_path / "mypy.ini").write_text(SKIP)
    options = ["--config-file", "mypy.ini", "--follow-imports", "silent", "--no-pretty"]
    command = [sys.executable, "-m", "mypy", *options, "pairs.py"]
    shown = subprocess.run(command, cwd=tmp_path, env={"MYPYPATH": str(ROOT)}, capture_output=True, text=True).stdout
    lines = [line for line in shown.splitlines() if line.startswith("pairs.py")]
    assert len(lines) == 2, shown
    assert lines[0].startswith("pairs.py:19: note: Revealed type is") and "Fit" in lines[0]
    assert lines[1].startswith("pairs.py:20: error:") and "Stage" in lines[1], shown

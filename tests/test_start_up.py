"""What commands load: a quick answer loads no heavy library. Time itself is not tested."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PREFECT = {"prefect", "httpx"}
TRAINING = {"monai", "sklearn", "statsmodels", "matplotlib", "lightning_fabric"}
HEAVY = {*PREFECT, *TRAINING, "torch", "pandas", "scipy", "pydicom", "nibabel"}


def loaded(code: str) -> set[str]:
    """Top-level modules that a fresh process has after `code`."""
    report = f"{code}\nimport sys\nprint('loaded', *{{name.partition('.')[0] for name in sys.modules}})"
    done = subprocess.run(
        [sys.executable, "-c", report],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    return set(done.stdout.rpartition("loaded")[2].split())


@pytest.mark.parametrize("words", [["--help"], ["--version"], ["run", "--help"]])
def test_help_and_version_load_no_heavy_library(words: list[str]) -> None:
    assert not loaded(f"from flows.cli import launch; assert launch({words}) == 0") & HEAVY


def test_a_configuration_is_read_and_planned_without_what_its_stages_need() -> None:
    code = (
        "from pathlib import Path; from flows.plan import plan_experiment; "
        "from pipeline.config.loading import load_experiment; "
        f"print(len(plan_experiment(load_experiment(Path({str(ROOT / 'configs/demo.yaml')!r})))))"
    )
    assert not loaded(code) & (HEAVY - {"torch", "pandas"})  # a family's configuration stands beside its nets


def test_families_are_listed_without_monai_and_its_train() -> None:
    assert not loaded("from flows.cli import launch; launch(['families'])") & (PREFECT | TRAINING | {"pydicom"})


def test_validate_loads_no_library_that_only_training_needs() -> None:
    assert not loaded("import flows.validate") & (PREFECT | TRAINING)

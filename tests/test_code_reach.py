"""Which code and which libraries make a stage stale: all that it can reach, and nothing else."""

from __future__ import annotations

import ast
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import pytest
from tiny_run import TINY

from flows.plan import plan_experiment
from pipeline.config.families import family_module
from pipeline.config.loading import load_experiment
from pipeline.core import sources
from pipeline.core.sources import reach_of

ROOT = Path(__file__).parents[1]
CODE = {
    "pipeline/__init__.py": "",
    "pipeline/core/__init__.py": "STARTED = True\n",
    "pipeline/core/sums.py": "import numpy as np\n\n\ndef total(values):\n    return np.sum(values)\n",
    "pipeline/fit.py": (
        '"""Training."""\nfrom typing import TYPE_CHECKING\nfrom pipeline.core import sums\nif TYPE_CHECKING:\n'
        "    import pipeline.page\n\n\ndef run():\n"
        '    """Fit."""\n    from pipeline.late import LATE  # only now\n    return sums.total([LATE])\n'
    ),
    "pipeline/late.py": "import scipy.stats\nfrom .core.sums import total\nLATE = 1\n",
    "pipeline/families/__init__.py": "",
    "pipeline/families/one.py": "WIDTH = 8\n",
    "pipeline/families/two.py": "import sklearn.svm\nWIDTH = 16\n",
    "pipeline/page.py": "import pydicom, yaml, json\n",
}


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The program of `CODE`, read in the place of radaug's."""
    for name, text in CODE.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(sources, "_ROOT", tmp_path)
    forget()
    yield tmp_path
    forget()


def forget() -> None:
    reach_of.cache_clear()
    sources._source.cache_clear()


def digest(*modules: str) -> str:
    forget()
    return reach_of(frozenset(modules)).digest


def test_imports_count_at_any_distance_and_inside_functions(program: Path) -> None:
    found = reach_of(frozenset({"pipeline.fit"}))
    assert found.modules == {
        "pipeline", "pipeline.core", "pipeline.core.sums", "pipeline.fit", "pipeline.late",
    }  # fmt: skip
    assert found.versions == {"numpy": version("numpy"), "scipy": version("scipy")}
    assert reach_of(frozenset({"pipeline.page"})).versions.keys() == {
        "pydicom", "pylibjpeg", "pylibjpeg-libjpeg", "pylibjpeg-openjpeg", "pylibjpeg-rle",
    }  # fmt: skip
    assert reach_of(frozenset({"pipeline.families.two"})).versions.keys() == {"scikit-learn", "scipy"}
    assert reach_of(frozenset({"a_script"})).modules == set()


@pytest.mark.parametrize(
    ("name", "old", "new", "stale"),
    [
        ("pipeline/fit.py", '"""Training."""', '"""Training, told in other words."""', False),
        ("pipeline/fit.py", '    """Fit."""\n', "", False),
        ("pipeline/fit.py", "  # only now", "  # not before", False),
        ("pipeline/fit.py", "return sums.total([LATE])", "return sums.total(\n        [LATE]\n    )", False),
        ("pipeline/late.py", "LATE = 1", 'LATE = 1\n"""What comes late."""', False),
        ("pipeline/late.py", "LATE = 1", "LATE = 2", True),
        ("pipeline/late.py", "LATE = 1", "LATE = '1'", True),
        ("pipeline/core/__init__.py", "True", "False", True),
        ("pipeline/core/sums.py", "np.sum", "np.max", True),
        ("pipeline/page.py", "json", "csv", False),
        ("pipeline/families/two.py", "16", "32", False),
    ],
)
def test_a_change_of_the_code_counts_and_a_change_of_words_does_not(
    program: Path, name: str, old: str, new: str, stale: bool
) -> None:
    before = digest("pipeline.fit")
    text = (program / name).read_text()
    assert old in text
    (program / name).write_text(text.replace(old, new))
    assert (digest("pipeline.fit") != before) == stale


def test_a_module_found_by_name_counts_where_it_is_named(program: Path) -> None:
    one, two = (digest("pipeline.fit", f"pipeline.families.{name}") for name in ("one", "two"))
    (program / "pipeline" / "families" / "two.py").write_text("WIDTH = 32\n")
    assert digest("pipeline.fit", "pipeline.families.one") == one
    assert digest("pipeline.fit", "pipeline.families.two") != two


def test_a_generator_depends_on_its_own_family_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(ROOT / "pipeline", tmp_path / "pipeline", ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(sources, "_ROOT", tmp_path)
    modules = {name: ("pipeline.adversarial.fit", family_module(name).__name__) for name in ("sngan", "stylegan2")}

    def digests() -> dict[str, str]:
        forget()
        return {family: reach_of(frozenset(names)).digest for family, names in modules.items()}

    before = digests()
    assert before["sngan"] != before["stylegan2"]
    changes = {"adversarial/families/stylegan2.py": {"stylegan2"}, "adversarial/families/cogan.py": set(),
               "config/experiment.py": set(), "data/readers/dicom.py": set(), "core/cache.py": set(),
               "adversarial/loop.py": {"sngan", "stylegan2"}}  # fmt: skip
    for name, stale in changes.items():
        path = tmp_path / "pipeline" / name
        text = path.read_text(encoding="utf-8")
        path.write_text(f"{text}\nADDED = 1\n", encoding="utf-8")
        assert {family for family, found in digests().items() if found != before[family]} == stale, name
        path.write_text(f"{text}\n# said more clearly\n", encoding="utf-8")
    assert digests() == before
    forget()


@pytest.fixture(scope="module")
def reaches(tmp_path_factory: pytest.TempPathFactory) -> dict[str, sources.Reach]:
    """What each kind of stage of a small experiment reaches."""
    forget()
    experiment = load_experiment(ROOT / "configs" / "demo.yaml", TINY)
    steps = plan_experiment(experiment)
    stages = {step.name: step.make() for step in steps}
    return {name: reach_of(frozenset({stage.run.__module__, *stage.loads})) for name, stage in stages.items()}


def test_versions_count_where_the_library_can_be_reached(reaches: dict[str, sources.Reach]) -> None:
    def having(library: str) -> set[str]:
        return {name for name, reach in reaches.items() if library in reach.versions}

    fold, gan = "downstream-fold-0", "fold-0-gan-0"
    classifiers = {fold, f"downstream-{gan}"}
    assert having("torch") == having("numpy") == having("pandas") == set(reaches)
    assert having("pydicom") == having("nibabel") == having("pylibjpeg-openjpeg") == {"ingest", "prepare"}
    assert having("scikit-learn") == classifiers | {"detect-pca-fold-0", f"quality-{gan}"}
    assert having("statsmodels") == {"shift-fold-0", "verdict"}
    assert having("lightning-fabric") == {f"fit-gan-{gan}"}
    assert {"verdict", "ingest"} <= having("scipy") and f"synthesise-{gan}" not in having("scipy")
    assert {"ingest", "prepare", f"fit-gan-{gan}"} <= having("pillow") and "split" not in having("pillow")


def test_every_library_that_is_imported_has_its_version(reaches: dict[str, sources.Reach]) -> None:
    names = frozenset(
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for path in (ROOT / "pipeline").rglob("*.py")
    )
    assert reach_of(names).modules == names
    assert all(reach_of(names).versions.values())


def test_what_is_no_code_is_of_pages() -> None:
    """Package data that a stage read would have to be in its key."""
    others = [path for path in (ROOT / "pipeline").rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc")]
    assert {path.parent.name for path in others} == {"report", "reader_study"}


def test_modules_are_found_by_name_in_one_place_alone() -> None:
    found = set()
    for path in (ROOT / "pipeline").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            name = node.func if isinstance(node, ast.Call) else None
            called = getattr(name, "id", getattr(name, "attr", ""))
            if called in ("import_module", "__import__", "exec_module", "load_module", "exec", "run_path"):
                found.add(path.relative_to(ROOT).as_posix())
    assert found <= {"pipeline/config/by_name.py", "pipeline/__init__.py"}  # no stage asks for the latter


def test_a_stage_that_runs_imports_nothing_that_it_is_not_said_to_reach(
    tmp_path: Path, reaches: dict[str, sources.Reach]
) -> None:
    settings = [f"data.source.{kind}=18" for kind in ("cysts", "metastases", "haemangiomas")]
    arguments = [str(ROOT / "configs" / "demo.yaml"), str(tmp_path), *TINY, *settings]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    subprocess.run(
        [sys.executable, str(Path(__file__).with_name("run_alone.py")), *arguments], check=True, env=environment
    )
    imported: dict[str, set[str]] = pickle.loads((tmp_path / "imported.pickle").read_bytes())
    assert imported.keys() == reaches.keys()
    unseen = {name: modules - reaches[name].modules for name, modules in imported.items()}
    assert unseen == {name: set() for name in reaches}
    assert all(len(modules) > 10 for modules in imported.values())

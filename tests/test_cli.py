"""The command line: exit codes, what it prints, and what `validate` counts."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from rich.console import Console

import flows.children
import flows.cli
import flows.flow
import flows.running
import flows.server
import flows.validate
from flows.cli import launch
from flows.plan import Step
from flows.validate import split_table
from pipeline.adversarial import gan_cost
from pipeline.config.experiment import Experiment
from pipeline.config.section import Section
from pipeline.core.cache import Stage
from pipeline.core.cost import CostEstimate
from pipeline.core.errors import LeakageError, UserError
from pipeline.core.files import write_text
from pipeline.core.records import Record
from pipeline.supervised import classifier_cost
from pipeline.verdict.power import patients_tested

VERDICT = {
    "utility": {"decision": "inconclusive", "reasons": ["The interval is wide.", "Few patients."], "evidence": {}},
    "release": {"decision": "not_audited", "reasons": ["No audit was made."], "evidence": {}},
}
AUDIT = "check,severity,count,detail\nduplicates,warning,2,two images are the same\nnear,warning,0,nothing is wrong\n"


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """No --debug, no handlers and no folders are left by a test."""
    monkeypatch.setenv("RADAUG_DEBUG", "")
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")  # named, so that no server is started
    monkeypatch.setattr(flows.cli, "wait_for_server", lambda process: True)
    monkeypatch.setattr(flows.children, "warm_up", lambda: None)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user-cache"))
    monkeypatch.delenv("RADAUG_CACHE", raising=False)
    monkeypatch.chdir(tmp_path)
    loggers = [logging.getLogger(name) for name in ("flows", "pipeline", "radaug")]
    before = [(logger.level, list(logger.handlers)) for logger in loggers]
    yield
    for logger, (level, handlers) in zip(loggers, before, strict=True):
        logger.setLevel(level)
        logger.handlers = handlers


@pytest.fixture
def config(tmp_path: Path) -> str:
    path = tmp_path / "tiny.yaml"
    path.write_text("data: {source: {kind: phantom}, classes: [a, b], positive: [b]}\n")
    return str(path)


def fake_flow(outcome: Any, seen: list[Any]) -> Any:
    def flow(experiment: dict[str, Any], out: str, yes: bool) -> Any:
        seen.append((experiment["name"], experiment["gan"]["num_images"], out))
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    return flow


def test_run_prints_both_verdicts_and_where_the_report_is(
    config: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(flows.flow, "experiment_flow", fake_flow(VERDICT, seen))
    assert launch(["run", config, "--set", "gan.num_images=64", "--set", "name=other"]) == 0
    assert seen == [("other", 64, "runs/other")]
    assert capsys.readouterr().out.splitlines() == [
        "Utility: inconclusive. The interval is wide.",
        "Release: not_audited. No audit was made.",
        "Report: runs/other/report.html",
        "On one page: runs/other/summary.html",
    ]
    assert launch(["run", config, "--out", "elsewhere"]) == 0
    assert seen[1][2] == "elsewhere"


def test_a_run_goes_on_without_a_server_that_does_not_start(
    config: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen: list[str] = []

    def run_experiment(experiment: Experiment, place: Path, engine: object, *, yes: bool) -> Any:
        seen.append(engine.__name__)  # type: ignore[attr-defined]
        return VERDICT

    monkeypatch.setattr(flows.cli, "wait_for_server", lambda process: False)
    monkeypatch.setattr(flows.running, "run_experiment", run_experiment)
    monkeypatch.setattr(flows.flow, "experiment_flow", fake_flow(AssertionError(), []))
    assert launch(["run", config]) == 0
    assert "server did not start: without it this is a run with --engine direct" in capsys.readouterr().out
    monkeypatch.setattr(flows.cli, "start_server", lambda: pytest.fail("--engine direct starts no server"))
    assert launch(["run", config, "--engine", "direct"]) == 0
    assert seen == ["direct_engine", "direct_engine"]


def test_a_server_that_ends_at_once_is_no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(flows.server.API_URL, "http://127.0.0.1:9/api")
    ended = subprocess.Popen([sys.executable, "-c", "raise SystemExit(1)"])
    assert not flows.server.wait_for_server(ended)
    assert flows.server.API_URL not in os.environ


@pytest.mark.parametrize(
    ("outcome", "code", "said"),
    [
        (UserError("labels.csv: column label is missing."), 2, "labels.csv: column label"),
        (LeakageError("3 images are in train and in test."), 3, "3 images"),
        (KeyboardInterrupt(), 130, "again to continue"),
        (KeyError("patient-77"), 1, "KeyError"),
    ],
)
def test_exit_codes_and_one_clean_message(
    config: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    outcome: BaseException,
    code: int,
    said: str,
) -> None:
    monkeypatch.setattr(flows.flow, "experiment_flow", fake_flow(outcome, []))
    assert launch(["run", config]) == code
    shown = capsys.readouterr()
    assert said in shown.err
    assert len(shown.err.splitlines()) == 1
    assert "patient-77" not in shown.err + shown.out
    assert "Report:" not in shown.out


def test_a_fault_leaves_its_traceback_in_a_private_file_and_debug_shows_it(
    config: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(flows.flow, "experiment_flow", fake_flow(KeyError("patient-77"), []))
    assert launch(["run", config]) == 1
    log = tmp_path / "user-cache" / "radaug" / "error.log"
    assert str(log) in capsys.readouterr().err
    assert "KeyError: 'patient-77'" in log.read_text()
    assert log.stat().st_mode & 0o077 == 0
    assert launch(["run", config, "--debug"]) == 1
    assert "KeyError: 'patient-77'" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["run"], ["nonsense"], ["run", "x.yaml", "--nonsense"], ["schedule", "x.yaml"]])
def test_wrong_arguments_exit_with_2(arguments: list[str]) -> None:
    assert launch(arguments) == 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["run", "nowhere.yaml"], "nowhere.yaml: there is no such configuration file"),
        (["run", "tiny.yaml", "--set", "gan.num_imges=3"], "Did you mean num_images?"),
        (["report", "nowhere"], "nowhere: is not a run directory"),
        (["sample", "nowhere", "--label", "a", "--num", "2", "--out", "x"], "nowhere: is not a run directory"),
    ],
)
def test_wrong_input_exits_with_2_and_says_what_to_mend(
    config: str, arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert launch(arguments) == 2
    assert said in capsys.readouterr().err


def test_help_answers_without_loading_torch_or_prefect() -> None:
    code = (
        "import sys\nfrom flows.cli import launch\n"
        "code = launch(['--version'])\n"
        "sys.exit(code or sum(name in sys.modules for name in ('torch', 'prefect', 'monai', 'pandas')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().count(".") == 2


def test_families_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert launch(["families", "--json"]) == 0
    listed = {family["name"]: family for family in json.loads(capsys.readouterr().out)}
    assert listed["sngan"]["dimensions"] == [2, 3]
    assert "Miyato" in listed["sngan"]["source"]
    assert launch(["families"]) == 0
    assert "sngan" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["run"], "run needs a configuration, such as `radaug run study.yaml`; `radaug init FOLDER` writes"),
        (["sample"], "sample needs RUN. See `radaug sample --help`"),
        (["rn"], 'Did you mean "run"?'),
        (["families", "--jason"], "Did you mean --json?"),
        (["curve", "tiny.yaml", "--engine", "dirct"], 'Did you mean "direct"?'),
        (["curve", "tiny.yaml", "--arm", "real+clasical+synthetic@1"], "did you mean real+classical+synthetic@1?"),
    ],
)
def test_a_wrong_command_line_is_told_in_one_line_with_the_mend(
    config: str, capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    assert launch(words) == 2
    shown = capsys.readouterr().err
    assert said in shown and len(shown.splitlines()) == 1


def test_a_curve_of_more_than_an_hour_starts_only_when_told_to(
    config: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    started: list[Any] = []
    monkeypatch.setattr(flows.flow, "curve_flow", lambda *given: started.append(given) or ["An answer."])
    monkeypatch.setattr(gan_cost, "estimate", lambda experiment: CostEstimate(1e12, 20.0, 1024.0))
    monkeypatch.setattr(classifier_cost, "estimate", lambda experiment: CostEstimate(1e12, 11.0, 2048.0))
    assert launch(["curve", config, "--sizes", "4", "8", "--draws", "1"]) == 2
    shown = capsys.readouterr()
    assert "about 62 minutes and 2.0 GiB" in shown.out and "--yes" in shown.err and not started
    assert launch(["curve", config, "--sizes", "4", "8", "--draws", "1", "--yes"]) == 0 and started


def test_a_reader_that_goes_away_is_no_fault(tmp_path: Path) -> None:
    """As `radaug families --json | head -1`, with a pipe that nobody reads any more."""
    read, write = os.pipe()
    os.close(read)
    ended = subprocess.run(
        [sys.executable, "-m", "flows.cli", "families", "--json"], stdout=write, stderr=subprocess.PIPE, check=False,
        env={**os.environ, "PYTHONPATH": str(Path(flows.__file__).parents[1])},
    )  # fmt: skip
    os.close(write)
    assert (ended.returncode, ended.stderr) == (141, b"")


MEMBERS = pd.DataFrame(
    [
        ("0", "train", "a", "p1", "i1"),
        ("0", "train", "a", "p1", "i2"),
        ("0", "train", "b", "p2", "i3"),
        ("0", "test", "b", "p3", "i4"),
        ("0", "test", "a", "p3", "i5"),
        ("0", "test", "a", "p4", "i6"),
        ("0", "val", "a", "", "i7"),
        ("1", "test", "b", "p2", "i3"),
    ],
    columns=["fold", "split", "label", "patient_id", "image_id"],
)


def test_split_table_counts_images_and_patients() -> None:
    rows = split_table(MEMBERS, ("a", "b")).to_dict("records")
    assert rows == [
        {"fold": "0", "split": "train", "a": "2 (1)", "b": "1 (1)", "unlabelled": "0"},
        {"fold": "0", "split": "val", "a": "1 (?)", "b": "0", "unlabelled": "0"},
        {"fold": "0", "split": "test", "a": "2 (2)", "b": "1 (1)", "unlabelled": "0"},
        {"fold": "1", "split": "test", "a": "0", "b": "1 (1)", "unlabelled": "0"},
    ]


def test_patients_tested_counts_a_patient_once_over_all_folds() -> None:
    assert patients_tested(MEMBERS, ("b",)) == (2, 1)  # p2 and p3 have the disease somewhere, p4 has not
    without_ids = MEMBERS.assign(patient_id="")
    assert patients_tested(without_ids, ("b",)) == (2, 2)  # i3, i4 against i5, i6: every image counts


class FakeConfig(Section):
    pass


def fake_manifests(leak: bool) -> Any:
    def ingest(config: FakeConfig, inputs: Mapping[str, Path], out_dir: Path) -> Record:
        write_text(out_dir / "audit.csv", AUDIT)
        return Record(kind="ingest")

    def split(config: FakeConfig, inputs: Mapping[str, Path], out_dir: Path) -> Record:
        if leak:
            raise LeakageError("1 image is in train and in test.")
        write_text(out_dir / "audit.csv", AUDIT)
        MEMBERS[["fold", "image_id", "split"]].to_csv(out_dir / "splits.csv", index=False)
        images = MEMBERS.drop_duplicates("image_id")
        images[["image_id", "label", "patient_id"]].to_csv(out_dir / "manifest.csv", index=False)
        return Record(kind="split")

    def never(config: FakeConfig, inputs: Mapping[str, Path], out_dir: Path) -> Record:
        raise AssertionError("validate trains nothing")

    return (
        Step("ingest", partial(Stage, "ingest", ingest, FakeConfig())),
        Step("split", partial(Stage, "split", split, FakeConfig()), {"ingest": "ingest"}),
        Step("fit-gan", partial(Stage, "fit-gan", never, FakeConfig()), {"split": "split"}, fold=0, gan_seed=0),
    )


def test_validate_answers_first_and_gives_details_when_asked(
    config: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(flows.validate, "plan_experiment", lambda experiment: fake_manifests(leak=False))
    monkeypatch.setattr(flows.validate, "sides_judged", lambda members, *rule: (12, 24))
    monkeypatch.setattr(gan_cost, "estimate", lambda experiment: CostEstimate(3e12, 4.0, 500.0))
    monkeypatch.setattr(classifier_cost, "estimate", lambda experiment: CostEstimate(1e11, 0.5, 700.0))
    overrides = ["--set", "gan.gan_seeds=2", "--set", "classifier.seeds=5"]
    assert launch(["validate", config, *overrides]) == 0
    shown = capsys.readouterr().out
    first, second, third = (" ".join(shown.split()).find(text) for text in ("This can run", "With 36 test", "Warning"))
    assert first == 0 < second < third
    assert "7 images of patients who are not all known, 2 classes, about 4 minutes, 0.7 GiB" in " ".join(shown.split())
    assert "an audit needs 20 of either: nothing will be released" in " ".join(shown.split())
    assert "two images are the same" in shown and "nothing is wrong" not in shown and "FLOPs" not in shown
    assert launch(["validate", config, "--all", *overrides]) == 0
    shown = capsys.readouterr().out
    assert "two images are the same" in shown and "nothing is wrong" not in shown
    assert "2 (1)" in shown
    # arms real, real+classical once a seed; the two synthetic ones once a seed and GAN: (2 + 2 x 2) x 5; and the
    # reverse check once a GAN
    assert "3 stages, 2 GAN(s) (sngan), 32 classifier fits" in shown
    assert "GANs: 3e+12 FLOPs, about 4.0 min and 500 MiB" in shown
    assert "Classifiers: 1e+11 FLOPs, about 0.5 min and 700 MiB" in shown
    assert [path.name for path in (tmp_path / "runs").iterdir()] == [".cache"]


def test_a_comparison_that_cannot_be_is_an_error(
    config: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(globals(), "MEMBERS", MEMBERS[MEMBERS["patient_id"] != "p4"])
    monkeypatch.setattr(flows.validate, "plan_experiment", lambda experiment: fake_manifests(leak=False))
    for costs in (gan_cost, classifier_cost):
        monkeypatch.setattr(costs, "estimate", lambda experiment: CostEstimate(1e12, 1.0, 500.0))
    assert launch(["validate", config]) == 2  # two tested patients with the disease, and one of them without it too
    assert "each side needs two" in capsys.readouterr().err


def test_validate_shows_the_audit_before_it_refuses(
    config: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(flows.validate, "plan_experiment", lambda experiment: fake_manifests(leak=True))
    assert launch(["validate", config]) == 3
    shown = capsys.readouterr()
    assert "duplicates" in shown.out
    assert "1 image is in train and in test" in shown.err


def test_tables_are_readable_on_a_narrow_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    audit = pd.DataFrame([{"check": "duplicates", "detail": "x" * 200}])
    flows.validate._print_table(Console(width=60), "Audit", audit)
    shown = capsys.readouterr().out
    assert "duplicates" in shown
    assert shown.count("x") == 200

"""The flow: its plan, its run directory, its cache and what it does when a stage fails."""

from __future__ import annotations

import base64
import json
import logging
import re
import shutil
import threading
from pathlib import Path

import pytest
from fake_stages import METRICS, VERDICT, FakeStages, make_experiment, read_artifacts, run_flow, written
from filelock import FileLock

import flows.engines
import flows.run_directory
import flows.running
from flows.children import Work
from flows.export import export_run
from flows.flow import mean_metrics
from flows.lease import holder_of
from flows.plan import plan_experiment
from flows.run_directory import open_run
from pipeline.config.experiment import Experiment
from pipeline.config.loading import load_experiment
from pipeline.core.errors import LeakageError, RadaugError, UserError
from pipeline.core.files import read_json, write_text
from pipeline.core.layout import LOCK


def test_plan_has_every_fold_and_gan_in_an_order_that_can_be_run(tmp_path: Path) -> None:
    experiment = make_experiment(tmp_path, "data.split.kind=kfold", "data.split.folds=3", "gan.gan_seeds=2")
    steps = plan_experiment(experiment)
    names = [step.name for step in steps]
    # ingest, split, prepare; a fold has its plain classifiers, two detectors, the look for a shift, and two GANs with
    # seven stages each; three attacks on the one generator that may be released; the verdict
    assert len(set(names)) == len(names) == 3 + 3 * (4 + 2 * 7) + 3 + 1
    for place, step in enumerate(steps):
        assert set(step.needs.values()) <= set(names[:place]), step.name
    by_name = {step.name: step for step in steps}
    assert by_name["fit-gan-fold-2-gan-1"].needs == {"split": "split", "prepare": "prepare"}
    assert by_name["fit-gan-fold-2-gan-1"].make().resumable
    assert by_name["downstream-fold-2"].parts == tuple(
        f"{arm} seed {seed}" for arm in ("real", "real+classical") for seed in range(3)
    )
    assert by_name["downstream-fold-2-gan-1"].parts[-1] == "real+classical seed 0"  # the reverse check
    assert by_name["downstream-fold-2-gan-1"].needs["synthesise"] == "synthesise-fold-2-gan-1"
    assert "synthesise" not in by_name["downstream-fold-2"].needs
    assert by_name["detect-discriminator-logit@run-fold-1-gan-0"].needs["gan"] == "fit-gan-fold-1-gan-0"
    assert by_name["detect-padim-fold-1"].needs.keys() == {"split", "prepare"}
    assert by_name["attack-distance-fold-0-gan-0"].needs["fit-gan"] == "fit-gan-fold-0-gan-0"
    kinds = ("downstream", "detect", "shift", "privacy", "attack", "quality")
    judged = [step.name for step in steps if step.kind in kinds]
    assert set(by_name["verdict"].needs) == {"split", "prepare", *judged}
    assert len(judged) == 3 * (1 + 2 * 5 + 3) + 3


def test_plan_trains_no_augmented_classifiers_without_a_synthetic_arm(tmp_path: Path) -> None:
    steps = plan_experiment(make_experiment(tmp_path, "arms=[real, real+classical]"))
    assert [(step.fold, step.gan_seed) for step in steps if step.kind == "downstream"] == [(0, None)]


def test_plan_records_device_precision_and_seed_where_they_matter(tmp_path: Path) -> None:
    experiment = make_experiment(tmp_path, "compute.device=cpu", "compute.precision=bf16", "seed=7")
    stages = {step.name: step.make() for step in plan_experiment(experiment)}
    computing = {name for name, stage in stages.items() if stage.precision == "bf16"}
    assert computing == set(stages) - {"ingest", "split", "prepare", "shift-fold-0", "verdict"}
    assert {stage.seed for stage in stages.values()} == {7}


def test_a_run_leaves_its_files_and_a_second_one_computes_nothing(
    prefect_server: None, stages: FakeStages, experiment: Experiment, tmp_path: Path
) -> None:
    out = tmp_path / "runs" / "tiny"
    found = run_flow(experiment, out)
    assert list(found) == ["looks", "utility", "release"] and found["looks"]["look"] == 1
    assert {name: found[name] for name in VERDICT} == VERDICT
    assert stages.calls == stages.names
    for name in ("config.yaml", "manifest.csv", "metrics.csv", "predictions.csv", "verdict.json", "report.html"):
        assert (out / name).is_file(), name
    assert load_experiment(out / "config.yaml") == experiment
    assert read_json(out / "stages" / "split" / "record.json")["figures"]["images"] == 3
    cached = (tmp_path / "runs" / ".cache").resolve()
    for shortcut, name in {"synthetic": "synthesise", "checkpoints": "fit-gan"}.items():
        link = out / shortcut / "fold-0-gan-0"
        assert link.is_symlink()
        assert link.resolve() == (out / "stages" / f"{name}-fold-0-gan-0").resolve()
        assert link.resolve().parent == cached

    (out / "report-shareable.html").write_text("made of the same run")
    assert run_flow(experiment, out) == found
    assert stages.calls == stages.names
    assert written == [out]  # the report that lay there is that of this run too
    assert (out / "report.html").is_file() and (out / "report-shareable.html").is_file()
    assert not (out / ".earlier").exists()
    found_artifacts = read_artifacts()
    assert set(found_artifacts) == {"tiny-verdict", "tiny-metrics"}
    assert str((out / "report.html").resolve()) in found_artifacts["tiny-verdict"]
    (picture,) = re.findall(r"!\[(.*)\]\(data:image/png;base64,(.*)\)", found_artifacts["tiny-verdict"])
    assert picture == ("roc", base64.b64encode(b"a picture").decode())  # samples show images: they stay here
    assert "file:" not in str(found_artifacts)


def test_a_shareable_report_is_made_anew_with_the_report(
    prefect_server: None, stages: FakeStages, experiment: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "runs" / "tiny"
    run_flow(experiment, out)
    (out / "report-shareable.html").write_text("of the first run")

    def write(run: Path, *, shareable: bool = False) -> None:
        write_text(run / ("report-shareable.html" if shareable else "report.html"), "of the second run")

    monkeypatch.setattr(flows.running, "write_report", write)
    stages.gans = (("fit-gan", 0, 1),)
    run_flow(experiment, out)
    assert (out / "report-shareable.html").read_text() == (out / "report.html").read_text() == "of the second run"


def test_an_exported_run_has_no_links_and_is_not_run_into(
    prefect_server: None, stages: FakeStages, experiment: Experiment, tmp_path: Path
) -> None:
    out, to = tmp_path / "runs" / "tiny", tmp_path / "elsewhere" / "tiny"
    run_flow(experiment, out)
    assert export_run(out, to) > 0
    assert not [path for path in to.rglob("*") if path.is_symlink()]
    names = {path.relative_to(out).as_posix() for path in out.rglob("*")} - {"run.lock", ".report-key"}
    assert names <= {path.relative_to(to).as_posix() for path in to.rglob("*")}
    shutil.rmtree(tmp_path / "runs")
    assert (to / "checkpoints" / "fold-0-gan-0" / "made_by.txt").read_text() == "fit-gan-fold-0-gan-0"
    with pytest.raises(UserError, match="is there already"):
        export_run(to, to)
    with pytest.raises(UserError, match="exported or copied run"):
        run_flow(experiment, to)


def test_what_cannot_be_exported_leaves_nothing(
    prefect_server: None, stages: FakeStages, experiment: Experiment, tmp_path: Path
) -> None:
    out, to = tmp_path / "runs" / "tiny", tmp_path / "to"
    run_flow(experiment, out)
    shutil.rmtree(out.parent / ".cache")
    with pytest.raises(UserError, match="leads to nothing"):
        export_run(out, to)
    (out / "verdict.json").unlink()
    with pytest.raises(UserError, match="has not ended"):
        export_run(out, to)
    assert not to.exists() and not list(tmp_path.glob("*.partial"))


def test_a_run_of_fewer_folds_leaves_no_links_of_the_earlier_one(
    prefect_server: None, stages: FakeStages, experiment: Experiment, tmp_path: Path
) -> None:
    out = tmp_path / "runs" / "tiny"
    stages.gans = (("fit-gan", 0, 0), ("fit-gan", 1, 0))
    run_flow(experiment, out)
    assert {path.name for path in (out / "checkpoints").iterdir()} == {"fold-0-gan-0", "fold-1-gan-0"}
    stages.gans = (("fit-gan", 0, 0),)
    run_flow(experiment, out)
    assert {path.name for path in (out / "checkpoints").iterdir()} == {"fold-0-gan-0"}
    assert {path.name for path in (out / "stages").iterdir()} == set(stages.names)


def test_a_refusal_reaches_the_caller_and_leaves_no_old_verdict(
    prefect_server: None, stages: FakeStages, experiment: Experiment, tmp_path: Path
) -> None:
    out = tmp_path / "runs" / "tiny"
    run_flow(experiment, out)
    stages.gans = (("fit-gan", 0, 1),)
    stages.failing, stages.failure = "fit-gan-fold-0-gan-1", LeakageError("12 images are in train and in test.")
    with pytest.raises(LeakageError, match=r"^fit-gan-fold-0-gan-1: 12 images") as caught:
        run_flow(experiment, out)
    assert caught.value.exit_code == 3
    for name in ("verdict.json", "report.html", "metrics.csv", "predictions.csv", "figures"):
        assert not (out / name).exists(), name

    stages.failure = None
    stages.calls.clear()
    run_flow(experiment, out)
    assert written == [out, out]  # of other stages: another report
    assert stages.calls == ["fit-gan-fold-0-gan-1", "verdict"]
    assert (out / "report.html").is_file()


def test_an_unexpected_fault_names_no_patient_outside_the_run_directory(
    prefect_server: None,
    stages: FakeStages,
    experiment: Experiment,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterName

    out = tmp_path / "runs" / "faulty"
    stages.failing, stages.failure = "split", KeyError("patient-77")
    named = experiment.model_copy(update={"name": "faulty"})
    with pytest.raises(RadaugError) as caught:
        run_flow(named, out)
    assert caught.value.exit_code == 1
    assert "KeyError" in str(caught.value)
    assert "patient-77" not in str(caught.value)
    assert "patient-77" in (out / "error.log").read_text()
    with get_client(sync_client=True) as client:
        (seen,) = client.read_flow_runs(flow_run_filter=FlowRunFilter(name=FlowRunFilterName(any_=["faulty"])))
    assert seen.state is not None
    assert seen.state.is_failed()
    assert "KeyError" in str(seen.state.message)
    assert "patient-77" not in seen.model_dump_json()
    assert "KeyError" in caplog.text  # Prefect's own log, with its traceback
    assert "patient-77" not in caplog.text
    shown = capfd.readouterr()
    assert "Traceback" not in shown.out + shown.err


def test_a_run_directory_in_use_is_left_alone(
    prefect_server: None, stages: FakeStages, experiment: Experiment, tmp_path: Path
) -> None:
    out = tmp_path / "runs" / "tiny"
    run_flow(experiment, out)
    with FileLock(out / LOCK), pytest.raises(UserError, match="another process"):
        run_flow(experiment, out)
    assert (out / "report.html").is_file()


def test_a_scheduled_run_waits_for_the_one_that_is_at_work(
    experiment: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(flows.run_directory, "_ASKS_S", 0.01)
    caplog.set_level(logging.INFO)
    out, opened = tmp_path / "runs" / "tiny", threading.Event()

    def scheduled() -> None:
        with open_run(out, experiment, waits=True):
            opened.set()

    with open_run(out, experiment):
        second = threading.Thread(target=scheduled)
        second.start()
        while "waits for process" not in caplog.text:
            assert second.is_alive()
        assert not opened.wait(0.1)
        holder = holder_of(out)
        assert holder is not None and holder.alive and f"process {holder.pid} on" in caplog.text
    second.join(30)
    assert opened.is_set()


def test_a_folder_that_is_no_run_is_refused_untouched(
    prefect_server: None, stages: FakeStages, experiment: Experiment, tmp_path: Path
) -> None:
    out = tmp_path / "mine"
    write_text(out / "manifest.csv", "my own table")
    with pytest.raises(UserError, match="not a run's"):
        run_flow(experiment, out)
    assert [path.name for path in out.iterdir()] == ["manifest.csv"]
    assert stages.calls == []


def test_the_same_work_again_is_found_in_the_cache(stages: FakeStages, experiment: Experiment, tmp_path: Path) -> None:
    (step,) = stages.plan(experiment)[:1]
    work = Work(step, "", {}, tmp_path / "cache", tmp_path / "error.log", 1)
    first, second = work.do(), work.do()
    assert first is not None and second is not None
    assert (first.cached, second.cached) == (False, True)
    assert first.directory == second.directory


def test_the_error_message_hides_the_cause(stages: FakeStages, experiment: Experiment, tmp_path: Path) -> None:
    error = UserError("manifest.csv: a label is missing.")
    error.__cause__ = KeyError("patient-77")
    stages.failing, stages.failure = "split", error
    with pytest.raises(UserError) as caught:
        Work(stages.plan(experiment)[0], "", {}, tmp_path / "cache", tmp_path / "error.log", 1).do()
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


def test_metric_table_has_only_means_over_all_patients(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text(METRICS)
    rows = mean_metrics(tmp_path)
    assert [row["value"] for row in rows] == ["0.8"]
    assert json.loads(json.dumps(rows)) == rows

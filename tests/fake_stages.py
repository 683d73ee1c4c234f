"""Stages that write what the flow expects, in place of the real ones; and what the flow left in Prefect."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import Artifact
from prefect.client.schemas.sorting import ArtifactSort

import flows.engines
import flows.running
from flows.children import Work
from flows.flow import experiment_flow
from flows.plan import Step
from pipeline.config.experiment import Experiment
from pipeline.config.loading import load_experiment
from pipeline.config.section import Section
from pipeline.core.cache import Stage
from pipeline.core.files import read_json, write_json, write_text
from pipeline.core.layout import stage_name
from pipeline.core.records import Record

METRICS = """\
stage,arm,fold,seed,gan_seed,split,label,subgroup,metric,value,ci_low,ci_high,n_patients,n_images,detail
downstream,real,,,,test,a,,auroc,0.8,0.7,0.9,40,60,
downstream,real,0,1,,test,a,,auroc,0.75,,,40,60,
downstream,real,,,,test,a,sex=F,auroc,0.6,,,20,30,
"""
VERDICT = {
    "utility": {"decision": "no_benefit", "reasons": ["The interval includes 0."], "evidence": {}},
    "release": {"decision": "not_audited", "reasons": ["No audit was made."], "evidence": {}},
}


class FakeConfig(Section):
    text: str = ""


@dataclass
class FakeStages:
    """Split, stages of GANs and verdict, writing what the flow expects; `failure` is raised by the one in `failing`;
    `during` is called by each."""

    gans: tuple[tuple[str, int, int], ...] = (("fit-gan", 0, 0), ("synthesise", 0, 0))
    failing: str = ""
    failure: Exception | None = None
    during: Callable[[], object] = lambda: None
    calls: list[str] = field(default_factory=list)

    @property
    def names(self) -> list[str]:
        return ["split", *(stage_name(*place) for place in self.gans), "verdict"]

    def plan(self, experiment: Experiment) -> tuple[Step, ...]:
        steps: list[Step] = []
        for kind, fold, gan_seed in (("split", None, None), *self.gans, ("verdict", None, None)):
            name = stage_name(kind, fold, gan_seed)
            needs = {"before": steps[-1].name} if steps else {}
            make = partial(Stage, kind, self._function(name), FakeConfig(text=name))
            steps.append(Step(kind, make, needs, fold=fold, gan_seed=gan_seed))
        return tuple(steps)

    def _function(self, name: str) -> Any:
        def run(config: FakeConfig, inputs: Mapping[str, Path], out_dir: Path) -> Record:
            self.calls.append(name)
            self.during()
            if name == self.failing and self.failure is not None:
                raise self.failure
            write_text(out_dir / "made_by.txt", name)
            write_text(out_dir / "manifest.csv", "image_id,patient_id,pixel_digest\n007,,ab12\n")
            write_text(out_dir / "splits.csv", "fold,image_id,split\n0,007,test\n")
            write_text(out_dir / "predictions.csv", "arm,fold\n")
            write_text(out_dir / "metrics.csv", METRICS)
            write_json(out_dir / "verdict.json", VERDICT)
            return Record(kind="fake", figures={"images": 3, "loss": 0.123456})

        return run


def put_in_place(monkeypatch: pytest.MonkeyPatch) -> FakeStages:
    """Fakes that the flow takes for the real stages."""
    fake = FakeStages()
    written.clear()
    monkeypatch.setattr(flows.running, "plan_experiment", fake.plan)
    monkeypatch.setattr(flows.running, "write_report", _write_fake_report)
    monkeypatch.setattr(flows.engines, "in_child", Work.do)  # what a test makes up cannot be sent to another process
    return fake


written: list[Path] = []
"""Where reports were written to."""


def _write_fake_report(out: Path) -> Path:
    written.append(out)
    for name in ("roc", "samples", "worklist"):
        write_text(out / "figures" / f"{name}.png", "a picture")
    write_text(out / "report.html", "verdict: " + read_json(out / "verdict.json")["utility"]["decision"])
    return out / "report.html"


def make_experiment(tmp_path: Path, *overrides: str) -> Experiment:
    config = tmp_path / "tiny.yaml"
    config.write_text(
        "data: {source: {kind: phantom}, classes: [cyst, metastasis, haemangioma], positive: [metastasis]}\n"
    )
    return load_experiment(config, overrides)


def run_flow(experiment: Experiment, out: Path) -> dict[str, Any]:
    return experiment_flow(experiment.model_dump(mode="json"), str(out))


def read_artifacts() -> dict[str, str]:
    """Data of the latest flow run's artifacts by key."""
    found = _artifacts()
    return {str(one.key): str(one.data) for one in found if one.flow_run_id == found[0].flow_run_id}


def flow_run_of_artifacts() -> str:
    """The id of the flow run that made the newest artifact."""
    return str(_artifacts()[0].flow_run_id)


def _artifacts() -> list[Artifact]:
    """The newest first."""
    with get_client(sync_client=True) as client:
        return client.read_artifacts(sort=ArtifactSort.CREATED_DESC)

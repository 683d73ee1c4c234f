"""Disk and memory are reckoned before a run starts, and one that has no room is refused with the mend."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
from safetensors.numpy import load_file
from test_adversarial import fit_config
from tiny_run import TINY

import flows.needs
from flows.cli import launch
from flows.needs import Needs, in_gib, needs_of, require_room
from flows.plan import plan_experiment
from pipeline.adversarial import gan_cost
from pipeline.adversarial.fit import run
from pipeline.config.experiment import Experiment
from pipeline.config.loading import load_experiment
from pipeline.core.errors import UserError
from pipeline.core.threads import PROCESS_MIB

DEMO = Path(__file__).parents[1] / "configs" / "demo.yaml"
WEIGHTS_MIB = 5.0


def demo(*overrides: str) -> Experiment:
    return load_experiment(DEMO, ["compute.device=cpu", *overrides])


def have(monkeypatch: pytest.MonkeyPatch, *, disk_mib: float = 1e6, memory_mib: int = 10**6) -> None:
    """A machine with so much of both that is free."""
    usage = SimpleNamespace(free=disk_mib * 2**20)
    monkeypatch.setattr(flows.needs, "shutil", SimpleNamespace(disk_usage=lambda place: usage))
    monkeypatch.setattr(flows.needs, "available_memory_mib", lambda: memory_mib)


def test_a_disk_is_reckoned_by_arrays_weights_and_checkpoints(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worked case: 2 folds of 2 GANs at 64 x 64 (1/128 MiB an image of 16 bits), 1024 images, 3 classes of 256."""
    monkeypatch.setattr(gan_cost, "weights_mib", lambda experiment: WEIGHTS_MIB)
    settings = ["data.spatial_size=64", "data.split={kind: kfold, folds: 2, val: 0.2}", "gan.gan_seeds=2"]
    made = demo(*settings, "synthesis.samples_per_class=256", "anomaly.detectors=[]", "privacy.attacks=[distance]")
    steps = plan_experiment(made)
    arrays = 1024 / 128 + 4 * 768 / 128
    assert needs_of(steps, made, 1024).disk_mib == arrays + (4 + 12) * WEIGHTS_MIB + len(steps)
    later = [step for step in steps if step.kind in ("downstream", "verdict")]  # the rest is in the cache
    assert needs_of(later, made, 1024).disk_mib == len(later)


def test_memory_is_that_of_the_largest_process_and_parts_of_a_batch_need_less(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gan_cost, "weights_mib", lambda experiment: WEIGHTS_MIB)
    sizes = ["data.spatial_size=128", "gan.batch_size=64", "gan.discriminator_width=64", "classifier.batch_size=2"]
    whole, parts = demo(*sizes), demo(*sizes, "gan.accumulate=4")
    kept = 64 * 128 * 128 * 64 * 4 * 4 / 2**20  # four maps of the first layer's width, in float32
    assert needs_of(plan_experiment(whole), whole, 100).memory_mib == PROCESS_MIB + 4 * WEIGHTS_MIB + kept
    assert needs_of(plan_experiment(parts), parts, 100).memory_mib == PROCESS_MIB + 4 * WEIGHTS_MIB + kept / 4
    manifest = [step for step in plan_experiment(whole) if step.kind in ("ingest", "split")]
    assert needs_of(manifest, whole, 0).memory_mib == PROCESS_MIB


def test_weights_are_those_of_the_nets_that_a_training_leaves(noise_inputs, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    config = fit_config()
    (tmp_path / "out").mkdir()
    run(config, noise_inputs(), tmp_path / "out")
    left = [load_file(path) for path in (tmp_path / "out").glob("*.safetensors")]
    written = sum(array.size for file in left for array in file.values()) * 4 / 2**20
    made = demo("data.spatial_size=12").model_copy(update={"gan": config.gan})
    assert gan_cost.weights_mib(made) == pytest.approx(written, rel=0.2)  # and buffers, and classes are not these


def test_what_has_no_room_is_refused_with_the_mend(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    have(monkeypatch, disk_mib=2048, memory_mib=2048)
    require_room(Needs(2048, 2048), tmp_path / "not" / "there")
    with pytest.raises(UserError, match=r"cache: .* at least 3.0 GiB of disk, and 2.0 GiB are free.*clean.*--yes"):
        require_room(Needs(3072, 10), tmp_path / "cache")
    with pytest.raises(UserError, match=r"about 3.0 GiB of memory .* 2.0 GiB are free.*gan.accumulate.*--yes"):
        require_room(Needs(10, 3072), tmp_path / "cache")
    assert in_gib(50) == "50 MiB" and in_gib(256) == "0.2 GiB"


@pytest.mark.usefixtures("ready_children")
def test_a_run_trains_nothing_where_that_is_too_much(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changes = [token for change in TINY for token in ("--set", change)]
    command = ["run", str(DEMO), "--engine", "direct", "--out", str(tmp_path / "runs" / "r"), *changes]
    have(monkeypatch, memory_mib=100)
    assert launch(command) == 2 and "of memory for its largest process" in capsys.readouterr().err
    cache = tmp_path / "runs" / ".cache"
    assert not list(cache.glob("*ingest*"))  # what the configuration alone tells is told first

    have(monkeypatch, disk_mib=10)
    assert launch(command) == 2
    assert "of disk, and 10 MiB are free" in capsys.readouterr().err
    names = {path.name.partition("-")[0] for path in cache.iterdir() if not path.name.startswith((".", "ledger"))}
    assert names <= {"ingest", "split"}

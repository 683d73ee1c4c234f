"""What the flow is made of: a line of progress, keys of artifacts, the place of the cache."""

from __future__ import annotations

from pathlib import Path

import pytest

from flows.flow import artifact_key
from flows.run_directory import cache_of
from flows.running import describe_execution
from pipeline.core.cache import Execution
from pipeline.core.records import Record


def test_progress_line() -> None:
    record = Record(kind="split", figures={"train": 120, "loss": 0.123456, "note": {"a": 1}}, wall_s=12.34)
    line = describe_execution("split", Execution(Path(), record, cached=False))
    assert " ".join(line.split()) == "split 12.3 s train 120, loss 0.1235"
    assert "cached" in describe_execution("split", Execution(Path(), record, cached=True))


@pytest.mark.parametrize(
    ("name", "key"), [("nightly-2", "nightly-2-roc"), ("Große_Studie", "gro-e-studie-"), ("日本", "-roc")]
)
def test_keys_of_artifacts_are_those_that_prefect_takes(name: str, key: str) -> None:
    from prefect.client.schemas.actions import ArtifactCreate

    made = artifact_key(name, "roc")
    assert key in made and ArtifactCreate(key=made).key == made
    assert made != artifact_key(f"{name} ", "roc")


def test_the_cache_can_be_moved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RADAUG_CACHE", raising=False)
    assert cache_of(tmp_path / "runs" / "demo") == tmp_path / "runs" / ".cache"
    monkeypatch.setenv("RADAUG_CACHE", str(tmp_path / "elsewhere"))
    assert cache_of(tmp_path / "runs" / "demo") == tmp_path / "elsewhere"

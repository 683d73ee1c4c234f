"""One job at a time on a GPU, whatever run it is of; the GPUs of a process are those that it may see."""

from __future__ import annotations

import logging
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest

import flows
from flows.gpus import held, names_of


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


def test_numbers_count_the_gpus_that_a_process_may_see(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert names_of((0, 1)) == ("0", "1") and names_of(()) == ()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2, GPU-5f,7")
    assert names_of((0, 1)) == ("2", "GPU-5f") and names_of((2,)) == ("7",)


def test_a_job_waits_for_its_gpu_alone_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    entered, order = threading.Event(), []

    def other() -> None:
        with held(("1", "0")):
            order.append("other")

    with caplog.at_level(logging.INFO), held(("0",)):
        with held(("1",)):  # another one is free
            entered.set()
        waiting = threading.Thread(target=other)
        waiting.start()
        while "waits for GPU 0, on which another run computes" not in caplog.text:
            waiting.join(0.01)
        order.append("first")
    waiting.join()
    assert entered.is_set() and order == ["first", "other"]


def test_the_gpu_of_a_killed_process_is_free() -> None:
    code = (
        f"import tempfile, time; tempfile.tempdir = {tempfile.gettempdir()!r}; from flows.gpus import held\n"
        "with held(['3']): print('here', flush=True); time.sleep(600)"
    )
    root = str(Path(flows.__file__).parents[1])
    holder = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=root)
    assert holder.stdout is not None and holder.stdout.readline() == "here\n"
    holder.kill()
    holder.wait()
    holder.stdout.close()
    with held(("3",)):
        pass

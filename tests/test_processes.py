"""Work done in a fork beside the process that wants its result; a process that is asked to end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from pipeline.core.errors import ConfigError
from pipeline.core.processes import computed_beside


def test_work_is_done_beside_the_block_and_its_result_comes_back() -> None:
    began = time.monotonic()
    with computed_beside(lambda: (time.sleep(0.5), os.getpid())[1]) as outcome:
        time.sleep(0.5)
        assert outcome() != os.getpid()
    assert time.monotonic() - began < 0.95


def test_what_the_work_raises_is_raised_where_the_result_is_asked_for() -> None:
    def refused() -> None:
        raise ConfigError("compute.device: there is none")

    with computed_beside(refused) as outcome:
        pass
    with computed_beside(refused) as outcome, pytest.raises(ConfigError, match="there is none"):
        outcome()


def test_a_fork_that_dies_is_made_up_for_here() -> None:
    parent = os.getpid()

    def dies_elsewhere() -> int:
        if os.getpid() != parent:
            os._exit(1)
        return 7

    with computed_beside(dies_elsewhere) as outcome:
        assert outcome() == 7


def test_no_fork_outlives_its_block(tmp_path: Path) -> None:
    def endless() -> None:
        (tmp_path / "pid").write_text(str(os.getpid()))
        time.sleep(60)

    def left_by_an_error() -> None:
        with computed_beside(endless):
            while not (tmp_path / "pid").is_file() or not (tmp_path / "pid").read_text():
                time.sleep(0.01)
            raise KeyError

    with pytest.raises(KeyError):
        left_by_an_error()
    assert not psutil.pid_exists(int((tmp_path / "pid").read_text()))


@pytest.mark.parametrize(("when", "said"), [("before", "saved\n"), ("never", "whole\n")])
def test_sigterm_waits_until_the_block_has_saved_and_then_ends_the_process(when: str, said: str) -> None:
    script = f"""
import os, signal
from pipeline.core.stopping import sigterm_waits
with sigterm_waits() as must_end:
    if {when!r} == "before":
        os.kill(os.getpid(), signal.SIGTERM)
    print("saved" if must_end() else "whole", flush=True)
assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
"""
    ended = subprocess.run([sys.executable, "-c", script], check=False, capture_output=True, text=True)
    assert (ended.returncode, ended.stdout) == (-signal.SIGTERM if when == "before" else 0, said), ended.stderr

"""Work done in a fork beside the process that wants its result."""

from __future__ import annotations

import os
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

"""Signals that end a command line."""

from __future__ import annotations

import signal

import pytest

import flows.cli
from flows.obeying import ended_by_signals


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_ends_a_command_in_order(
    number: signal.Signals,
    code: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    request: pytest.FixtureRequest,
) -> None:
    """SIGHUP comes where a terminal is closed."""
    closed: list[int] = []

    def command(*_: object) -> None:
        with ended_by_signals():
            try:
                signal.raise_signal(number)
            finally:
                closed.append(number)

    mine = signal.signal(number, signal.SIG_DFL)  # whatever the tests run under, such as nohup
    request.addfinalizer(lambda: signal.signal(number, mine))
    before = signal.getsignal(number)
    monkeypatch.setattr(flows.cli, "obey", command)
    assert flows.cli.launch(["run", "study.yaml"]) == code and closed == [number]
    assert f"ended by {number.name}. Run the same command again" in capsys.readouterr().err
    assert signal.getsignal(number) is before


def test_a_command_that_hears_no_closed_terminal_goes_on() -> None:
    """`nohup radaug …`"""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with ended_by_signals():
            signal.raise_signal(signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)

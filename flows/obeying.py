"""One command line, obeyed: what is wrong with it is told in one line, and a reader that goes away is no fault."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from cyclopts import App, CycloptsError, MissingArgumentError

from pipeline.core.errors import UserError


class NobodyReads(BaseException):
    """Whoever read what is printed has gone."""


class Terminated(BaseException):
    """A signal came that ends a process: SIGTERM, or SIGHUP of a terminal that was closed.

    Args:
        number: of the signal.
    """

    def __init__(self, number: int = signal.SIGTERM) -> None:
        super().__init__()
        self.name, self.exit_code = signal.Signals(number).name, 128 + number


def obey(app: App, tokens: list[str]) -> None:
    """Call the command that `tokens` name.

    Raises:
        UserError: there is no such command, or what follows it does not fit.
        NobodyReads: as above.
    """
    try:
        app(tokens, exit_on_error=False, print_error=False)
        sys.stdout.flush()
    except CycloptsError as error:
        raise UserError(_said(app, error, tokens)) from error
    except BrokenPipeError:
        raise NobodyReads from None


def _said(app: App, error: CycloptsError, tokens: list[str]) -> str:
    """What is wrong with a command line, and where its help is."""
    command = next((token for token in tokens[:1] if f"{token}" in app), "")
    help_is = f"See `radaug {command} --help`.".replace("  ", " ")
    if isinstance(error, MissingArgumentError) and error.argument is not None:
        needed = error.argument.names[0]
        needed = needed if error.argument.index is None else needed.lstrip("-").upper()
        if needed == "CONFIG":
            example = f"`radaug {command} study.yaml`"
            return f"{command} needs a configuration, such as {example}; `radaug init FOLDER` writes a first one."
        return f"{command} needs {needed}. {help_is}"
    text = str(error)
    return f"{text}{'' if text[-1] in '.?!' else '.'} {help_is}"


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """Let SIGTERM and SIGHUP leave the block as an exception, so that children are ended and files closed. SIGHUP that
    is ignored (`nohup`) stays ignored."""

    def leave(number: int, frame: object) -> None:
        raise Terminated(number)

    heard = [one for one in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(one) is not signal.SIG_IGN]
    before = {one: signal.signal(one, leave) for one in heard}
    try:
        yield
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)

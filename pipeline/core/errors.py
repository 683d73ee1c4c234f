"""Every error that radaug raises on purpose.

A message says what is wrong, where, and what to do about it. It never carries a patient's name or id:
messages reach logs and reports that others may read.
"""

from __future__ import annotations

import errno


class RadaugError(Exception):
    """Base of all errors raised on purpose. `exit_code` is what the command line returns for it."""

    exit_code = 1


class UserError(RadaugError, ValueError):
    """The user's input is wrong and the user can mend it."""

    exit_code = 2


class ConfigError(UserError):
    """The experiment's configuration is wrong: the message names the key and shows what would be accepted."""


class DataError(UserError):
    """The images or the manifest are wrong as a whole: the message names the file or column and the mend."""


class UnreadableImage(DataError):
    """One image cannot be used. Ingest turns it into a row of the rejected list; `reason` is that row's text.

    Args:
        path: the file or folder, as the user would name it.
        reason: what is wrong with it, and the mend.
    """

    def __init__(self, path: object, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = str(path)
        self.reason = reason

    def __reduce__(self) -> tuple[type[UnreadableImage], tuple[str, str]]:
        """How it comes from another process."""
        return type(self), (self.path, self.reason)


class NonFiniteLoss(UserError):
    """A loss became NaN or infinite; training stopped before the optimiser moved."""


class Killed(RadaugError):
    """A process that did a part of the work ended before the work did."""


class RefusedError(RadaugError):
    """radaug refuses to go on, because the result could not be believed or must not be shared."""

    exit_code = 3


class LeakageError(RefusedError):
    """Something of a test patient would reach training, or of a validation patient the GAN."""


def is_out_of_memory(error: Exception) -> bool:
    """Python's own error, a GPU's, or that of torch's allocator on the CPU, which is of no type of its own."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    return isinstance(error, RuntimeError) and "allocate memory" in str(error)

"""Files that are whole or absent: atomic writes, digests, links."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from pipeline.core.errors import UserError

_RESERVED = frozenset(("con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(10))))
"""Names that Windows keeps for devices."""


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path`; move it into place when the block ends well, remove it otherwise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _unfinished(path)
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _unfinished(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}.partial")


_UNFINISHED = re.compile(r"\.(?P<name>.+)\.(?P<pid>\d+)\.partial")


def forget_unfinished(root: Path) -> None:
    """Remove from below `root` what killed processes were writing by `atomic_path` or `whole_folder`.

    What belongs to this process or to another one that is still there stays.
    """
    for path in sorted(root.rglob(".*.partial"), reverse=True):
        found = _UNFINISHED.fullmatch(path.name)
        if found is None or psutil.pid_exists(int(found["pid"])):
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path` in one move (UTF-8)."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


@contextmanager
def whole_folder(path: Path, mend: str = "Choose another --out.") -> Iterator[Path]:
    """Give a hidden new folder beside `path`; move it to `path`, where nothing is, when the block ends well, else
    remove it.

    Raises:
        UserError: the folder above `path` cannot be made or written; the message ends with `mend`.
    """
    make_folder(path.parent, mend)
    place = _unfinished(path)
    place.mkdir()
    try:
        yield place
        os.rename(place, path)
    finally:
        shutil.rmtree(place, ignore_errors=True)


def write_bytes(path: Path, content: bytes) -> None:
    """Write `content` to `path` in one move."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def write_json(path: Path, value: object) -> None:
    """Write `value` as indented JSON in one move. NaN is refused: it is not JSON."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def digest_text(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def digest_json(value: object) -> str:
    """Digest of a JSON value that does not depend on the order of keys."""
    return digest_text(json.dumps(value, sort_keys=True, separators=(",", ":"), default=str))


def digest_file(path: Path) -> str:
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def digest_tree(root: Path, *, skip: frozenset[str] = frozenset()) -> dict[str, tuple[int, str]]:
    """Size in bytes and sha256 of every file below `root`, by relative path, names in `skip` left out.

    Files that somebody is still writing do not count: they are not there yet.
    """
    files = sorted(path for path in root.rglob("*") if path.is_file() and not _is_unfinished(path, root))
    names = {path: path.relative_to(root).as_posix() for path in files}
    return {names[path]: (path.stat().st_size, digest_file(path)) for path in files if names[path] not in skip}


def _is_unfinished(path: Path, root: Path) -> bool:
    return any(_UNFINISHED.fullmatch(part) for part in path.relative_to(root).parts)


def link(target: Path, at: Path) -> None:
    """Make `at` a relative symbolic link to `target`, replacing a link that is there."""
    at.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(at) as temporary:
        temporary.symlink_to(os.path.relpath(target.resolve(), at.parent.resolve()))


def dangling_link(path: Path) -> Path | None:
    """The link, `path` itself or a folder above it, that leads to nothing; None where there is no such link."""
    return next((one for one in (path, *path.parents) if one.is_symlink() and not one.exists()), None)


def make_folder(path: Path, mend: str = "Choose another --out.") -> None:
    """Make `path` where it is not there, and check that files can be written into it.

    Raises:
        UserError: it cannot be made or written, whatever the reason (a file in its way, a name too long, no
            permission); the message ends with `mend`.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        reason = "a file is in its place" if os.path.isfile(path) else (error.strerror or "no reason given").lower()
        if isinstance(error, NotADirectoryError):
            reason = "a part of this path is a file"
        raise UserError(f"{_short(path)}: cannot be made or written ({reason}). {mend}") from error


def _short(path: Path) -> str:
    text = str(path)
    return text if len(text) <= 200 else f"{text[:200]}…"


def safe_name(text: str) -> str:
    """`text` as a part of a file name that every system takes: ASCII letters, digits, `.`, `_`, `-`; at most 60 signs.

    A text that must be changed gets eight digits of its digest at the end, so that two texts never share a name.
    """
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-. ")[:60]
    if name.partition(".")[0].lower() in _RESERVED:
        name = f"name-{name}"
    return name if name and name == text else f"{name or 'name'}-{digest_text(text)[:8]}"


def reserve(path: Path) -> None:
    """Take the disk space of a file that will be filled through a memory map.

    Where there is too little the error comes now: later, a full disk would end the process by SIGBUS, without a word.
    """
    if not hasattr(os, "posix_fallocate"):
        return
    with path.open("r+b") as handle:
        try:
            os.posix_fallocate(handle.fileno(), 0, path.stat().st_size)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):  # a filesystem that cannot
                raise


_FULL = re.compile(
    r"os error 28\b"  # safetensors
    r"|requested and \d+ written"  # numpy
    r"|inline_container\.cc.* unexpected pos|PytorchStreamWriter failed writing"  # torch
)
"""In the texts of errors by which libraries tell a full disk without the system's number."""


@contextmanager
def clear_disk_errors(where: Path) -> Iterator[None]:
    """Turn a full disk or a folder that may not be written into an error that says so."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        number = error.errno if isinstance(error, OSError) else None
        if number in (errno.ENOSPC, errno.EDQUOT) or _FULL.search(str(error)):
            raise UserError(
                f"{where}: the disk is full. Free some space and run again: finished stages are kept."
            ) from error
        if isinstance(error, OSError) and number in (errno.EACCES, errno.EROFS):
            raise UserError(f"{error.filename or where}: may not be written or read. Choose another --out.") from error
        raise

"""`radaug init`: a first configuration from what lies in a folder. It asks nothing and overwrites nothing."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import Any

from rich.console import Console

from pipeline.config.commented import commented_yaml
from pipeline.core.errors import UserError
from pipeline.core.files import make_folder, write_text
from pipeline.data.starting.guess import Guess, guess


def init(path: Path, out: Path, console: Console) -> None:
    """Write a configuration for what lies at `path` to `out`, and perhaps a table of the images beside it.

    Raises:
        UserError: one of these files is there already, or nothing can be made of what lies at `path`.
    """
    table = out.with_suffix(".csv")
    for taken in (out, table):
        if taken.exists() or taken.is_symlink():
            raise UserError(f"{taken}: is there already and is not overwritten. Choose another --out, or remove it.")
    if out.suffix.lower() not in (".yaml", ".yml"):
        raise UserError(f"--out {out}: give a name that ends with .yaml, such as study.yaml.")
    found = guess(path)
    make_folder(out.parent)
    if found.table is not None:
        write_text(table, found.table.to_csv(index=False, lineterminator="\n"))
    write_text(out, _text(found, path, out, table))
    _say(found, out, table, console)


def _text(found: Guess, path: Path, out: Path, table: Path) -> str:
    head = [
        f"Written by `radaug init` from {path.absolute()}: {found.found}.",
        "Each line says what it was guessed from; change what is wrong. Keys that are not here have their defaults.",
        *(f"CHECK: {doubt}" for doubt in found.doubts),
    ]
    lines = [(line.key, _beside(line.value, out, table), line.why) for line in found.lines]
    return commented_yaml(head, lines)


def _beside(value: Any, out: Path, table: Path) -> Any:
    """The source with its paths as seen from the configuration, where they lie below its folder."""
    if not isinstance(value, dict) or "kind" not in value or "path" not in value:
        return value
    folder = out.absolute().parent
    placed = dict(value)
    for key in ("path", "labels"):
        if placed.get(key) == "":
            placed[key] = table.name
        elif key in placed and Path(placed[key]).is_relative_to(folder) and Path(placed[key]) != folder:
            placed[key] = os.path.relpath(placed[key], folder)
    return placed


def _say(found: Guess, out: Path, table: Path, console: Console) -> None:
    console.print(f"Found {found.found}.", markup=False)
    for line in found.lines:
        value = {**line.value, "path": line.value["path"] or table.name} if line.key == "source" else line.value
        console.print(f"  {line.key}: {_short(value)}  ({line.why})", markup=False, soft_wrap=True)
    for doubt in found.doubts:
        console.print(f"CHECK: {doubt}", style="bold yellow", markup=False, soft_wrap=True)
    written = f"{out} and {table}" if found.table is not None else f"{out}"
    console.print(f"Written: {written}. Next: radaug validate {shlex.quote(str(out))}", markup=False, soft_wrap=True)


def _short(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_short(one)}" for key, one in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)

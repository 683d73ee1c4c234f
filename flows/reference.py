"""Every command, from the command line itself: `python -m flows.reference > docs/commands.md`."""

from __future__ import annotations

import re

from flows.cli import app

_HEAD = """# Every command

Made from the command line by `python -m flows.reference`; a test keeps it so. Exit codes: 0 finished, whatever the
verdicts; 2 input or configuration is wrong; 3 refused (leakage, release); 1 a fault of radaug's. `RADAUG_DATA` names
the folder that relative data paths start from, `RADAUG_CACHE` the cache of finished stages."""


def reference() -> str:
    """The whole page."""
    made = app.generate_docs(output_format="markdown", heading_level=1)
    commands = made[made.index("## radaug ") :]
    commands = re.sub(r"^(radaug \w+( \w+)?) -m \S+", r"\1", commands, flags=re.MULTILINE)  # as whom it was asked
    commands = re.sub(r"`([A-Z_]+), --\w+`", r"`\1`", commands)  # what is given by its place has no name to type
    return f"{_HEAD}\n\n{commands.strip()}\n"


if __name__ == "__main__":
    print(reference(), end="")

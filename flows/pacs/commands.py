"""`radaug fetch` and `radaug send`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from rich.console import Console

from flows.pacs.archive import OWN_TITLE
from pipeline.core.errors import UserError

Address = Annotated[str, Parameter(name="PACS", help="http://HOST:PORT/dicom-web, or dicom://TITLE@HOST:PORT.")]
OwnTitle = Annotated[str, Parameter(help="What radaug calls itself, for dicom://.")]


def fetch(
    address: Address,
    *,
    into: Annotated[Path, Parameter(help="A folder that a configuration reads: each study is whole or not there.")],
    where: Annotated[
        list[str],
        Parameter(negative="", help="A DICOM keyword and its value, such as StudyDate=20260101-; may be repeated."),
    ],
    own_title: OwnTitle = OWN_TITLE,
    move_port: Annotated[int | None, Parameter(help="Receive by C-MOVE on this port of ours, not by C-GET.")] = None,
) -> None:
    """Bring the CT and X-ray images of studies in PACS that are not here yet. Files come as they are, names and all."""
    from flows.pacs.archive import open_archive
    from flows.pacs.fetch import fetch_studies
    from flows.progress import progress_shown
    from pipeline.data.exchanged import read_filters

    filters = read_filters(_read_pairs(where))
    with progress_shown(Console(highlight=False)), open_archive(address, own_title, move_port) as archive:
        print(fetch_studies(archive, into, filters).sentence())


def send(
    pack: Annotated[Path, Parameter(name="PACK")],
    address: Address,
    *,
    own_title: OwnTitle = OWN_TITLE,
    register: Annotated[Path | None, Parameter(help="As of `radaug verify`.")] = None,
) -> None:
    """Store the DICOM images of a release pack in PACS, marked synthetic, and ask it for each of them afterwards.

    Exit code 3, and nothing is sent, where `radaug verify` would refuse the pack.
    """
    from flows.pacs.archive import open_archive
    from flows.pacs.send import send_pack

    with open_archive(address, own_title) as archive:
        print(f"{send_pack(archive, pack, register)} synthetic images are in the PACS: it was asked for each of them.")


def _read_pairs(where: list[str]) -> dict[str, str]:
    pairs = dict(one.partition("=")[::2] for one in where)
    if not all(name and value for name, value in pairs.items()):
        raise UserError("--where: write it as KEYWORD=VALUE, such as StudyDate=20260101- or ModalitiesInStudy=CT.")
    return pairs


COMMANDS = (fetch, send)

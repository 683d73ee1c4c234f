"""What a PACS is asked for, whatever protocol it speaks, and how an address names one."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol

from flows.pacs.access import PASSWORD, USER
from pipeline.core.errors import UserError

OWN_TITLE = "RADAUG"
_DICOM = re.compile(r"(?P<scheme>dicoms?)://(?:(?P<title>[^@/\s]{1,16})@)?(?P<host>[^@:/\s]+):(?P<port>\d{1,5})/?")
_LIBRARIES = {"dicomweb_client": "dicomweb-client", "pynetdicom": "pynetdicom"}


class Archive(Protocol):
    """A PACS. Everything is named by UIDs; a failure to reach it is a `UserError` that says what failed."""

    def studies(self, where: Mapping[str, str]) -> list[str]:
        """Studies that fit the DICOM keywords in `where`."""

    def series(self, study: str) -> dict[str, str]:
        """Series of a study, and their modality."""

    def instances(self, study: str, series: str) -> set[str]:
        """Instances of a series."""

    def fetch(self, study: str, series: str, folder: Path) -> None:
        """Write the instances of a series to `folder`, each as INSTANCE.dcm."""

    def store(self, files: Sequence[Path]) -> None:
        """Send DICOM files."""


@contextmanager
def open_archive(address: str, own_title: str = OWN_TITLE, move_port: int | None = None) -> Iterator[Archive]:
    """The PACS at `address`: `http(s)://HOST[:PORT]/PATH` is DICOMweb, `dicom://[TITLE@]HOST:PORT` is DICOM's own,
    `dicoms://…` the same over TLS.

    Args:
        own_title: what we call ourselves, in DICOM's own protocol.
        move_port: objects are asked for by C-MOVE to this port of ours, and not by C-GET.

    Raises:
        UserError: the address is none, holds a password, or the library for it is not installed.
    """
    if re.match(r"https?://[^/@]*@", address):
        raise UserError(
            f"the address holds a name or a password, which logs would show. Put them into {USER} and {PASSWORD}."
        )
    if re.match(r"https?://[^/\s]", address):
        _require("dicomweb_client")
        from flows.pacs.web import WebArchive

        yield WebArchive(address.rstrip("/"))
    elif found := _DICOM.fullmatch(address):
        _require("pynetdicom")
        from flows.pacs.dimse import Peer, open_dimse

        if found["scheme"] == "dicoms" and move_port is not None:
            raise UserError("--move-port: the receiver of C-MOVE has no TLS. Leave it out: dicoms:// uses C-GET.")
        peer = Peer(found["scheme"], found["title"] or "ANY-SCP", found["host"], int(found["port"]))
        with open_dimse(peer, own_title, move_port) as one:
            yield one
    else:
        raise UserError(
            f"{address}: is no address of a PACS. Give http://HOST:PORT/dicom-web, or dicom://TITLE@HOST:PORT."
        )


def _require(library: str) -> None:
    if find_spec(library) is None:
        raise UserError(f"{_LIBRARIES[library]} is not installed. Do `pip install 'radaug[pacs]'`.")

"""A PACS by DICOM's own protocol: C-FIND, C-GET or C-MOVE with a receiver of C-STORE, and C-STORE."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pynetdicom import AE, build_role, evt
from pynetdicom.sop_class import (
    StudyRootQueryRetrieveInformationModelFind,
    StudyRootQueryRetrieveInformationModelGet,
    StudyRootQueryRetrieveInformationModelMove,
)

from flows.pacs.access import AUTHORITY, CERTIFICATE, tls_context
from pipeline.core.errors import UserError
from pipeline.data.exchanged import STORED, Ids, checked_uid, identifier, ids_of, read_object

_SUCCESS, _PENDING, _SOME_FAILED = 0x0000, (0xFF00, 0xFF01), 0xB000
_NOT_OURS, _NO_ROOM = 0xA900, 0xA700
_PATIENCE_S = 120


class _Inbox:
    """Takes what is asked for, and nothing else, byte for byte."""

    def __init__(self) -> None:
        self.folder: Path | None = None
        self.wanted = ("", "")

    def take(self, event: Any) -> int:
        """The handler of C-STORE; gives its status."""
        try:
            ids: Ids = ids_of(event.dataset)
        except UserError:
            return _NOT_OURS
        if self.folder is None or (ids.study, ids.series) != self.wanted:
            return _NOT_OURS
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            (self.folder / f"{ids.instance}.dcm").write_bytes(event.encoded_dataset())
        except OSError:
            return _NO_ROOM
        return _SUCCESS


@dataclass(frozen=True)
class Peer:
    """Where a PACS is, and what it is called; `scheme` is dicom, or dicoms for TLS."""

    scheme: str
    title: str
    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.scheme}://{self.title}@{self.host}:{self.port}"


class DimseArchive:
    """An `Archive` that is `peer`."""

    def __init__(self, peer: Peer, own_title: str, inbox: _Inbox, *, moves: bool) -> None:
        self._peer, self._own, self._inbox, self._moves = peer, own_title, inbox, moves
        self._tls = (tls_context(), peer.host) if peer.scheme == "dicoms" else None
        self._asking: Any = None

    def close(self) -> None:
        """End the association that questions are asked over, which stays open between them."""
        if self._asking is not None and self._asking.is_established:
            self._asking.release()

    def studies(self, where: Mapping[str, str]) -> list[str]:
        found = self._find("STUDY", {"StudyInstanceUID": "", **where})
        return sorted({checked_uid(str(row.get("StudyInstanceUID", ""))) for row in found})

    def series(self, study: str) -> dict[str, str]:
        found = self._find("SERIES", {"StudyInstanceUID": study, "SeriesInstanceUID": "", "Modality": ""})
        return {checked_uid(str(row.get("SeriesInstanceUID", ""))): str(row.get("Modality", "")) for row in found}

    def instances(self, study: str, series: str) -> set[str]:
        keys = {"StudyInstanceUID": study, "SeriesInstanceUID": series, "SOPInstanceUID": ""}
        return {checked_uid(str(row.get("SOPInstanceUID", ""))) for row in self._find("IMAGE", keys)}

    def fetch(self, study: str, series: str, folder: Path) -> None:
        asked = identifier("SERIES", {"StudyInstanceUID": study, "SeriesInstanceUID": series})
        self._inbox.folder, self._inbox.wanted = folder, (study, series)
        try:
            if self._moves:
                with self._associated([(StudyRootQueryRetrieveInformationModelMove, None)]) as peer:
                    answers = peer.send_c_move(asked, self._own, StudyRootQueryRetrieveInformationModelMove)
                    self._ended(answers, "C-MOVE", f"Does it know {self._own} and its port?")
            else:
                with self._associated([(StudyRootQueryRetrieveInformationModelGet, None)], receives=True) as peer:
                    answers = peer.send_c_get(asked, StudyRootQueryRetrieveInformationModelGet)
                    self._ended(answers, "C-GET", "If it has no C-GET, give --move-port.")
        finally:
            self._inbox.folder = None

    def store(self, files: Sequence[Path]) -> None:
        objects = [read_object(path) for path in files]
        kinds = {(one.SOPClassUID, one.file_meta.TransferSyntaxUID) for one in objects}
        with self._associated(kinds) as peer:
            for one in objects:
                status = peer.send_c_store(one).get("Status")
                if status is None or status >> 12 in (0xA, 0xC) or status in (0x0122, 0x0124):
                    raise UserError(f"{self._peer}: did not take an image (status {_hex(status)}). Its log says why.")

    def _find(self, level: str, keys: Mapping[str, str]) -> list[Any]:
        model, rows = StudyRootQueryRetrieveInformationModelFind, []
        if self._asking is None or not self._asking.is_established:
            self._asking = self._associate([(model, None)])
        for status, row in self._asking.send_c_find(identifier(level, keys), model):
            code = status.get("Status")
            if code in _PENDING and row is not None:
                rows.append(row)
            elif code != _SUCCESS:
                raise UserError(f"{self._peer}: C-FIND ended with status {_hex(code)}. Its log says why.")
        return rows

    def _ended(self, answers: Iterator[tuple[Any, Any]], what: str, mend: str) -> None:
        """Wait for the last answer. That some failed is found by counting."""
        code = None
        for status, _ in answers:
            code = status.get("Status")
        if code not in (_SUCCESS, _SOME_FAILED):
            raise UserError(f"{self._peer}: {what} ended with status {_hex(code)}. {mend} Its log says why.")

    @contextmanager
    def _associated(self, contexts: Iterable[tuple[Any, Any]], *, receives: bool = False) -> Iterator[Any]:
        peer = self._associate(contexts, receives=receives)
        try:
            yield peer
        finally:
            if peer.is_established:
                peer.release()

    def _associate(self, contexts: Iterable[tuple[Any, Any]], *, receives: bool = False) -> Any:
        """An association for classes and their syntaxes (None = the usual ones); `receives` objects by C-GET too."""
        entity = _entity(self._own)
        for kind, syntax in (*contexts, *(STORED if receives else ())):
            entity.add_requested_context(kind, syntax)
        roles = [build_role(kind, scp_role=True) for kind in dict(STORED)] if receives else []
        handlers = [(evt.EVT_C_STORE, self._inbox.take)] if receives else []
        place, title = (self._peer.host, self._peer.port), self._peer.title
        peer = entity.associate(*place, ae_title=title, ext_neg=roles, evt_handlers=handlers, tls_args=self._tls)
        if not peer.is_established:
            why = "refused us" if peer.is_rejected else "cannot be reached"
            more = f" Is its certificate trusted ({AUTHORITY}), and does it trust ours ({CERTIFICATE})?"
            mend = f"Check address and titles; does it know {self._own}?{more if self._tls else ''}"
            raise UserError(f"{self._peer}: {why}. {mend}")
        return peer


@contextmanager
def open_dimse(peer: Peer, own_title: str, move_port: int | None) -> Iterator[DimseArchive]:
    """The PACS `peer`, and for C-MOVE a receiver on `move_port`, which takes what was asked for and closes at the end.

    Raises:
        UserError: the port cannot be had, or a certificate cannot be read.
    """
    inbox = _Inbox()
    with _receiving(own_title, move_port, inbox) if move_port is not None else nullcontext():
        archive = DimseArchive(peer, own_title, inbox, moves=move_port is not None)
        try:
            yield archive
        finally:
            archive.close()


@contextmanager
def _receiving(own_title: str, port: int, inbox: _Inbox) -> Iterator[None]:
    entity = _entity(own_title)
    entity.require_called_aet = True
    for kind, syntax in STORED:
        entity.add_supported_context(kind, syntax)
    try:
        receiver = entity.start_server(("", port), block=False, evt_handlers=[(evt.EVT_C_STORE, inbox.take)])
    except OSError as error:
        raise UserError(f"--move-port {port}: cannot be had ({error.strerror}). Choose another.") from error
    try:
        yield
    finally:
        receiver.shutdown()


def _entity(title: str) -> AE:
    entity = AE(ae_title=title)
    entity.acse_timeout = entity.connection_timeout = 15
    entity.dimse_timeout = entity.network_timeout = _PATIENCE_S
    return entity


def _hex(status: int | None) -> str:
    return "none" if status is None else f"0x{status:04X}"

"""A real Orthanc of the test's own, on free ports, with its DICOMweb plug-in."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from flows.server import free_port

PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
TITLE, OURS = "ORTHANC", "RADAUG"


@dataclass(frozen=True)
class Orthanc:
    """Where it is, and the port at which it thinks that we are."""

    http: int
    dicom: int
    our_port: int

    @property
    def web(self) -> str:
        return f"http://127.0.0.1:{self.http}/dicom-web"

    @property
    def dimse(self) -> str:
        return f"dicom://{TITLE}@127.0.0.1:{self.dicom}"

    def ask(self, path: str, data: bytes | None = None, method: str | None = None) -> object:
        """Orthanc's own interface, which is neither DICOMweb nor DICOM."""
        url = f"http://127.0.0.1:{self.http}{path}"
        with urllib.request.urlopen(urllib.request.Request(url, data=data, method=method), timeout=30) as answer:
            return json.loads(answer.read() or b"null")

    def upload(self, files: list[Path]) -> None:
        for path in files:
            self.ask("/instances", path.read_bytes())

    def empty(self) -> None:
        for study in self.ask("/studies"):  # type: ignore[attr-defined]
            self.ask(f"/studies/{study}", method="DELETE")


@contextmanager
def orthanc(folder: Path, *, forgetful: bool = False) -> Iterator[Orthanc]:
    """Started here; a forgetful one takes images and keeps none.

    The test skips where it is not installed (Debian's packages orthanc and orthanc-dicomweb).
    """
    if shutil.which("Orthanc") is None or not PLUGIN.exists():
        pytest.skip("no Orthanc with DICOMweb: apt-get install orthanc orthanc-dicomweb")
    pytest.importorskip("dicomweb_client")
    pytest.importorskip("pynetdicom")
    found = Orthanc(free_port(), free_port(), free_port())
    script = folder / "filter.lua"
    script.write_text("function ReceivedInstanceFilter(dicom, origin, info) return false end" if forgetful else "")
    (folder / "orthanc.json").write_text(
        json.dumps(
            {
                "Name": "test", "StorageDirectory": str(folder / "db"), "IndexDirectory": str(folder / "db"),
                "HttpPort": found.http, "DicomPort": found.dicom, "DicomAet": TITLE, "Plugins": [str(PLUGIN)],
                "RemoteAccessAllowed": False, "AuthenticationEnabled": False, "DicomCheckCalledAet": True,
                "DicomModalities": {"radaug": [OURS, "127.0.0.1", found.our_port]}, "StableAge": 1,
                "DicomAlwaysAllowGet": True, "LuaScripts": [str(script)], "DicomWeb": {"Enable": True},
            }
        )
    )  # fmt: skip
    log = (folder / "orthanc.log").open("w")
    server = subprocess.Popen(["Orthanc", str(folder / "orthanc.json")], stdout=log, stderr=subprocess.STDOUT)
    try:
        _wait(found, server)
        yield found
    finally:
        server.terminate()
        server.wait(30)
        log.close()


def _wait(found: Orthanc, server: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + 60
    while True:
        try:
            found.ask("/system")
            return
        except OSError:
            if server.poll() is not None or time.monotonic() > end:
                raise
            time.sleep(0.1)

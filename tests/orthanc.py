"""A real Orthanc of the test's own, on free ports, with its DICOMweb plug-in."""

from __future__ import annotations

import json
import shutil
import socket
import socketserver
import ssl
import subprocess
import threading
import time
import urllib.request
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from flows.server import free_port

PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
TITLE, OURS = "ORTHANC", "RADAUG"
USER, PASSWORD = "ward", "words-that-nobody-says"


@dataclass(frozen=True)
class Orthanc:
    """Where it is, and the port at which it thinks that we are; `certificate`, for both sides, where it speaks TLS and
    asks for a name and a password. The https of Debian's 1.10.1 crashes at the first request, so that is a proxy's, as
    Orthanc's own manual has it."""

    http: int
    dicom: int
    our_port: int
    certificate: Path | None = None

    @property
    def _root(self) -> str:
        return f"http{'s' if self.certificate else ''}://127.0.0.1:{self.http}"

    @property
    def web(self) -> str:
        return f"{self._root}/dicom-web"

    @property
    def dimse(self) -> str:
        return f"dicom{'s' if self.certificate else ''}://{TITLE}@127.0.0.1:{self.dicom}"

    def ask(self, path: str, data: bytes | None = None, method: str | None = None) -> object:
        """Orthanc's own interface, which is neither DICOMweb nor DICOM."""
        context = ssl.create_default_context(cafile=self.certificate) if self.certificate else None
        if context and self.certificate:
            context.load_cert_chain(self.certificate)
        known = {"Authorization": "Basic " + b64encode(f"{USER}:{PASSWORD}".encode()).decode()} if context else {}
        asked = urllib.request.Request(f"{self._root}{path}", data=data, method=method, headers=known)
        with urllib.request.urlopen(asked, timeout=30, context=context) as answer:
            return json.loads(answer.read() or b"null")

    def upload(self, files: list[Path]) -> None:
        for path in files:
            self.ask("/instances", path.read_bytes())

    def empty(self) -> None:
        for study in self.ask("/studies"):  # type: ignore[attr-defined]
            self.ask(f"/studies/{study}", method="DELETE")


@contextmanager
def orthanc(folder: Path, *, forgetful: bool = False, guarded: bool = False) -> Iterator[Orthanc]:
    """Started here; a forgetful one takes images and keeps none, a guarded one speaks TLS and asks who we are.

    The test skips where it is not installed (Debian's packages orthanc and orthanc-dicomweb).
    """
    if shutil.which("Orthanc") is None or not PLUGIN.exists():
        pytest.skip("no Orthanc with DICOMweb: apt-get install orthanc orthanc-dicomweb")
    pytest.importorskip("dicomweb_client")
    pytest.importorskip("pynetdicom")
    inner, pem = free_port(), _certificate(folder) if guarded else None
    found = Orthanc(free_port() if guarded else inner, free_port(), free_port(), pem)
    script = folder / "filter.lua"
    script.write_text("function ReceivedInstanceFilter(dicom, origin, info) return false end" if forgetful else "")
    guards = {
        "AuthenticationEnabled": True, "RegisteredUsers": {USER: PASSWORD},
        "DicomTlsEnabled": True, "DicomTlsCertificate": str(pem), "DicomTlsPrivateKey": str(pem),
        "DicomTlsTrustedCertificates": str(pem), "DicomTlsRemoteCertificateRequired": True,
    } if guarded else {"AuthenticationEnabled": False}  # fmt: skip
    (folder / "orthanc.json").write_text(
        json.dumps(
            {
                "Name": "test", "StorageDirectory": str(folder / "db"), "IndexDirectory": str(folder / "db"),
                "HttpPort": inner, "DicomPort": found.dicom, "DicomAet": TITLE, "Plugins": [str(PLUGIN)],
                "RemoteAccessAllowed": False, "DicomCheckCalledAet": True, **guards,
                "DicomModalities": {"radaug": [OURS, "127.0.0.1", found.our_port]}, "StableAge": 1,
                "DicomAlwaysAllowGet": True, "LuaScripts": [str(script)], "DicomWeb": {"Enable": True},
            }
        )
    )  # fmt: skip
    log = (folder / "orthanc.log").open("w")
    server = subprocess.Popen(["Orthanc", str(folder / "orthanc.json")], stdout=log, stderr=subprocess.STDOUT)
    try:
        with _tls_in_front(found.http, inner, found.certificate) if found.certificate else nullcontext():
            _wait(found, server)
            yield found
    finally:
        server.terminate()
        server.wait(30)
        log.close()


class _Proxy(socketserver.BaseRequestHandler):
    """Passes on what comes, each way."""

    context: ssl.SSLContext
    inner: int

    def handle(self) -> None:
        with (
            suppress(OSError),
            self.context.wrap_socket(self.request, server_side=True) as outer,
            socket.create_connection(("127.0.0.1", self.inner)) as inner,
        ):
            back = threading.Thread(target=_pass_on, args=(inner, outer))
            back.start()
            _pass_on(outer, inner)
            back.join()


def _pass_on(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    with suppress(OSError):
        target.shutdown(socket.SHUT_WR)


@contextmanager
def _tls_in_front(port: int, inner: int, certificate: Path) -> Iterator[None]:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=certificate)
    context.load_cert_chain(certificate)
    context.verify_mode = ssl.CERT_REQUIRED
    kind = type("Proxy", (_Proxy,), {"context": context, "inner": inner})
    with socketserver.ThreadingTCPServer(("127.0.0.1", port), kind) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.1,), daemon=True).start()
        try:
            yield
        finally:
            server.shutdown()


def _certificate(folder: Path) -> Path:
    """A key and its self-signed certificate for this machine, in one file."""
    if shutil.which("openssl") is None:
        pytest.skip("no openssl: apt-get install openssl")
    pem = folder / "own.pem"
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    make = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *names]
    subprocess.run([*make, "-keyout", str(pem), "-out", str(folder / "part.pem")], check=True, capture_output=True)
    pem.write_bytes(pem.read_bytes() + (folder / "part.pem").read_bytes())
    return pem


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

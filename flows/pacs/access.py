"""How a PACS lets us in: name, password, certificates. By environment variables alone, so that no file holds them."""

from __future__ import annotations

import os
import re
import ssl
from pathlib import Path

from pipeline.core.errors import UserError

USER, PASSWORD = "RADAUG_PACS_USER", "RADAUG_PACS_PASSWORD"
AUTHORITY, CERTIFICATE = "RADAUG_PACS_CA", "RADAUG_PACS_CERTIFICATE"
_OWN_MACHINE = re.compile(r"http://(localhost|127\.0\.0\.1|\[::1\])[:/]")


def name_and_password(address: str) -> tuple[str, str] | None:
    """Ours for the DICOMweb service at `address`; None where none are set.

    Raises:
        UserError: only one is set, or the password would go over the network unencrypted.
    """
    user, password = os.environ.get(USER, ""), os.environ.get(PASSWORD, "")
    if bool(user) != bool(password):
        raise UserError(f"{USER} and {PASSWORD}: one of them is not set. Set both, or none.")
    if user and address.startswith("http://") and not _OWN_MACHINE.match(address):
        raise UserError(f"{address}: the password of {PASSWORD} would go unencrypted. Use the https:// address.")
    return (user, password) if user else None


def certificate_file(name: str) -> str | None:
    """The file that the variable `name` names; None where it is not set.

    Raises:
        UserError: it is not there.
    """
    found = os.environ.get(name)
    if found and not Path(found).is_file():
        raise UserError(f"{name}: {found} is not there.")
    return found or None


def tls_context() -> ssl.SSLContext:
    """What dicoms:// is spoken over: the PACS must show a certificate that we trust, and may ask for ours.

    Raises:
        UserError: a certificate cannot be read.
    """
    authority, certificate = certificate_file(AUTHORITY), certificate_file(CERTIFICATE)
    try:
        context = ssl.create_default_context(cafile=authority)
        if certificate:
            context.load_cert_chain(certificate)
    except OSError as error:  # and ssl's own, which are such
        raise UserError(f"{AUTHORITY} or {CERTIFICATE}: is no PEM file of what it should be.") from error
    return context

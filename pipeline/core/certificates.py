"""`certificate.json`, what weights promise by differential privacy: it holds for those weights alone that it names."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.core.errors import DataError, RefusedError
from pipeline.core.files import read_json
from pipeline.core.layout import CERTIFICATE


def read_certificate(directory: Path, generator: str) -> dict[str, Any] | None:
    """The certificate in `directory`; None = there is none.

    Args:
        generator: digest of the generator's weights.

    Raises:
        DataError: it is damaged.
        RefusedError: it is of other weights.
    """
    if not (directory / CERTIFICATE).is_file():
        return None
    try:
        certificate: dict[str, Any] = read_json(directory / CERTIFICATE)
        same = certifies(certificate, generator)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise DataError(f"{CERTIFICATE}: is damaged; train this generator again.") from error
    if not same:
        raise RefusedError(f"{CERTIFICATE}: is of other weights than the generator's; train this generator again.")
    return certificate


def certifies(certificate: Mapping[str, Any], generator: str) -> bool:
    """Whether the certificate is of the generator whose weights have this digest."""
    return bool(certificate["weights"]["generator"] == generator)

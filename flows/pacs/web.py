"""A PACS by DICOMweb: QIDO-RS, WADO-RS and STOW-RS."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import requests
from dicomweb_client import DICOMwebClient

from flows.pacs.access import AUTHORITY, CERTIFICATE, PASSWORD, USER, certificate_file, name_and_password
from pipeline.core.errors import UserError
from pipeline.data.exchanged import checked_uid, ids_of, json_value, read_object, write_object

_STUDY, _SERIES, _INSTANCE, _MODALITY, _FAILED = "0020000D", "0020000E", "00080018", "00080060", "FailedSOPSequence"
_AS_STORED = (("application/dicom", "*"),)
_ATTEMPTS, _PATIENCE_S = 3, (10, 120)
_AT_ONCE = 20


class WebArchive:
    """An `Archive` at the address of its DICOMweb service."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._client = DICOMwebClient(address, session=_session(address), timeout=_PATIENCE_S)
        self._client.set_http_retry_params(max_attempts=_ATTEMPTS, wait_exponential_multiplier=200)

    def studies(self, where: Mapping[str, str]) -> list[str]:
        with self._told("was asked for studies"):
            rows = self._client.search_for_studies(search_filters=dict(where), get_remaining=True)
        return sorted({checked_uid(json_value(row, _STUDY)) for row in rows})

    def series(self, study: str) -> dict[str, str]:
        with self._told("was asked for the series of a study"):
            rows = self._client.search_for_series(study, get_remaining=True)
        return {checked_uid(json_value(row, _SERIES)): json_value(row, _MODALITY) for row in rows}

    def instances(self, study: str, series: str) -> set[str]:
        with self._told("was asked for the instances of a series"):
            rows = self._client.search_for_instances(study, series, get_remaining=True)
        return {checked_uid(json_value(row, _INSTANCE)) for row in rows}

    def fetch(self, study: str, series: str, folder: Path) -> None:
        with self._told("was sending a series"):
            for dataset in self._client.iter_series(study, series, media_types=_AS_STORED):
                write_object(dataset, folder / f"{ids_of(dataset).instance}.dcm")

    def store(self, files: Sequence[Path]) -> None:
        for start in range(0, len(files), _AT_ONCE):
            with self._told("was sent a pack"):
                answer = self._client.store_instances([read_object(path) for path in files[start : start + _AT_ONCE]])
            if failed := answer.get(_FAILED):
                raise UserError(f"{self._address}: did not take {len(failed)} images. Its own log says why.")

    @contextmanager
    def _told(self, when: str) -> Iterator[None]:
        """Tell failures of the network without what a server answered, which may name a patient."""
        try:
            yield
        except requests.HTTPError as error:
            status = error.response.status_code if error.response is not None else 0
            mend = _MENDS.get(status, "Its own log says why.")
            raise UserError(f"{self._address}: answered {status} when it {when}. {mend}") from error
        except requests.exceptions.SSLError as error:
            raise UserError(
                f"{self._address}: its certificate is not trusted, or it does not take ours, when it {when}. Name the "
                f"file of its authority in {AUTHORITY}, and of our certificate in {CERTIFICATE}."
            ) from error
        except (requests.RequestException, OSError) as error:
            raise UserError(
                f"{self._address}: cannot be reached or broke off ({type(error).__name__}) when it {when}. Check "
                "address and network."
            ) from error


class _Session(requests.Session):
    """Trusts whom RADAUG_PACS_CA names, where requests would put REQUESTS_CA_BUNDLE before it."""

    def merge_environment_settings(self, url: Any, proxies: Any, stream: Any, verify: Any, cert: Any) -> Any:
        own = self.verify if verify is None and isinstance(self.verify, str) else verify
        return super().merge_environment_settings(url, proxies, stream, own, cert)


def _session(address: str) -> requests.Session:
    """With our name and password, else with those of ~/.netrc where it has some."""
    session = _Session()
    session.auth = name_and_password(address)
    session.verify = certificate_file(AUTHORITY) or True
    session.cert = certificate_file(CERTIFICATE)
    return session


_MENDS: dict[int, str] = {
    401: f"Put name and password into {USER} and {PASSWORD}, or into ~/.netrc.",
    403: "Ask for the right to do so.",
    404: "Check its path.",
}

"""`radaug send`: a released pack to a PACS, and then the question whether it is there."""

from __future__ import annotations

from pathlib import Path

from flows.pacs.archive import Archive
from flows.withdrawn import refuse_stale_pack
from pipeline.core.errors import UserError
from pipeline.data.exchanged import ids_of, read_object
from pipeline.release.material import IMAGES_FOLDER
from pipeline.release.verify import PAYLOAD, verify_pack


def send_pack(archive: Archive, pack: Path, register: Path | None = None) -> int:
    """Store the DICOM images of the release pack `pack`, and ask the PACS for each of them; gives their number.

    Raises:
        RefusedError: the pack was changed, or a patient behind it has withdrawn. Nothing is sent then.
        UserError: it is no pack, holds no DICOM images, or the PACS cannot be reached, does not take them, or does not
            have what it said it took.
    """
    refuse_stale_pack(verify_pack(pack).digest, register)
    files = sorted((pack / PAYLOAD / IMAGES_FOLDER / "dicom").rglob("*.dcm"))
    if not files:
        raise UserError(f"{pack}: holds no DICOM images. Make the pack by `radaug release --format dicom`.")
    sent: dict[tuple[str, str], set[str]] = {}
    for path in files:
        ids = ids_of(read_object(path))
        sent.setdefault((ids.study, ids.series), set()).add(ids.instance)
    archive.store(files)
    missing = sum(len(instances - archive.instances(*series)) for series, instances in sent.items())
    if missing:
        raise UserError(
            f"{pack}: the PACS answered that it took {len(files)} images, and {missing} of them are not there. Look "
            "into its log, and send again: images that are there are not doubled."
        )
    return len(files)

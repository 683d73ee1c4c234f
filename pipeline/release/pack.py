"""Write a pack: images, card, Croissant, a bag around them; scanned, checked, and only then moved to its place."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from datetime import date
from pathlib import Path

import bagit

from pipeline.core.certificates import read_certificate
from pipeline.core.errors import RefusedError, UserError
from pipeline.core.files import clear_disk_errors, digest_file, read_json, whole_folder, write_json
from pipeline.core.layout import CERTIFICATE, MODEL
from pipeline.release.card import card_of, write_card, write_readme
from pipeline.release.croissant import write_croissant
from pipeline.release.features import write_features
from pipeline.release.images import write_images
from pipeline.release.leaks import find_leaks
from pipeline.release.material import CARD, GENERATOR_FOLDER, WEIGHTS, Material, Wanted
from pipeline.release.verify import PAYLOAD, Verified, first_few, verify_pack


def write_pack(
    material: Material, out: Path, wanted: Wanted, before: Callable[[Verified], None] = lambda made: None
) -> Verified:
    """Make the pack `out`, whole or not at all.

    Args:
        before: is told of the finished pack before it is moved into its place; what it raises leaves no pack.

    Raises:
        RefusedError: something of the source is in it; nothing is left of it then.
        UserError: there is something at `out`.
    """
    require_free(out)
    wanted = replace(wanted, today=wanted.today or date.today().isoformat())
    with clear_disk_errors(out), whole_folder(out) as place:
        _fill(place, material, wanted)
        information = {"External-Description": "Synthetic medical images. No patient is behind any of them.",
                       "Card-SHA256": digest_file(place / CARD)}  # fmt: skip
        bagit.make_bag(str(place), information, checksums=["sha256"])
        leaks = find_leaks(place, material.secrets)
        if leaks:
            raise RefusedError(
                "the pack would hold something of the source, and was not written:\n"
                + first_few([str(one).removeprefix(f"{PAYLOAD}/") for one in leaks])
            )
        made = verify_pack(place)
        before(made)
        return made


def require_free(out: Path) -> None:
    """Refuse a place where something is.

    Raises:
        UserError: as above.
    """
    if out.is_symlink() or out.exists():
        raise UserError(f"{out}: is there already, and a pack is never written over. Choose another --out.")


def _fill(root: Path, material: Material, wanted: Wanted) -> None:
    """Write all but the bag's own files; the card, which has everybody's digests, comes last."""
    table = write_images(root, material, wanted.formats)
    if material.features is not None:
        write_features(root, material.features)
    certificate = read_certificate(material.gan, material.description["weights"]["generator"])
    if certificate is not None:
        write_json(root / CERTIFICATE, certificate)
    if wanted.generator:
        _copy_generator(root / GENERATOR_FOLDER, material)
    card = card_of(material, wanted, table, certificate)
    write_croissant(root, card, wanted.formats)
    write_readme(root, card)
    write_card(root, card)


def _copy_generator(folder: Path, material: Material) -> None:
    """The generator alone: neither the discriminator, nor its digest, nor what training left beside them."""
    folder.mkdir()
    shutil.copyfile(material.gan / WEIGHTS, folder / WEIGHTS)
    described = read_json(material.gan / MODEL)
    write_json(folder / MODEL, described | {"weights": {"generator": described["weights"]["generator"]}})

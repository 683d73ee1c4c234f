"""Is a pack whole and unchanged? BagIt's digests, and then whether its parts belong together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bagit
import pandas as pd

from pipeline.core.certificates import certifies
from pipeline.core.errors import RefusedError, UserError
from pipeline.core.files import digest_file, read_json
from pipeline.core.layout import CERTIFICATE, MODEL
from pipeline.data.batches.dataset import read_table
from pipeline.data.file_parts import dicom_marks
from pipeline.release.card import as_markdown
from pipeline.release.features import FEATURES, num_features
from pipeline.release.material import (
    CARD,
    CROISSANT,
    FORMAT,
    GENERATOR_FOLDER,
    IMAGES_FOLDER,
    PROVENANCE,
    README,
    WEIGHTS,
)

PAYLOAD = "data"
_BAG = ("bagit.txt", "bag-info.txt", "manifest-sha256.txt", "tagmanifest-sha256.txt")
_FORMATS = ("png", "nifti", "dicom")
_SHOWN = 5


@dataclass(frozen=True)
class Verified:
    """A pack that is whole.

    Attributes:
        digest: of the bag's list of digests; it changes with any byte of the pack. Whoever gives the pack away tells
            it by another way, so that a pack that was made anew by somebody else is seen.
        left_out: near copies that were left out of it, by its card.
    """

    images: int
    digest: str
    left_out: int = 0


def verify_pack(pack: Path) -> Verified:
    """Check the pack `pack`.

    Raises:
        UserError: there is no pack.
        RefusedError: it was changed; the message says where.
    """
    if not (pack / _BAG[0]).is_file() or not (pack / PAYLOAD).is_dir():
        raise UserError(
            f"{pack}: is no release pack: it holds no {_BAG[0]} and {PAYLOAD}. Give what `radaug release` wrote."
        )
    wrong = [*_strangers(pack), *_bag_errors(pack)]
    if not wrong:
        try:
            wrong = [*_inconsistencies(pack / PAYLOAD, pack)]
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            wrong = [f"a part of it cannot be read ({type(error).__name__})"]
    if wrong:
        raise RefusedError(f"{pack}: was changed since it was made:\n" + first_few(wrong))
    images = len(read_table(pack / PAYLOAD / PROVENANCE))
    copies = read_json(pack / PAYLOAD / CARD)["audit"].get("near_copies", {})  # older packs left none out
    return Verified(images, digest_file(pack / _BAG[-1]), copies.get("left_out", 0))


def first_few(lines: Sequence[str]) -> str:
    """Lines of a refusal, and how many more there are."""
    more = [f"… and {len(lines) - _SHOWN} more"] if len(lines) > _SHOWN else []
    return "\n".join([*lines[:_SHOWN], *more])


def _strangers(pack: Path) -> Iterator[str]:
    """Links, files that lack, and files that are neither the bag's own nor in its lists: BagIt lets some pass."""
    listed = {name for name, _ in _listed(pack) if name.startswith(f"{PAYLOAD}/")} | set(_BAG)
    there = {path.relative_to(pack).as_posix(): path for path in sorted(pack.rglob("*"))}
    yield from (f"{name}: is a link" for name, path in there.items() if path.is_symlink())
    yield from (f"{name}: does not belong to the pack" for name, path in there.items()
                if path.is_file() and name not in listed)  # fmt: skip
    yield from (f"{name}: is missing" for name in sorted(listed) if not (pack / name).is_file())


def _listed(pack: Path) -> Iterator[tuple[str, str]]:
    """Names and digests in the bag's lists."""
    for path in (pack / name for name in _BAG[2:]):
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else []
        for digest, *name in (line.split(maxsplit=1) for line in lines if line.strip()):
            yield "".join(name).strip(), digest


def _bag_errors(pack: Path) -> list[str]:
    """What BagIt finds, with the names of the files that have other bytes."""
    try:
        bagit.Bag(str(pack)).validate(processes=1)
    except bagit.BagError as error:
        there = [(name, digest) for name, digest in _listed(pack) if (pack / name).is_file()]
        return [f"{name}: was changed" for name, digest in there if digest_file(pack / name) != digest] or [str(error)]
    return []


def _inconsistencies(data: Path, pack: Path) -> Iterator[str]:
    """Parts that are not of one pack, though somebody made the bag's digests anew."""
    card: dict[str, Any] = read_json(data / CARD)
    if card.get("format") != FORMAT:
        yield f"{CARD}: is not of a release pack"
        return
    if bagit.Bag(str(pack)).info.get("Card-SHA256") != digest_file(data / CARD):
        yield f"{CARD}: is not the one that the bag was made with"
    there = {path.relative_to(data).as_posix() for path in data.rglob("*") if path.is_file()} - {CARD}
    for name in sorted(there ^ set(card["digests"])):
        yield f"{name}: {'is not in the card' if name in there else 'is in the card and not there'}"
    for name in sorted(there & set(card["digests"])):
        if digest_file(data / name) != card["digests"][name]:
            yield f"{name}: is not the file of this card"
    if card["audit"]["decision"] != "release":
        yield f"{CARD}: says that the pack was not released"
    if (data / README).read_text(encoding="utf-8") != as_markdown(card):
        yield f"{README}: does not say what {CARD} says"
    table = read_table(data / PROVENANCE)
    yield from _wrong_images(data, card, table, there)
    yield from _wrong_generator(data, card, table, there)
    certificate = read_json(data / CERTIFICATE) if CERTIFICATE in there else None
    if certificate != card["differential_privacy"]:
        yield f"{CERTIFICATE}: is not the one of this card"
    if certificate is not None and not certifies(certificate, card["generator"]["weights"]):
        yield f"{CERTIFICATE}: is of other weights than the card's"


def _wrong_images(data: Path, card: dict[str, Any], table: pd.DataFrame, there: set[str]) -> Iterator[str]:
    formats = [name for name in _FORMATS if name in table]
    if len(table) != card["images"]["number"] or sorted(formats) != sorted(card["images"]["formats"]):
        yield f"{PROVENANCE}: has other images than the card"
    named: set[str] = set()
    for place in (cell for name in formats for cell in table[name]):
        own = {place} if place in there else {name for name in there if name.startswith(f"{place}/")}
        if not own:
            yield f"{place}: is in {PROVENANCE} and not there"
        named |= own
    known = {CROISSANT, README, PROVENANCE, CERTIFICATE, FEATURES}
    known |= {f"{GENERATOR_FOLDER}/{name}" for name in (WEIGHTS, MODEL)}
    for name in sorted(there - named - known):
        yield f"{name}: has no row in {PROVENANCE}"
    for name in sorted(one for one in named if one.endswith(".dcm")):
        yield from (f"{name}: {why}" for why in dicom_marks(data / name))
    if (FEATURES in there) != (card["images"]["features"] is not None):
        yield f"{CARD}: is wrong about {FEATURES}"
    elif FEATURES in there and num_features(data) != len(table):
        yield f"{FEATURES}: has other images than {PROVENANCE}"
    if not all(name.startswith(f"{IMAGES_FOLDER}/") for name in named):
        yield f"{PROVENANCE}: names files that are no images"


def _wrong_generator(data: Path, card: dict[str, Any], table: pd.DataFrame, there: set[str]) -> Iterator[str]:
    weights = card["generator"]["weights"]
    if set(table["weights_digest"]) != {weights}:
        yield f"{PROVENANCE}: its images are of other weights than the card's"
    shared = f"{GENERATOR_FOLDER}/{WEIGHTS}" in there
    if shared != card["generator"]["in_the_pack"]:
        yield f"{CARD}: is wrong about the generator"
    if shared:
        if digest_file(data / GENERATOR_FOLDER / WEIGHTS) != weights:
            yield f"{GENERATOR_FOLDER}/{WEIGHTS}: are not the weights that made the images"
        if read_json(data / GENERATOR_FOLDER / MODEL)["weights"] != {"generator": weights}:
            yield f"{GENERATOR_FOLDER}/{MODEL}: is of other weights, or of more nets than the generator"

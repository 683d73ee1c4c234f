"""The data card: card.json for programs, README.md for people, made from one dictionary."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd

from pipeline.core.files import digest_tree, write_json, write_text
from pipeline.release.assessment import ASSESSMENT_NOTE, INTENDED_USE, LIMITS, assessment
from pipeline.release.features import FEATURES
from pipeline.release.material import CARD, FORMAT, README, Material, Wanted

_MANNERS = {
    "png": "8-bit grey; the window is spread over 0 to 255",
    "nifti": "values as they are, in the unit above",
    "dicom": "CT Image Storage in HU, Digital X-Ray - For Presentation, or Secondary Capture; marked as synthetic",
}


def card_of(
    material: Material, wanted: Wanted, table: pd.DataFrame, certificate: Mapping[str, Any] | None
) -> dict[str, Any]:
    """All that the card says but the digests of the files."""
    described, scaling = material.description, material.synthetic.scaling
    evidence = material.decision["evidence"]
    return {
        "format": FORMAT,
        "title": f"Synthetic images: {', '.join(described['classes'])}",
        "synthetic": True,
        "made": wanted.today,
        "made_with": f"radaug {version('radaug')}",
        "license": material.license or "not stated: ask whoever gave you this pack",
        "images": {
            "number": len(table),
            "by_class": {str(name): int(number) for name, number in table["label"].value_counts(sort=False).items()},
            "size": list(material.synthetic.images.shape[2:]),
            "spacing_mm": list(material.spacing),
            "spacing_known": material.spacing_known,
            "unit": scaling.unit,
            "window": list(scaling.window),
            "formats": {one: _MANNERS[one] for one in wanted.formats},
            "features": None if material.features is None else
            {"encoder": material.features.encoder, "length": material.features.values.shape[1], "file": FEATURES},
        },
        "made_from": dict(material.cohort),
        "generator": {
            "family": described["gan"]["family"], "fold": described["fold"], "gan_seed": described["gan_seed"],
            "weights": described["weights"]["generator"], "in_the_pack": wanted.generator,
        },
        "intended_use": list(INTENDED_USE),
        "limits": [*LIMITS, *material.limits],
        "audit": {"decision": material.decision["decision"], "reasons": list(material.decision["reasons"]),
                  "near_copies": dict(material.near_copies), "evidence": evidence},
        "differential_privacy": None if certificate is None else dict(certificate),
        "anonymity_assessment": {
            "note": ASSESSMENT_NOTE,
            **assessment(evidence, material.near_copies, material.cohort, generator=wanted.generator,
                         certified=certificate is not None),
        },
        "leak_scan": material.secrets.counts(),
    }  # fmt: skip


def write_readme(root: Path, card: Mapping[str, Any]) -> None:
    write_text(root / README, as_markdown(card))


def write_card(root: Path, card: Mapping[str, Any]) -> None:
    """Write card.json with the digests of all other files below `root`: it comes last."""
    digests = {name: digest for name, (_, digest) in digest_tree(root, skip=frozenset((CARD,))).items()}
    write_json(root / CARD, dict(card) | {"digests": digests})


def as_markdown(card: Mapping[str, Any]) -> str:
    """The card as a page."""
    images, made_from, audit = card["images"], card["made_from"], card["audit"]
    spacing = " x ".join(f"{mm:g}" for mm in images["spacing_mm"])
    known = "" if images["spacing_known"] else " (the source does not state it: one pixel was taken as 1 mm)"
    generator = card["generator"]
    lines = [
        f"# {card['title']}",
        "",
        "**Every image is synthetic: no patient is behind it. For research only; nothing here is for diagnosis.**",
        "",
        f"{images['number']} images, made by {card['made_with']} on {card['made']}. Licence: {card['license']}.",
        "",
        _table(("class", "images"), images["by_class"].items()),
        f"Grid {' x '.join(map(str, images['size']))}, {spacing} mm a voxel{known}; unit {images['unit']}, values from "
        f"{images['window'][0]:g} to {images['window'][1]:g}.",
        "",
        *([_table(("format", "how values are held"), images["formats"].items())] if images["formats"] else []),
        *_feature_lines(images),
        "## What they were made from",
        "",
        f"A generator of the family {generator['family']} that learned from {made_from['train_images']} images of "
        f"{made_from['train_patients']} patients. {made_from['unseen_patients']} more patients, whom it never saw, "
        "served the audit. No real image is in this pack.",
        "",
        f"The generator (weights sha256 `{generator['weights']}`) is {'' if generator['in_the_pack'] else 'not '}in "
        "the pack. provenance.csv has each image's seed, class and truncation.",
        "",
        "## Intended use", "", *(f"- {one}" for one in card["intended_use"]), "",
        "## Limits", "", *(f"- {one}" for one in card["limits"]), "",
        "## Audit",
        "",
        f"Decision of the gate: **{audit['decision']}**.",
        "",
        *(f"- {one}" for one in audit["reasons"]),
        "",
        *_certificate_lines(card["differential_privacy"]),
        "## Anonymity assessment", "", card["anonymity_assessment"]["note"], "",
    ]  # fmt: skip
    for heading, said in card["anonymity_assessment"].items():
        if heading != "note":
            lines += [f"### {heading.capitalize()}", "", said, ""]
    lines += [
        "## Check",
        "",
        "`radaug verify PACK`, or any BagIt tool, tells whether a file was changed, lost or added.",
        "",
    ]
    return "\n".join(lines)


def _feature_lines(images: Mapping[str, Any]) -> list[str]:
    features = images["features"]
    if features is None:
        return []
    without = "" if images["formats"] else " The images themselves are not in the pack."
    return [
        f"{features['file']}: {features['length']} features of each image by {features['encoder']}, frozen; row i is "
        f"the image of row i of provenance.csv.{without}",
        "",
    ]


def _certificate_lines(certificate: Mapping[str, Any] | None) -> list[str]:
    if certificate is None:
        return []
    plain = [(name, value) for name, value in certificate.items() if isinstance(value, str | int | float)]
    lists = [(name, value) for name, value in certificate.items() if isinstance(value, list)]
    lines = ["## Differential privacy", "", "From certificate.json:", "", _table(("field", "value"), plain)]
    for name, values in lists:
        lines += [f"{name.replace('_', ' ').capitalize()}:", "", *(f"- {value}" for value in values), ""]
    return lines


def _table(header: tuple[str, str], rows: Any) -> str:
    lines = [f"| {header[0]} | {header[1]} |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows)]
    return "\n".join(lines) + "\n"

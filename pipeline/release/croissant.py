"""croissant.json: the pack as machines that look for data sets read it (Croissant 1.0 with its RAI vocabulary 1.0)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.core.files import digest_file, write_json
from pipeline.data.synthetic_files import FileFormat
from pipeline.release.features import FEATURES
from pipeline.release.images import FACTS
from pipeline.release.material import CROISSANT, IMAGES_FOLDER, PROVENANCE

_ENCODINGS = {
    "png": ("image/png", "*.png"),
    "nifti": ("application/x-nifti", "*.nii.gz"),
    "dicom": ("application/dicom", "*.dcm"),
}
_CONTEXT = {
    "@language": "en", "@vocab": "https://schema.org/", "citeAs": "cr:citeAs", "column": "cr:column",
    "conformsTo": "dct:conformsTo", "cr": "http://mlcommons.org/croissant/",
    "data": {"@id": "cr:data", "@type": "@json"}, "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/", "equivalentProperty": "cr:equivalentProperty",
    "examples": {"@id": "cr:examples", "@type": "@json"}, "extract": "cr:extract", "field": "cr:field",
    "fileObject": "cr:fileObject", "fileProperty": "cr:fileProperty", "fileSet": "cr:fileSet", "format": "cr:format",
    "includes": "cr:includes", "isLiveDataset": "cr:isLiveDataset", "jsonPath": "cr:jsonPath", "key": "cr:key",
    "md5": "cr:md5", "parentField": "cr:parentField", "path": "cr:path",
    "rai": "http://mlcommons.org/croissant/RAI/", "recordSet": "cr:recordSet", "references": "cr:references",
    "regex": "cr:regex", "repeated": "cr:repeated", "replace": "cr:replace", "samplingRate": "cr:samplingRate",
    "sc": "https://schema.org/", "separator": "cr:separator", "source": "cr:source", "subField": "cr:subField",
    "transform": "cr:transform",
}  # fmt: skip
"""The standard's own, which readers compare with theirs."""


def write_croissant(root: Path, card: Mapping[str, Any], formats: Sequence[FileFormat]) -> None:
    """Describe provenance.csv as a table of images, and the files of each format."""
    columns = [*FACTS, *formats]
    write_json(
        root / CROISSANT,
        {
            "@context": _CONTEXT,
            "@type": "sc:Dataset",
            "conformsTo": ["http://mlcommons.org/croissant/1.0", "http://mlcommons.org/croissant/RAI/1.0"],
            "name": card["title"],
            "description": f"{card['images']['number']} synthetic medical images, {card['made_with']}. No patient is "
            "behind any of them. For research only.",
            "version": "1.0.0",
            "datePublished": card["made"],
            "license": card["license"],
            "citeAs": f"{card['title']}. {card['made_with']}, weights sha256 {card['generator']['weights']}.",
            **_responsible(card),
            "distribution": [*_files(root), *(_file_set(one) for one in formats)],
            "recordSet": [
                {
                    "@type": "cr:RecordSet", "@id": "images", "name": "images", "key": {"@id": "images/image_id"},
                    "field": [_field(name) for name in columns],
                }
            ],
        },
    )  # fmt: skip


def _responsible(card: Mapping[str, Any]) -> dict[str, Any]:
    made_from, assessed = card["made_from"], card["anonymity_assessment"]
    return {
        "rai:dataCollection": f"Drawn from a generator of the family {card['generator']['family']} that learned from "
        f"{made_from['train_images']} images of {made_from['train_patients']} patients.",
        "rai:dataCollectionType": ["Others"],
        "rai:dataPreprocessingProtocol": [f"Grid {card['images']['size']}, window {card['images']['window']}."],
        "rai:dataAnnotationProtocol": "The label is the class that the generator was asked for; nobody read them.",
        "rai:dataUseCases": card["intended_use"],
        "rai:dataLimitations": card["limits"],
        "rai:dataBiases": ["Biases of the source are learned, and rare looks may be lost."],
        "rai:personalSensitiveInformation": [f"{name}: {said}" for name, said in assessed.items()],
        "rai:dataSocialImpact": "Methods can be tried without patients' images. It is no evidence about patients.",
        "rai:dataReleaseMaintenancePlan": "A pack is never changed; a new one is made.",
    }


def _files(root: Path) -> list[dict[str, Any]]:
    encodings = {PROVENANCE: "text/csv", FEATURES: "application/octet-stream"}
    return [
        {
            "@type": "cr:FileObject", "@id": name.partition(".")[0], "name": name, "contentUrl": name,
            "encodingFormat": encoding, "sha256": digest_file(root / name),
        }
        for name, encoding in encodings.items()
        if (root / name).is_file()
    ]  # fmt: skip


def _file_set(file_format: FileFormat) -> dict[str, Any]:
    encoding, pattern = _ENCODINGS[file_format]
    return {
        "@type": "cr:FileSet", "@id": f"{file_format}-files", "name": f"{file_format} files",
        "encodingFormat": encoding, "includes": f"{IMAGES_FOLDER}/{file_format}/**/{pattern}",
    }  # fmt: skip


def _field(column: str) -> dict[str, Any]:
    return {
        "@type": "cr:Field", "@id": f"images/{column}", "name": column, "dataType": "sc:Text",
        "source": {"fileObject": {"@id": "provenance"}, "extract": {"column": column}},
    }  # fmt: skip

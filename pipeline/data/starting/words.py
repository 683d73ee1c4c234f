"""What names of folders, files, columns and labels say: lists of words that people use, and small decisions on them."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Iterable

from pipeline.data.cohort.manifest import IMAGE_ENDINGS
from pipeline.data.cohort.sides import SPLIT_NAMES

MOST_CLASSES = 20
SPLIT_OF = {alias: split for split, aliases in SPLIT_NAMES.items() for alias in aliases}
_WITHOUT = re.compile(
    r"(^|[^a-z])(normals?|healthy|controls?|negatives?|neg|none|absent|without|unaffected|no|non|not|false|cn|nofinding"
    r"|gesund\w*|unauffallig\w*|ohne|kein\w*|kontrolle?n?|sain\w*|temoins?|sans|normal[aeio]s?|sani?|sana|sanos?|sanas?|sin"
    r"|controllo|controles?|senza|sem|saudavel|saudaveis|negativ\w*)([^a-z]|$)"
    r"|(^|[^a-z0-9.])0([^a-z0-9.]|$)"
)
"""How the side without the disease is called, in the languages of several countries' hospitals, without accents:
`normal`, `no_finding`, `non-covid`, `0`, `gesund`, `sain`."""
_MILD = re.compile(r"benign|gutartig")
_GRAVE = re.compile(r"malign|cancer|carcinom|karzinom|bosartig|tumou?r|metasta")
_CLASS = re.compile(
    r"normal|health|control|benign|malign|cancer|carcinom|tumou?r|lesion|covid|pneumon|tuberc|^tb$|positiv|negativ"
    r"|^(pos|neg)$|^no[_ -]|^non|disease|patholog|fractur|nodul|effusion|cyst|metasta|ha?emang|bleed|ha?emorr|stroke"
    r"|opacit|o?edema|cardiomeg|emphys|fibros|thorax|^mass|infect|viral|bacteri|finding|contrast|grade|stage|class|^(ad|mci|cn)$"
    r"|hyperplas|adenom|sick|^ill|yes$|^no$|true|false|^[01]$|gesund|krank|unauffallig|entzund|befund|kontroll|malad|sain"
    r"|enferm|^sano|temoin|bosartig|gutartig"
)
_SITE = re.compile(
    r"site|hospital|cent(re|er)|clinic|scanner|vendor|instit|manufact|siemens|philips|toshiba|canon|^ge($|[^a-z])"
)
_PLAIN = re.compile(r"^(series|study|slice|batch|part|image|img|fold|set|data|dicom|png|raw|visit|ses|scan|ct|cxr)")
"""Folders with numbers in their names that are not patients."""
_MASKS = frozenset([
    "mask", "masks", "seg", "segs", "segmentation", "segmentations", "gt", "groundtruth", "roi", "rois", "annotation",
    "annotations", "contour", "contours", "labelmap", "labelmaps", "labelstr", "labelsts",
])  # fmt: skip
_LABEL = (
    "label", "labels", "class", "classes", "diagnosis", "dx", "target", "category", "findinglabels", "finding",
    "findings", "pathology", "outcome", "group", "disease", "condition", "status", "result", "groundtruth", "y",
    "malignancy", "type", "diagnose", "befund", "klasse", "diagnostic", "diagnostico", "diagnosi", "clase", "classe",
    "resultado", "risultato", "resultat", "gruppe", "groupe", "grupo", "gruppo",
)  # fmt: skip
"""Names of label columns without signs and capitals, the likeliest first."""
_PATIENT = frozenset([
    "patientid", "patient", "subjectid", "subject", "participantid", "participant", "pid", "personid", "person",
    "caseid", "case", "mrn", "patid", "pat", "patientnumber", "patientno", "patientname", "subj", "patientnr", "patnr",
    "patientennr", "patientennummer", "patientenid", "fallnr", "fallnummer", "fall", "proband", "probandenid",
    "idpatient", "nopatient", "paciente", "idpaciente", "pacienteid", "paziente", "idpaziente", "pazienteid",
])  # fmt: skip
_SPLIT = frozenset(["split", "set", "subset", "partition", "fold", "phase", "suggestedsplit", "usage", "mode"])
_NO_LABEL = re.compile(
    r"sex|gender|age|view|position|manufact|model|scanner|site|hospital|kernel|modality|spacing|thick|width|height|date|"
    r"laterality|orientation|follow|race|ethnic|vendor|protocol|body|slice|index|number|^alter$|geschlecht|datum|gerat"
    r"|herstell|^sexe$|^sexo$|^sesso$|^edad$|^idade$|^eta$|fecha|fabric|schicht|nummer|ansicht|aufnahme"
)


def bare(name: str) -> str:
    """Lower case, letters and digits only: `Patient ID` and `patient_id` are one, and so are `Geräte` and `gerate`."""
    return re.sub(r"[^a-z0-9]+", "", _plain(name))


def _plain(name: str) -> str:
    """Lower case without accents."""
    return "".join(sign for sign in unicodedata.normalize("NFKD", name).casefold() if not unicodedata.combining(sign))


def stem(name: str) -> str:
    """A file name without an image's ending."""
    ending = next((end for end in IMAGE_ENDINGS if name.lower().endswith(end)), "")
    return name[: len(name) - len(ending)]


def says_mask(name: str) -> bool:
    """Whether a file's or folder's name says that it holds a mask: `x_mask`, `seg-3`, `masks`."""
    return any(part in _MASKS for part in re.split(r"[^a-z]+", name.lower()))


def without_mask_words(name: str) -> str:
    """What a mask's stem shares with its image's: `benign (1)_mask_1` becomes `benign (1)`."""
    return re.split(r"[_\-. ]*(?:" + "|".join(sorted(_MASKS, key=len, reverse=True)) + r")(?![a-z])", name.lower())[0]


def says_site(name: str) -> bool:
    return bool(_SITE.search(name.lower()))


def says_class(name: str) -> bool:
    return bool(_CLASS.search(_plain(name)))


def looks_like_ids(names: Collection[str]) -> bool:
    """Whether names of folders are those of patients: several, most with digits, and not `series1`, `batch_02`."""
    fitting = [name for name in names if re.search(r"\d", name) and not _PLAIN.match(name.lower())]
    return len(names) >= 3 and len(fitting) >= 0.6 * len(names) and not any(map(says_site, names))


def are_splits(names: Iterable[str]) -> bool:
    return all(name.lower() in SPLIT_OF for name in names)


def is_without(name: str) -> bool:
    """Whether a class's name says that the disease is not there."""
    return bool(_WITHOUT.search(_plain(name).replace("_", " ")))


def disease_side(classes: Collection[str]) -> tuple[list[str], list[str], str]:
    """The side without the disease, the other, and why; the reason is empty where nothing says it."""
    names = sorted(classes)
    negative = [name for name in names if is_without(name)]
    if any(_GRAVE.search(_plain(name)) for name in names):
        negative += [name for name in names if _MILD.search(_plain(name)) and name not in negative]
    if negative and len(negative) < len(names):
        positive = [name for name in names if name not in negative]
        return negative, positive, f"{', '.join(negative)} is called like the side without the disease"
    grave = [name for name in names if _GRAVE.search(_plain(name))]
    if grave and len(grave) < len(names):
        rest = [name for name in names if name not in grave]
        return rest, grave, f"{', '.join(grave)} is called like the graver side"
    return names[:-1], names[-1:], ""


def label_rank(column: str) -> int | None:
    """How likely a column of this name holds the label (0 = most); None where its name says something else."""
    name = bare(column)
    if name in _LABEL:
        return _LABEL.index(name)
    if _NO_LABEL.search(name) or name in _PATIENT | _SPLIT:
        return None
    near = any(word in name for word in _LABEL if len(word) > 4)
    return len(_LABEL) + (0 if near else 1)


def is_named_label(rank: int) -> bool:
    """Whether a `label_rank` is that of a column whose name says so."""
    return rank <= len(_LABEL)


def says_patient(column: str) -> bool:
    return bare(column) in _PATIENT


def says_split(column: str) -> bool:
    return bare(column) in _SPLIT

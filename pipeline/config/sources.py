"""Where images come from: the kinds of `data.source`, and sites with a source each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field

from pipeline.config.section import Section


class PhantomSource(Section):
    """Liver-lesion CT phantoms made by radaug itself: nothing to download, nothing learned holds for patients.

    Attributes:
        cysts, metastases, haemangiomas: lesions of each class, one a patient.
        seed: of the simulation; another one is another cohort.
    """

    kind: Literal["phantom"]
    cysts: int = Field(53, ge=2)
    metastases: int = Field(64, ge=2)
    haemangiomas: int = Field(65, ge=2)
    seed: int = 0


class Columns(Section):
    """Names of the user's columns for what radaug needs; empty = not there. Other columns are kept as they are.

    Attributes:
        path: of the image file.
        label: the class; an empty cell is an unlabelled image.
        patient_id: "" = the table has none: DICOM headers tell, else each image counts as a patient.
        series_id: of the DICOM series that a row means, where a folder holds several.
        mask: of a file that is above 0 inside the lesion.
    """

    path: str = "path"
    label: str = "label"
    patient_id: str = "patient_id"
    split: str = "split"
    """Taken where it is there; it decides only with `data.split.kind: column`."""
    series_id: str = ""
    mask: str = ""
    point: tuple[str, ...] = ()
    """Two or three columns with a lesion's place in mm, in the DICOM patient system (LPS), as in LUNA16."""


class CsvSource(Section):
    """A table with one row an image file (DICOM, NIfTI, PNG, JPEG, npy); paths are relative to the table's folder.

    Attributes:
        path: of the table; relative to RADAUG_DATA or to the configuration's folder.
        columns: what the table's columns are called.
    """

    kind: Literal["csv"]
    path: str
    columns: Columns = Columns()
    unit_of_values: Literal["HU", "none"] | None = None
    """Of files that cannot state a unit (NIfTI, npy): null = a column `modality` tells, else it is guessed."""


class FoldersSource(Section):
    """A folder with one folder of images a class.

    Attributes:
        path: of the folder of class folders.
    """

    kind: Literal["folders"]
    path: str
    patient_pattern: str = ""
    """Regular expression on the file name; its first group is the patient id. Empty = no patient ids."""
    unit_of_values: Literal["HU", "none"] | None = None
    """Of files that cannot state a unit (NIfTI, npy): null = a column `modality` tells, else it is guessed."""


class DicomSource(Section):
    """A tree of DICOM files and a label table keyed by file, series or patient.

    Attributes:
        path: of the tree.
        labels: of the label table.
        unit: what an image is: a file, or a whole series (in 3D).
        key: what the table's rows name.
        columns: what the table's columns are called.
    """

    kind: Literal["dicom"]
    path: str
    labels: str
    unit: Literal["file", "series"] = "file"
    key: Literal["file", "series", "patient"] = "file"
    columns: Columns = Columns()


class NpzSource(Section):
    """A MedMNIST file: `{train,val,test}_images` and `_labels`, 2D or 3D. Label i is the i-th of `data.classes`.

    Attributes:
        path: of the npz file.
    """

    kind: Literal["npz"]
    path: str
    patients: Mapping[str, str] = Field(default_factory=dict)
    """Splits that are known to come from one patient, and that patient's id; images of other splits have none."""
    unit_of_values: Literal["HU", "none"] | None = None
    """What the arrays hold; null = grey levels without a unit."""


Source = Annotated[
    PhantomSource | CsvSource | FoldersSource | DicomSource | NpzSource,
    Field(discriminator="kind"),
]


class ExternalConfig(Section):
    """Images of another site, tested and never learnt from. They are prepared exactly as those of `data.source`.

    Attributes:
        labels: the site's label -> one of `data.classes`, or "" to leave its images out; empty = the names are the
            same. Label i of an npz file is the i-th of these names.
        source: where its images come from; keys as of `data.source`.
    """

    source: Source
    labels: Mapping[str, str] = Field(default_factory=dict)


class SiteConfig(ExternalConfig):
    """One of several sites that train and are tested together. All are prepared alike.

    Attributes:
        unlabelled: an archive: its training and validation images are seen without labels (but for those that
            `data.correlation` asks for by number), and its labelled test images are what arms are judged on.
    """

    unlabelled: bool = False

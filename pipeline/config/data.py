"""`data:` — where images come from, how they are split and how they are prepared."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from pipeline.config.by_name import or_nearest
from pipeline.config.section import Section
from pipeline.config.sites import SITE_COLUMN, check_correlation, check_labels, check_site_names
from pipeline.config.sources import (
    Columns,
    CsvSource,
    DicomSource,
    ExternalConfig,
    FoldersSource,
    NpzSource,
    PhantomSource,
    SiteConfig,
    Source,
)

__all__ = [
    "Columns", "CropConfig", "CsvSource", "DataConfig", "DicomSource", "ExternalConfig", "FoldersSource", "NpzSource",
    "PhantomSource", "Positive", "SiteConfig", "Source", "SplitConfig",
]  # fmt: skip

Fraction = Annotated[float, Field(gt=0, lt=1)]
Positive = Annotated[float, Field(gt=0)]
PerClass = Annotated[int, Field(ge=2)]


class SplitConfig(Section):
    """How patients are divided. `column` = the manifest's own split; val is cut from train if it has none.

    Attributes:
        draws: with `data.train_per_class`: so many labelled training sets that share no patient, tested on the same
            patients; each is a fold.
        kind: holdout = one split by patient; kfold = every patient is tested once; column = the source's own split.
        val, test: share of the patients, about; with kfold only `val` counts.
        folds: of kfold.
    """

    kind: Literal["holdout", "kfold", "column"] = "holdout"
    val: Fraction = 0.2
    test: Fraction = 0.3
    folds: int = Field(3, ge=2)
    draws: int = Field(1, ge=1)

    @model_validator(mode="after")
    def _something_is_left_to_train_on(self) -> Self:
        if self.kind == "holdout" and self.val + self.test >= 1:
            raise ValueError(f"val ({self.val}) and test ({self.test}) leave nothing to train on")
        if self.kind == "kfold" and self.draws > 1:
            raise ValueError("draws are for one test set: use kind holdout or column, or leave draws at 1")
        return self

    @property
    def num_folds(self) -> int:
        return self.folds if self.kind == "kfold" else self.draws


class CropConfig(Section):
    """A cube (square) of `size_mm` around a lesion's mask or point; the part outside the image is the lowest value.

    Attributes:
        around: the lesion's mask, its point (`source.columns.point`) or the image's centre.
        size_mm: side of the cube or square, in mm.
    """

    around: Literal["mask", "point", "centre"]
    size_mm: Positive


class DataConfig(Section):
    """Everything that decides which arrays the networks see.

    Attributes:
        window: [low, high] in the image's unit (HU for CT), clipped and mapped to [-1, 1]; "image" = each image's
            own 0.5 to 99.5 percentile; null = [0, 255] for 8-bit images, [-1000, 1000] HU for CT, else "image".
        spacing: mm per voxel to resample to before cropping; null = as stored (in-plane) .
        fit: "pad" keeps the aspect and pads with the lowest value; "stretch" does not keep it.
        train_per_class: a low-data setting: training is cut to as many images a class, and val to at most as many; a
            mapping such as {normal: 200, pneumonia: 20} makes an imbalanced one.
        surplus: what becomes of the other training images: `unused`, or `unlabelled`, a pool whose labels are hidden.
        external: a second site, only ever a test site.
        duplicates: "refuse" stops on a duplicate across splits; "drop" removes the training copy and lists it.
        max_rejected: more unusable images than this fraction stop the run.
        settle_seconds: files that changed less than so many seconds ago, and the rest of their studies, wait for a
            later run; 0 = everything is read at once.
        patient_register: a file in which patients keep their split for ever, whoever arrives later; beside the
            configuration unless absolute, and made by the first run. null = every run draws all patients anew.
        max_withdrawn: with `patient_register`: more patients than this fraction gone from the source stop the run.
        source: where images come from, told apart by `kind`.
        spatial_dims: 2 for images, 3 for volumes.
        spatial_size: voxels a side of every prepared image, at least 8: one number, or one a side.
        classes: all labels, two at least; their order is that of the labels of an npz file.
        positive: the disease side of sensitivity: some of `classes`, not all.
        split: how patients are divided into train, val and test.
        crop: a part around a lesion instead of the whole image; null = the whole.
        site: a column of the manifest that says where an image comes from, such as `hospital` or `manufacturer`: arms
            are then also judged across sites (docs/sites.md). Every labelled image needs a value; "" = one site, or
            with `sources` the column `site`.
        site_names: the values of that column, such as [GE, SIEMENS], for `gan.by_site`: a generator that is asked by
            site must know them beforehand. Every labelled image has one of them. Left out with `sources` and
            `correlation`, which name the sites already.
        sources: in place of `source`: several sites by name, such as {children: {source: …}, adults: {source: …}}.
            Image ids and patient ids begin with the site's name, so patients of two sites are never one.
        correlation: with sites, a low-data setting by cells: training images of every site and class by number, such
            as {children: {normal: 10, pneumonia: 190}, adults: {normal: 190, pneumonia: 10}}; val is cut to these
            proportions, and the test set stays whole.
    """

    source: Source | None = None
    sources: Mapping[str, SiteConfig] = Field(default_factory=dict)
    spatial_dims: Literal[2, 3] = 2
    spatial_size: int | tuple[int, ...] = 32
    classes: tuple[str, ...]
    positive: tuple[str, ...]
    split: SplitConfig = SplitConfig()
    train_per_class: PerClass | Mapping[str, PerClass] | None = None
    surplus: Literal["unused", "unlabelled"] = "unused"
    external: ExternalConfig | None = None
    duplicates: Literal["refuse", "drop"] = "refuse"
    max_rejected: float = Field(0.05, ge=0, le=1)
    settle_seconds: float = Field(0, ge=0)
    patient_register: str | None = Field(None, min_length=1)
    max_withdrawn: float = Field(0.1, ge=0, le=1)
    window: tuple[float, float] | Literal["image"] | None = None
    spacing: Positive | tuple[Positive, ...] | None = None
    crop: CropConfig | None = None
    fit: Literal["pad", "stretch"] = "pad"
    site: str = ""
    site_names: tuple[str, ...] = ()
    correlation: Mapping[str, Mapping[str, Annotated[int, Field(ge=0)]]] | None = None

    @field_validator("classes", "positive")
    @classmethod
    def _names_are_composed(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        """In Unicode's composed form, as the labels of tables and folders are."""
        return tuple(unicodedata.normalize("NFC", name) for name in names)

    @field_validator("window")
    @classmethod
    def _window_ascends(cls, window: object) -> object:
        if isinstance(window, tuple) and window[0] >= window[1]:
            raise ValueError(f"window must be [low, high] with low < high, not {list(window)}")
        return window

    @model_validator(mode="after")
    def _classes_fit_together(self) -> Self:
        if len(self.classes) < 2 or len(set(self.classes)) != len(self.classes):
            raise ValueError("classes needs at least two different names, such as [normal, pneumonia]")
        unknown = [name for name in self.positive if name not in self.classes]
        if not self.positive or unknown or len(set(self.positive)) == len(self.classes):
            near = "".join(or_nearest(name, self.classes) for name in unknown[:1])
            raise ValueError(
                f"positive must name some, but not all, of {list(self.classes)}; it is {list(self.positive)}{near}"
            )
        if isinstance(self.spatial_size, tuple) and len(self.spatial_size) != self.spatial_dims:
            raise ValueError(f"spatial_size needs one number, or {self.spatial_dims} of them")
        if min(self.shape) < 8:
            raise ValueError(f"spatial_size must be at least 8; it is {self.spatial_size}")
        return self

    @model_validator(mode="after")
    def _low_data_settings_fit_together(self) -> Self:
        wanted = self.train_per_class
        if isinstance(wanted, Mapping) and set(wanted) != set(self.classes):
            raise ValueError(f"train_per_class must name each of {list(self.classes)} once; it names {list(wanted)}")
        if wanted is None and self.correlation is None and (self.split.draws > 1 or self.surplus == "unlabelled"):
            what = "split.draws" if self.split.draws > 1 else "surplus"
            raise ValueError(
                f"{what} is about what train_per_class (or correlation) takes and leaves: set train_per_class too"
            )
        return self

    @model_validator(mode="after")
    def _sites_are_named_once(self) -> Self:
        if not self.site_names:
            return self
        if self.sources or self.correlation:
            raise ValueError("sources and correlation name the sites already: leave site_names out")
        if not self.site:
            raise ValueError("site_names are the values of the column site: name that column too")
        if len(set(self.site_names)) != len(self.site_names) or len(self.site_names) < 2:
            raise ValueError("site_names needs at least two different names, such as [GE, SIEMENS]")
        return self

    @model_validator(mode="after")
    def _sites_fit_together(self) -> Self:
        if (self.source is None) == (not self.sources):
            raise ValueError("source names where images come from, and sources names several sites: give one of them")
        if len(self.sources) == 1:
            raise ValueError("sources needs two sites at least; for one use source")
        if self.sources and all(site.unlabelled for site in self.sources.values()):
            raise ValueError("sources: every site is unlabelled, so nothing says what the classes are; label one")
        check_site_names(self.sources)
        sites = {f"sources.{name}": site for name, site in self.sources.items()}
        for where, site in (sites | ({"external": self.external} if self.external else {})).items():
            check_labels(site.labels, self.classes, where)
        if self.correlation is None:
            return self
        if self.train_per_class is not None:
            raise ValueError("correlation and train_per_class both say how many images train: give one of them")
        if not self.site_column:
            raise ValueError("correlation is about cells of site and class: name the column of the site in site")
        own = self.site_column == SITE_COLUMN
        check_correlation(self.correlation, self.classes, self.sources if own else ())
        return self

    @property
    def site_column(self) -> str:
        """The manifest's column of the site; "" = there is none."""
        return self.site or (SITE_COLUMN if self.sources else "")

    @property
    def named_sites(self) -> tuple[str, ...]:
        """The sites whose names the configuration has."""
        return tuple(self.correlation or self.sources) or self.site_names

    @property
    def unlabelled_sites(self) -> tuple[str, ...]:
        """The sites whose training images are seen without labels."""
        return tuple(name for name, site in self.sources.items() if site.unlabelled)

    @property
    def every_source(self) -> dict[str, Source]:
        """Where all images come from, the external site's too, by configuration key."""
        found = {f"data.sources.{name}.source": site.source for name, site in self.sources.items()}
        if self.source is not None:
            found["data.source"] = self.source
        if self.external is not None:
            found["data.external.source"] = self.external.source
        return found

    @property
    def simulated(self) -> bool:
        """Whether an image that trains is a phantom."""
        own = [self.source, *(site.source for site in self.sources.values())]
        return any(isinstance(one, PhantomSource) for one in own)

    @property
    def kind_words(self) -> str:
        """What kind of source it is, in words: `csv`, or `children (npz), adults (csv)`."""
        if self.source is not None:
            return self.source.kind
        return ", ".join(f"{name} ({site.source.kind})" for name, site in self.sources.items())

    @property
    def per_class(self) -> dict[str, int] | None:
        """Training images of each class in a low-data setting, else None."""
        if self.train_per_class is None or isinstance(self.train_per_class, Mapping):
            return None if self.train_per_class is None else dict(self.train_per_class)
        return dict.fromkeys(self.classes, self.train_per_class)

    @property
    def shape(self) -> tuple[int, ...]:
        """`*spatial` of every prepared image."""
        size = self.spatial_size
        return size if isinstance(size, tuple) else (size,) * self.spatial_dims

    @property
    def negative(self) -> tuple[str, ...]:
        """Classes that are not on the disease side."""
        return tuple(name for name in self.classes if name not in self.positive)

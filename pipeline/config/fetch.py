"""What a schedule fetches from a PACS before each run."""

from __future__ import annotations

import re
from typing import Self

from pydantic import Field, field_validator, model_validator

from pipeline.config.section import Section


class FetchConfig(Section):
    """A PACS whose new studies are brought before each run of `radaug schedule`, as by `radaug fetch`.

    Attributes:
        pacs: its address, as `radaug fetch` takes it; "" = nothing is fetched. Name, password and certificates are
            environment variables (`docs/pacs.md`), never part of a configuration.
        where: DICOM keywords of studies and their values, such as `StudyDate` and `20260101-`. Studies go to the folder
            of `data.source`, whose kind must be dicom.
        own_title: what radaug calls itself, for dicom:// and dicoms://.
        move_port: receive by C-MOVE on this port of ours, not by C-GET.
    """

    pacs: str = ""
    where: dict[str, str] = Field(default_factory=dict)
    own_title: str = Field("RADAUG", min_length=1, max_length=16)
    move_port: int | None = Field(None, ge=1, le=65535)

    @field_validator("pacs")
    @classmethod
    def _is_an_address_without_a_password(cls, pacs: str) -> str:
        if re.match(r"https?://[^/@]*@", pacs):
            raise ValueError("holds a name or a password; use RADAUG_PACS_USER and RADAUG_PACS_PASSWORD")
        if pacs and not re.fullmatch(r"(https?|dicoms?)://\S+", pacs):
            raise ValueError("is no address of a PACS, such as https://pacs/dicom-web or dicom://TITLE@HOST:PORT")
        return pacs

    @model_validator(mode="after")
    def _asks_for_something(self) -> Self:
        if self.pacs and not self.where:
            raise ValueError("where: name at least one DICOM keyword, such as {StudyDate: 20260101-}")
        return self

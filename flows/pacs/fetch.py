"""`radaug fetch`: studies from a PACS into a folder, each one whole or not at all."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from flows.pacs.archive import Archive, open_archive
from pipeline.config.experiment import Experiment
from pipeline.config.loading import data_root
from pipeline.core.errors import UserError
from pipeline.core.files import clear_disk_errors, forget_unfinished, make_folder, whole_folder
from pipeline.data.exchanged import is_wanted, read_filters

logger = logging.getLogger(__name__)
_LOCK, _ASIDE = ".fetch.lock", ".replaced-"
_PATIENCE_S = 1800.0
"""For another schedule that fetches into the same folder."""
Found = dict[str, set[str]]
"""Instances of each series that radaug can use."""


@dataclass
class Fetched:
    """What became of the studies that the query found.

    Attributes:
        new, grown: studies that were brought; `grown` ones had been here with fewer images.
        there: studies that were here, whole.
        incomplete: studies left for the next time, as what came is not what the PACS says it has, or it still grows.
        without: studies without an image that radaug can use.
        gone: studies in the folder that the query does not find.
        images: that were brought.
    """

    new: int = 0
    grown: int = 0
    there: int = 0
    incomplete: int = 0
    without: int = 0
    gone: int = 0
    images: int = 0

    def sentence(self) -> str:
        said = f"{self.new} studies are new, {self.grown} grew, {self.there} were here; {self.images} images came."
        more = {
            f"{self.incomplete} are not complete and were left for the next time.": self.incomplete,
            f"{self.without} have no CT or X-ray image.": self.without,
            f"{self.gone} in the folder are not found by this query; they were left as they are.": self.gone,
        }
        return " ".join([said, *(line for line, number in more.items() if number)])


def fetch_configured(settings: Experiment) -> Fetched:
    """Bring what `fetch:` of a configuration asks for to the folder of its source.

    Raises:
        UserError: as of `fetch_studies`; the address or a keyword is wrong, or a library is not installed.
    """
    asked, source = settings.fetch, settings.data.source
    assert source is not None and source.kind == "dicom"  # so the configuration was checked
    with open_archive(asked.pacs, asked.own_title, asked.move_port) as archive:
        return fetch_studies(archive, data_root() / source.path, read_filters(asked.where), patience_s=_PATIENCE_S)


def fetch_studies(archive: Archive, into: Path, where: Mapping[str, str], *, patience_s: float = 0) -> Fetched:
    """Bring the studies that fit `where` to `into`, as STUDY/SERIES/INSTANCE.dcm by their UIDs.

    A study is moved into its place when every instance that the PACS says it has is there, and the PACS says the same
    after as before.

    Args:
        patience_s: to wait for another process that fetches into the same folder.

    Raises:
        UserError: the PACS cannot be reached or refuses, the folder cannot be written, or another process uses it.
    """
    make_folder(into, "Choose another --into.")
    with clear_disk_errors(into):
        try:
            held = FileLock(into / _LOCK, timeout=patience_s).acquire()
        except Timeout:
            raise UserError(f"{into}: another process fetches into it. Wait for it.") from None
        with held:
            _recover(into)
            done, studies = Fetched(), archive.studies(where)
            for number, study in enumerate(studies, start=1):
                _fetch_study(archive, study, into / study, done)
                logger.info("study %d of %d", number, len(studies))
            here = {path.name for path in into.iterdir() if path.is_dir() and not path.name.startswith(".")}
            done.gone = len(here - set(studies))
    return done


def _fetch_study(archive: Archive, study: str, place: Path, done: Fetched) -> None:
    wanted = _ask(archive, study)
    if not wanted:
        done.without += 1
        return
    if _holds(place, wanted):
        done.there += 1
        return
    grown = place.is_dir()
    fresh = place.with_name(f".{study}.fetched")
    shutil.rmtree(fresh, ignore_errors=True)
    with whole_folder(fresh, "Choose another --into.") as folder:
        for series in wanted:
            archive.fetch(study, series, folder / series)
        whole = _instances_in(folder) == wanted == _ask(archive, study)
    if not whole:
        shutil.rmtree(fresh)
        done.incomplete += 1
        return
    _put(fresh, place)
    done.images += sum(map(len, wanted.values()))
    done.new, done.grown = done.new + (not grown), done.grown + grown


def _ask(archive: Archive, study: str) -> Found:
    series = [name for name, modality in archive.series(study).items() if is_wanted(modality)]
    found = {name: archive.instances(study, name) for name in series}
    return {name: instances for name, instances in found.items() if instances}


def _instances_in(folder: Path) -> Found:
    found: Found = {}
    for path in folder.glob("*/*.dcm"):
        found.setdefault(path.parent.name, set()).add(path.stem)
    return found


def _holds(place: Path, wanted: Found) -> bool:
    here = _instances_in(place)
    return all(instances <= here.get(series, set()) for series, instances in wanted.items())


def _put(fresh: Path, place: Path) -> None:
    """Move a whole study into its place; an older form of it steps aside for that moment, and is then removed."""
    aside = place.with_name(f"{_ASIDE}{place.name}")
    if place.is_dir():
        os.rename(place, aside)
    os.rename(fresh, place)
    shutil.rmtree(aside, ignore_errors=True)


def _recover(into: Path) -> None:
    """After a process that was killed: an older study whose newer form did not arrive comes back, scraps go."""
    forget_unfinished(into)
    for aside in into.glob(f"{_ASIDE}*"):
        place = into / aside.name.removeprefix(_ASIDE)
        if place.exists():
            shutil.rmtree(aside)
        else:
            os.rename(aside, place)
    for fresh in into.glob(".*.fetched"):
        shutil.rmtree(fresh)

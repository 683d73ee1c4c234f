"""Stages and their cache: the same fingerprint is never computed twice, and a directory is whole or absent."""

from __future__ import annotations

import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Generic, TypeVar

from filelock import FileLock, Timeout
from pydantic import BaseModel

from pipeline.core.errors import DataError, UserError
from pipeline.core.files import (
    clear_disk_errors,
    digest_json,
    digest_tree,
    forget_unfinished,
    make_folder,
    safe_name,
    write_text,
)
from pipeline.core.layout import RECORD, TIMED_LOG, stage_name
from pipeline.core.records import Record, load_record
from pipeline.core.sources import Reach, reach_of, version_of
from pipeline.core.threads import use_threads
from pipeline.core.usage import peak_mib, used_threads

logger = logging.getLogger(__name__)
_LONGEST_S = 86_400
HELPERS = {"partial": ".partial-", "lock": ".lock-", "threads": ".threads-"}
"""What stands before the name of a stage's directory in those of its half-written one and of its helping files."""
_ALWAYS_RECORDED = ("radaug", "torch", "monai", "numpy")
Config = TypeVar("Config", bound=BaseModel)
StageFunction = Callable[[Config, Mapping[str, Path], Path], Record]
PartFunction = Callable[[Config, Mapping[str, Path], Path, str], None]


@dataclass(frozen=True)
class Stage(Generic[Config]):
    """One step of a run, ready to be executed: a function and the section of the configuration that it is made for.

    Attributes:
        kind: what it does, such as `downstream`.
        fold, gan_seed: what it belongs to, where it is made once a fold or once a GAN.
        variant: which of several stages of its kind, such as a detector's name.
        run: `run(config, inputs, out_dir) -> Record`. What its module imports decides which code makes the stage stale.
        config: the resolved section; its JSON is part of the fingerprint.
        inputs: finished stage directories that it reads, by name.
        external: digests of what it reads outside the cache (the user's files).
        loads: modules that it finds by name when it runs, such as a GAN's family: their code counts too.
        resumable: keep the half-written directory of a killed process, so that the stage can continue it.
        run_part: makes one of the parts of a resumable stage that other processes may make: what `run` finds made, it
            does not make again, and its directory is the same whoever made what.
    """

    kind: str
    run: StageFunction[Config]
    config: Config
    inputs: Mapping[str, Path] = field(default_factory=dict)
    external: Mapping[str, str] = field(default_factory=dict)
    fold: int | None = None
    gan_seed: int | None = None
    variant: str = ""
    loads: tuple[str, ...] = ()
    seed: int = 0
    device: str = "cpu"
    precision: str = "float32"
    resumable: bool = False
    run_part: PartFunction[Config] | None = None

    @property
    def name(self) -> str:
        return stage_name(self.kind, self.fold, self.gan_seed, self.variant)


def fingerprint(stage: Stage[Config]) -> str:
    """Cache key of a stage: 16 hex digits over everything that can change its directory."""
    reach = _reach(stage)
    return digest_json(
        {
            "name": stage.name,
            "config": stage.config.model_dump(mode="json"),
            "inputs": _input_digests(stage),
            "sources": reach.digest,
            "versions": reach.versions,
            "device": stage.device,
            "precision": stage.precision,
            "seed": stage.seed,
        }
    )[:16]


def _reach(stage: Stage[Config]) -> Reach:
    return reach_of(frozenset({stage.run.__module__, *stage.loads}))


def _input_digests(stage: Stage[Config]) -> dict[str, str]:
    return {name: load_record(path).digest for name, path in stage.inputs.items()} | dict(stage.external)


@dataclass(frozen=True)
class Execution:
    directory: Path
    record: Record
    cached: bool


def find(stage: Stage[Config], cache: Path) -> Execution | None:
    """The stage as it lies finished in `cache`; None where it does not."""
    place = _places(stage, cache, fingerprint(stage)).whole
    return _found(place) if is_whole(place) else None


def _found(place: Path) -> Execution:
    with suppress(OSError):  # in a cache that may only be read, nothing is noted
        os.utime(place)
    return Execution(place, load_record(place), cached=True)


def execute(stage: Stage[Config], cache: Path, threads: int | None = None) -> Execution:
    """Run `stage`, or find its finished directory in `cache`.

    The stage writes into a hidden directory beside its place, which is moved in whole when it is finished: another
    process never sees half of it. A second process that wants the same stage waits for the first one.

    Args:
        threads: to compute with; a stage that a killed process began goes on with as many as it began with. None
            leaves this process's number as it is.

    Raises:
        UserError: the disk is full, the cache cannot be written, or another process held the stage for a day.
    """
    key = fingerprint(stage)
    places = _places(stage, cache, key)
    with _held(stage, cache, places.lock):
        if is_whole(places.whole):
            return _found(places.whole)
        shutil.rmtree(places.whole, ignore_errors=True)
        if not stage.resumable:
            shutil.rmtree(places.partial, ignore_errors=True)
        if threads is not None:
            _settle_threads(places, threads)
        places.partial.mkdir(exist_ok=True)
        forget_unfinished(places.partial)
        record = _run_and_record(stage, key, places.partial)
        os.replace(places.partial, places.whole)
        places.threads.unlink(missing_ok=True)
        return Execution(places.whole, record, cached=False)


def execute_part(stage: Stage[Config], part: str, cache: Path, threads: int) -> None:
    """Make one part of a stage into its half-written directory, for the process that will `execute` the stage.

    Nothing where the stage is finished. Raises as `execute` does.
    """
    assert stage.run_part is not None and stage.resumable
    places = _places(stage, cache, fingerprint(stage))
    with _held(stage, cache, places.lock.with_name(f"{places.lock.name}-{safe_name(part)}")):
        if is_whole(places.whole):
            return
        use_threads(threads)
        places.partial.mkdir(exist_ok=True)
        try:
            stage.run_part(stage.config, stage.inputs, places.partial, part)
        except OSError:
            if not is_whole(places.whole):  # else another process finished the stage and moved the directory away
                raise


@dataclass(frozen=True)
class _Places:
    """Where a stage lies in the cache: whole, half-written, and what says who makes it and with how many threads."""

    whole: Path
    partial: Path
    lock: Path
    threads: Path


def _places(stage: Stage[Config], cache: Path, key: str) -> _Places:
    name = f"{stage.name}-{key}"
    return _Places(cache / name, *(cache / f"{prefix}{name}" for prefix in HELPERS.values()))


@contextmanager
def _held(stage: Stage[Config], cache: Path, lock: Path) -> Iterator[None]:
    with clear_disk_errors(cache):
        make_folder(cache, "Set RADAUG_CACHE to a folder that may be written, or choose another --out.")
        try:
            held = FileLock(lock, timeout=_LONGEST_S).acquire()
        except Timeout as error:
            raise UserError(
                f"{stage.name}: another process has held this stage for a day. End it, or clean the cache."
            ) from error
        with held:
            yield


def _settle_threads(places: _Places, threads: int) -> None:
    """Compute with `threads`, or with as many as the half-written directory was begun with."""
    if places.partial.is_dir():
        with suppress(OSError, ValueError):
            threads = int(places.threads.read_text(encoding="utf-8"))
    write_text(places.threads, str(threads))
    use_threads(threads)


def _run_and_record(stage: Stage[Config], key: str, partial: Path) -> Record:
    started = time.monotonic()
    record = stage.run(stage.config, stage.inputs, partial)
    outputs = digest_tree(partial, skip=frozenset({RECORD, TIMED_LOG}))
    record = replace(
        record,
        kind=stage.kind,
        fold=stage.fold,
        gan_seed=stage.gan_seed,
        variant=stage.variant,
        config=stage.config.model_dump(mode="json"),
        inputs=_input_digests(stage),
        fingerprint=key,
        digest=digest_json([{name: digest for name, (_, digest) in outputs.items()}, record.extra]),
        outputs=outputs,
        versions={name: version_of(name) for name in _ALWAYS_RECORDED} | _reach(stage).versions,
        seed=stage.seed,
        device=stage.device,
        precision=stage.precision,
        threads=used_threads(),
        wall_s=round(record.wall_s + time.monotonic() - started, 3),
        peak_mib=max(record.peak_mib, peak_mib()),
        finished=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    record.save(partial)
    return record


def is_whole(place: Path) -> bool:
    """True when the directory has its record and every file in it has the recorded size."""
    if not (place / RECORD).is_file():
        return False
    try:
        outputs = load_record(place).outputs
    except DataError:
        return False
    whole = all(
        (place / name).is_file() and (place / name).stat().st_size == size for name, (size, _) in outputs.items()
    )
    if not whole:
        logger.warning("%s: files are missing or cut short; the stage is made again", place.name)
    return whole

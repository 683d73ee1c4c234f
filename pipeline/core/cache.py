"""Stages and their cache: the same fingerprint is never computed twice, and a directory is whole or absent."""

from __future__ import annotations

import logging
import os
import resource
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Generic, TypeVar

from filelock import FileLock, Timeout
from pydantic import BaseModel

from pipeline.core.errors import DataError, UserError
from pipeline.core.files import clear_disk_errors, digest_json, digest_tree, make_folder
from pipeline.core.layout import RECORD, TIMED_LOG, stage_name
from pipeline.core.records import Record, load_record
from pipeline.core.sources import Reach, reach_of

logger = logging.getLogger(__name__)
_ALWAYS_RECORDED = ("radaug", "torch", "monai", "numpy")
Config = TypeVar("Config", bound=BaseModel)
StageFunction = Callable[[Config, Mapping[str, Path], Path], Record]


@dataclass(frozen=True)
class Stage(Generic[Config]):
    """One step of a run, ready to be executed: a function and the section of the configuration that it is made for.

    Attributes:
        kind: what it does, such as `downstream`.
        fold, gan_seed: what it belongs to, where it is made once a fold or once a GAN.
        run: `run(config, inputs, out_dir) -> Record`. What its module imports decides which code makes the stage stale.
        config: the resolved section; its JSON is part of the fingerprint.
        inputs: finished stage directories that it reads, by name.
        external: digests of what it reads outside the cache (the user's files).
        loads: modules that it finds by name when it runs, such as a GAN's family: their code counts too.
        resumable: keep the half-written directory of a killed process, so that the stage can continue it.
    """

    kind: str
    run: StageFunction[Config]
    config: Config
    inputs: Mapping[str, Path] = field(default_factory=dict)
    external: Mapping[str, str] = field(default_factory=dict)
    fold: int | None = None
    gan_seed: int | None = None
    loads: tuple[str, ...] = ()
    seed: int = 0
    device: str = "cpu"
    precision: str = "float32"
    resumable: bool = False

    @property
    def name(self) -> str:
        return stage_name(self.kind, self.fold, self.gan_seed)


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


def execute(stage: Stage[Config], cache: Path) -> Execution:
    """Run `stage`, or find its finished directory in `cache`.

    The stage writes into a hidden directory beside its place, which is moved in whole when it is finished: another
    process never sees half of it. A second process that wants the same stage waits for the first one.

    Raises:
        UserError: the disk is full, the cache cannot be written, or another process held the stage for a day.
    """
    key = fingerprint(stage)
    place = cache / f"{stage.name}-{key}"
    partial = cache / f".partial-{stage.name}-{key}"
    with clear_disk_errors(cache):
        make_folder(cache, "Set RADAUG_CACHE to a folder that may be written, or choose another --out.")
        try:
            with FileLock(cache / f".lock-{stage.name}-{key}", timeout=86_400):
                if is_whole(place):
                    return Execution(place, load_record(place), cached=True)
                shutil.rmtree(place, ignore_errors=True)
                if not stage.resumable:
                    shutil.rmtree(partial, ignore_errors=True)
                partial.mkdir(exist_ok=True)
                record = _run_and_record(stage, key, partial)
                os.replace(partial, place)
                return Execution(place, record, cached=False)
        except Timeout as error:
            raise UserError(
                f"{stage.name}: another process has held this stage for a day. End it, or clean the cache."
            ) from error


def _run_and_record(stage: Stage[Config], key: str, partial: Path) -> Record:
    started = time.monotonic()
    record = stage.run(stage.config, stage.inputs, partial)
    outputs = digest_tree(partial, skip=frozenset({RECORD, TIMED_LOG}))
    record = replace(
        record,
        kind=stage.kind,
        fold=stage.fold,
        gan_seed=stage.gan_seed,
        config=stage.config.model_dump(mode="json"),
        inputs=_input_digests(stage),
        fingerprint=key,
        digest=digest_json([{name: digest for name, (_, digest) in outputs.items()}, record.extra]),
        outputs=outputs,
        versions={name: version(name) for name in _ALWAYS_RECORDED} | _reach(stage).versions,
        seed=stage.seed,
        device=stage.device,
        precision=stage.precision,
        wall_s=round(time.monotonic() - started, 3),
        peak_mib=round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
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

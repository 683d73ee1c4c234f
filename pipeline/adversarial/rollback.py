"""What the collapse watch does about what it sees: it warns, goes back to the last good state, and at last stops."""

from __future__ import annotations

import csv
import io
import logging
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from types import NoneType
from typing import Any

import torch

from pipeline.adversarial.checkpoints import CheckpointError, read_checkpoint, save_checkpoint, take_up
from pipeline.adversarial.loop import GanTraining
from pipeline.adversarial.process_group import ONE_PROCESS, ProcessGroup
from pipeline.adversarial.stepping import FLOAT32_FIRST
from pipeline.adversarial.watch import Probe, Reading
from pipeline.config.gan import WatchConfig
from pipeline.core.errors import DataError, NonFiniteLoss, RadaugError
from pipeline.core.files import write_text
from pipeline.core.seeds import derive_seed

logger = logging.getLogger(__name__)
GOOD = "good.pt"
CHECKS = "watch.csv"
_COLUMNS = ("attempt", "num_images", "similarity", "reached", "twins", "overfitting", "finding")
_EARLY = 0.2
"""Share of the training in which a bad check is only noted."""
_MENDS = {
    "similarity": "lower gan.generator_lr",
    "reached": "lower gan.generator_lr",
    "twins": "lower gan.generator_lr",
    "overfitting": "strengthen gan.augment, or set gan.ada",
}


class Collapsed(RadaugError):
    """The watch saw a collapse twice; it never leaves the stage: the training goes back."""


@dataclass
class Memory:
    """What a checkpoint holds of the watch.

    Attributes:
        good_at: images shown at the last good check; None = there has been none.
        streak: bad checks in a row, since then.
        rollbacks: how often the training went back and on.
        ended: the training went back once more, and stays there.
        rows: every check, also those of attempts that were taken back.
        events: sentences for the report.
    """

    good_at: int | None = None
    streak: int = 0
    rollbacks: int = 0
    ended: bool = False
    rows: list[dict[str, Any]] = field(default_factory=list)
    events: list[str] = field(default_factory=list)


class Watch:
    """Looks at a training from time to time, and takes it back to its last good state where it has collapsed.

    One bad check is a warning; the second in a row (or the very last check of the training, or values that are not
    finite) means going back: noise is drawn anew, and all learning rates are half of what they were. In the first fifth
    of the training, and until it has been good once, a generator is undertrained and not called collapsed.

    Args:
        probe: None = the watch is off (`checks: 0`).
        name: of the GAN, for messages.
        total: images of the whole training.
        seed: of the training.
        group: the processes that train together: their readings are averaged, so that all of them do the same.
    """

    def __init__(
        self,
        config: WatchConfig,
        probe: Probe | None,
        out_dir: Path,
        *,
        name: str,
        total: int,
        seed: int,
        group: ProcessGroup = ONE_PROCESS,
    ) -> None:
        self.config, self.probe, self.out_dir = config, probe, out_dir
        self.name, self.total, self.seed, self.group = name, total, seed, group
        self.memory = Memory()

    def __call__(self, training: GanTraining) -> None:
        """Look, if it is time.

        Raises:
            Collapsed: go back.
            NonFiniteLoss: a loss was not finite; or values are not, and there is nothing to go back to.
        """
        if self.probe is None or not self._due(training):
            return
        training.stepper.read_faults()
        reading = self._shared(self.probe.read(training), training)
        wrong = complaints(reading, self.config)
        row = {"attempt": self.memory.rollbacks, "num_images": training.num_images}
        numbers = {key: None if value is None else round(value, 4) for key, value in numbers_of(reading).items()}
        self.memory.rows.append(row | numbers | {"finding": "; ".join(wrong.values()) or "good"})
        if wrong:
            self._bad(training, wrong)
        else:
            self.memory.streak, self.memory.good_at = 0, training.num_images
            if self.group.leads:
                save_checkpoint(self.out_dir / GOOD, training.state_dict())
        self._write()

    def go_back(self, training: GanTraining, why: Exception) -> bool:
        """Put the training into its last good state; it goes on from there, unless it has done so too often.

        Returns:
            Whether it goes on.

        Raises:
            NonFiniteLoss: `why`, where there has been no good check.
            DataError: the last good state cannot be taken up.
        """
        memory = self.memory
        if memory.good_at is None:
            raise why
        reached, reason = training.num_images, str(why) if isinstance(why, Collapsed) else "a loss was not finite"
        try:
            take_up(training, read_checkpoint(self.out_dir / GOOD))
        except CheckpointError as error:
            raise DataError(
                f"{self.name}: after {reached:,} images it collapsed ({reason}), and its last good state cannot be "
                f"taken up: {error}. Delete {self.out_dir.name} in the cache and run again: this GAN begins anew."
            ) from error
        memory.streak = 0
        back = f"after {reached:,} images it went back to its last good state, at {memory.good_at:,} images"
        if memory.rollbacks == self.config.rollbacks:
            memory.ended = True
            self._say(f"{back}, and ended there ({reason}); {memory.good_at:,} of {self.total:,} images were shown")
        else:
            memory.rollbacks += 1
            training.context.draws.generator.manual_seed(derive_seed(self.seed, "rollback", memory.rollbacks))
            for player in training.recipe.players:
                for group in training.stepper.optimizers[player.name].param_groups:
                    group["lr"] = player.optimizer.lr / 2**memory.rollbacks
            self._say(f"{back}, and on with new noise and half the learning rates ({reason})")
        self._write()
        return not memory.ended

    def figures(self) -> dict[str, Any]:
        """For the record: every check, and how often the training went back."""
        return {"rollbacks": self.memory.rollbacks, "ended_early": self.memory.ended, "checks": self.memory.rows}

    def notes(self) -> tuple[str, ...]:
        """Sentences for the report."""
        memory = self.memory
        if memory.good_at is None and memory.rows:
            last = memory.rows[-1]["finding"]
            never = f"{self.name}: no check of the collapse watch was good ({last} at the end). Look at its samples."
            return (*memory.events, never)
        return tuple(memory.events)

    def state_dict(self) -> dict[str, Any]:
        return asdict(self.memory)

    def _due(self, training: GanTraining) -> bool:
        every, step = max(1, self.total // self.config.checks), training.images_per_step
        crossed = training.num_images // every > (training.num_images - step) // every
        return crossed or training.num_images >= self.total

    def _bad(self, training: GanTraining, wrong: Mapping[str, str]) -> None:
        memory, said = self.memory, "; ".join(wrong.values())
        if memory.good_at is None and "finite" in wrong:
            raise NonFiniteLoss(
                f"{self.name}: after {training.num_images:,} images weights or samples are not finite. {FLOAT32_FIRST}"
            )
        early = memory.good_at is None or training.num_images < _EARLY * self.total
        if early and "finite" not in wrong:
            logger.info("%s: not good yet at %s images: %s", self.name, f"{training.num_images:,}", said)
            return
        memory.streak += 1
        if memory.streak > 1 or "finite" in wrong or training.num_images >= self.total:
            raise Collapsed(said)
        mends = " and ".join(dict.fromkeys(_MENDS[measure] for measure in wrong))
        self._say(
            f"a bad check at {training.num_images:,} images: {said}",
            f". If the next is bad too, the training "
            f"goes back to {memory.good_at:,} images; if that happens often, {mends}",
        )

    def _say(self, event: str, more: str = "") -> None:
        logger.warning("%s: %s%s.", self.name, event, more, extra={"event": "collapse watch"})
        self.memory.events.append(f"{self.name}: {event}.")

    def _shared(self, reading: Reading, training: GanTraining) -> Reading:
        if self.group.average is None:
            return reading
        values = [math.nan if value is None else float(value) for value in vars(reading).values()]
        mean = torch.tensor(values, device=training.context.draws.generator.device)
        self.group.average(mean)
        shared: dict[str, Any] = {
            name: None if math.isnan(value) else value for name, value in zip(vars(reading), mean.tolist(), strict=True)
        }
        return Reading(**shared | {"finite": shared["finite"] == 1})

    def _write(self) -> None:
        if self.group.leads:
            text = io.StringIO()
            writer = csv.DictWriter(text, _COLUMNS, lineterminator="\n")
            writer.writeheader()
            writer.writerows(self.memory.rows)
            write_text(self.out_dir / CHECKS, text.getvalue())


def memory_of(state: Mapping[str, Any]) -> Memory:
    """What a checkpoint holds of the watch.

    Raises:
        CheckpointError: nothing, or not what a watch remembers.
    """
    values = state.get("watch")
    kinds: dict[str, Any] = {
        "good_at": (int, NoneType), "streak": int, "rollbacks": int, "ended": bool, "rows": list, "events": list,
    }  # fmt: skip
    if not isinstance(values, dict) or values.keys() != kinds.keys():
        raise CheckpointError("the checkpoint holds no memory of the watch")
    rows_fit = isinstance(values["rows"], list) and all(
        isinstance(row, dict) and row.keys() == set(_COLUMNS) for row in values["rows"]
    )
    if not rows_fit or not all(isinstance(values[name], kind) for name, kind in kinds.items()):
        raise CheckpointError("the checkpoint's memory of the watch has another form")
    return Memory(**values)


def numbers_of(reading: Reading) -> dict[str, float | None]:
    """The reading's numbers by name."""
    return {own.name: getattr(reading, own.name) for own in fields(reading) if own.name != "finite"}


def complaints(reading: Reading, limits: WatchConfig) -> dict[str, str]:
    """What is wrong with a reading, in words, by measure; empty = good. What could not be measured is not wrong."""
    if not reading.finite:
        return {"finite": "weights or samples are not finite"}
    found = {}
    for name, value in numbers_of(reading).items():
        limit = getattr(limits, name)
        if value is not None and (value < limit if name == "reached" else value > limit):
            found[name] = f"{name} {value:.2f} ({'at least' if name == 'reached' else 'at most'} {limit:g})"
    return found

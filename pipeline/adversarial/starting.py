"""`gan.start_from`: a training begins with the weights of another run's generator, whose images count as public."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from pipeline.config.section import Section
from pipeline.core.errors import ConfigError, DataError, LeakageError
from pipeline.core.files import digest_file
from pipeline.core.layout import MANIFEST, MODEL, SPLITS_FILE
from pipeline.data.batches.dataset import read_table
from pipeline.data.cohort.folds import split_ids

_UNSEEN = ("val", "test", "external")


class Start(Section):
    """Where a training begins.

    Attributes:
        place: the directory of the other generator.
        split: that of its run's split.
        fold: its own.
        pool: whether it learned from unlabelled images too.
        weights: digests of its nets.
    """

    place: str
    split: str
    fold: int
    pool: bool
    weights: dict[str, str]


def require_strangers(start: Start, split: Path, fold: int, *, private: bool) -> None:
    """Refuse a start from a generator that saw an image which this run's fold may not have seen.

    Args:
        split: this run's `split` directory.
        private: under `gan.dp`, which promises the training patients that nothing else looked at them.

    Raises:
        LeakageError: it saw a validation or test image; or, where `private`, a training image.
    """
    theirs = read_table(Path(start.split) / MANIFEST).set_index("image_id")["pixel_digest"]
    seen = {theirs[one] for part in ("train", *(["unlabelled"] if start.pool else [])) for one in
            split_ids(Path(start.split), start.fold, part)}  # fmt: skip
    mine, own = (read_table(split / name) for name in (SPLITS_FILE, MANIFEST))
    digests = own.set_index("image_id")["pixel_digest"]
    for part in (*_UNSEEN, "train"):
        ids = mine.loc[(mine["fold"] == str(fold)) & (mine["split"] == part), "image_id"]
        number = sum(digests[one] in seen for one in ids)
        if number and part in _UNSEEN:
            raise LeakageError(
                f"gan.start_from: the generator there learned from {number} of this run's {part} images, and "
                "everything that is measured on them would be false. Name a run of other patients."
            )
        if number and private:
            raise LeakageError(
                f"gan.start_from: the generator there learned from {number} of this run's training images without "
                "noise, so gan.dp could promise their patients nothing. Name a run of a public set."
            )


def begin_with(start: Start, nets: Mapping[str, nn.Module], skip: frozenset[str] = frozenset()) -> int:
    """Give the nets the weights of the other generator's; says how many of the tensors were taken.

    A tensor of another shape, as the embedding of other classes has, stays as it is.

    Raises:
        DataError: a file is not the one that its description names.
        ConfigError: the nets are not made alike.
    """
    taken, kept = 0, []
    for name, net in nets.items():
        if name in skip or name not in start.weights:
            continue
        theirs = _weights(start, name)
        own = net.state_dict()
        if set(theirs) != set(own):
            raise _unlike(name, sorted(set(theirs) ^ set(own))[0])
        fits = {key: value for key, value in theirs.items() if value.shape == own[key].shape}
        kept += [key for key in own if key not in fits]
        if sum(own[key].numel() for key in own if key not in fits) * 2 > sum(one.numel() for one in own.values()):
            raise _unlike(name, kept[-1])
        with torch.no_grad():
            net.load_state_dict(own | fits)
        taken += len(fits)
    return taken


def start_notes(start: Start | None, name: str) -> tuple[str, ...]:
    """For the record: whose weights training began with."""
    if start is None:
        return ()
    return (
        f"{name}: began with the weights of another run's generator ({start.weights['generator'][:12]}), whose images "
        "count as public: nothing here protects the patients behind them.",
    )


def _weights(start: Start, name: str) -> dict[str, Tensor]:
    path = Path(start.place) / f"{name}.safetensors"
    if not path.is_file() or digest_file(path) != start.weights[name]:
        raise DataError(f"gan.start_from: {path.name} does not match {MODEL} beside it. Train that generator again.")
    return load_file(path)


def _unlike(net: str, tensor: str) -> ConfigError:
    return ConfigError(
        f"gan.start_from: its {net} is made otherwise ({tensor}). Family, widths, latent_dim, embedding_dim and "
        "image size must be the same there, and gan.group_norm true where this run has gan.dp."
    )

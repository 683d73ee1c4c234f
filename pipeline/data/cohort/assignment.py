"""Dealing patients out to splits, balanced by class."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType

import numpy as np
import pandas as pd

from pipeline.core.patients import patient_units
from pipeline.core.seeds import derive_seed, numpy_generator


def assign_patients(
    labelled: pd.DataFrame,
    shares: Mapping[str, float],
    seed: int,
    *stream: str | int,
    known: Mapping[str, str] = MappingProxyType({}),
) -> dict[str, str]:
    """Give every image of a patient the same split, so that each split gets its share of every class.

    Patients come in random order, but those of the rarest class and with most images first; each goes where the share
    of its classes, in images and in patients, is least filled.

    Args:
        labelled: image_id, label, patient_id.
        shares: split -> fraction; they sum to 1.
        seed, stream: the same ones always give the same split.
        known: the split of patients (units, as of `patient_units`) who have one: they keep it, and the others fill up.

    Returns:
        split of every image_id.
    """
    units = patient_units(labelled)
    table = pd.crosstab(units, labelled["label"]).sort_index()
    counts = table.to_numpy(dtype=float)  # [patients, classes]
    seen = (counts > 0).astype(float)
    names, wanted = list(shares), np.array(list(shares.values()))
    targets = np.stack([counts.sum(axis=0), seen.sum(axis=0)])  # images and patients of each class
    filled = np.zeros((len(names), *targets.shape))
    rarity = np.argsort(np.argsort(seen.sum(axis=0), kind="stable"), kind="stable")
    rank = np.where(seen > 0, rarity, len(rarity)).min(axis=1)
    shuffled = numpy_generator(seed, "split", *stream).permutation(len(counts))
    order = sorted(shuffled, key=lambda patient: (rank[patient], -counts[patient].sum()))
    chosen = np.array([names.index(known[unit]) if unit in known else -1 for unit in table.index])
    for patient in np.flatnonzero(chosen >= 0):
        filled[chosen[patient]] += np.stack([counts[patient], seen[patient]])
    for patient in (patient for patient in order if chosen[patient] < 0):
        amount = np.stack([counts[patient], seen[patient]])
        need = wanted[:, None, None] - (filled + amount / 2) / targets
        value = (need / wanted[:, None, None] * amount / targets).sum(axis=(1, 2))
        chosen[patient] = int(np.argmax(value))
        filled[chosen[patient]] += amount
    by_unit = dict(zip(table.index, (names[number] for number in chosen), strict=True))
    return {image: by_unit[unit] for image, unit in zip(labelled["image_id"], units, strict=True)}


def cut_to(
    part: pd.DataFrame,
    per_class: Mapping[str, int],
    seed: int,
    *stream: str | int,
    rounds: Mapping[str, int] | None = None,
) -> set[str]:
    """Ids of at most `per_class` images of each class, taken patient by patient in random order.

    Args:
        rounds: the round of a register in which each image was first seen: earlier ones come first, and the order of
            patients depends on nobody else, so that whoever arrives later never takes an earlier image's place.
    """
    units = patient_units(part)
    names = np.array(sorted(set(units)))
    if rounds is None:
        shuffled = list(numpy_generator(seed, "cut", *stream).permutation(names))
    else:
        shuffled = sorted(names, key=lambda name: derive_seed(seed, "cut", *stream, name))
    order = {name: place for place, name in enumerate(shuffled)}
    came = [0] * len(part) if rounds is None else [rounds[image] for image in part["image_id"]]
    ranked = part.assign(came=came, place=units.map(order)).sort_values(["came", "place", "image_id"], kind="stable")
    within = ranked.groupby("label").cumcount() < ranked["label"].map(per_class)
    return set(ranked["image_id"][within])


def disjoint_draws(
    part: pd.DataFrame,
    per_class: Mapping[str, int],
    numbers: Iterable[int],
    seed: int,
    *stream: str | int,
    rounds: Mapping[str, int] | None = None,
) -> list[set[str]]:
    """Ids of training sets of `per_class` images each, no two of which share a patient or an exact copy.

    A draw depends on those before it, never on those after it. The list is shorter than `numbers` where the patients
    do not suffice.

    Args:
        part: image_id, label, patient_id, pixel_digest of the training side.
        numbers: of the draws; each one has random numbers of its own.
        rounds: as of `cut_to`.
    """
    found: list[set[str]] = []
    rest, wanted = part, sum(per_class.values())
    for draw in numbers:
        chosen = cut_to(rest, per_class, seed, *stream, draw, rounds=rounds)
        if len(chosen) < wanted:
            break
        found.append(chosen)
        taken = rest["image_id"].isin(chosen)
        units = patient_units(rest)
        spent = units.isin(set(units[taken])) | rest["pixel_digest"].isin(set(rest["pixel_digest"][taken]))
        rest = rest[~spent]
    return found

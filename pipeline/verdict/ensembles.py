"""Several anomaly detectors as one more: the mean of their ranks, without a label and without a weight to tune."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from pipeline.config.anomaly import ensemble_arm
from pipeline.measures.ranks import mean_rank, share_below

Ensembles = Mapping[str, Sequence[str]]


def with_ensembles(table: pd.DataFrame, ensembles: Ensembles) -> pd.DataFrame:
    """The table of `detector_table` with the rows of every ensemble whose members have scores in each fold.

    A patient's rank is the share of the fold's normal validation patients whose score lies below the patient's own, so
    that detectors on different scales count alike; the ensemble's score is the mean rank of its members. What lies
    above all normal validation patients has rank 1, however far above. A validation patient is never below itself, so
    its rank may be 1 / n lower than that of a new patient with the same scores, n being their number: false alarms of
    an ensemble may exceed the asked share by about as much.

    Fits are paired within a fold: the members' first fits with each other, then their second ones, and so on, in the
    order of GAN seeds and, for one GAN, of seeds. A member with fewer fits than another begins again with its first.
    """
    found = [table]
    for name, members in ensembles.items():
        if not table.empty and not _silent(table, members):
            found += [_of_fold(fold, ensemble_arm(name), members) for _, fold in table.groupby("fold", sort=True)]
    return pd.concat(found, ignore_index=True)


def ensemble_warnings(table: pd.DataFrame, ensembles: Ensembles) -> tuple[str, ...]:
    """A sentence for each ensemble that is left out, because a member has no scores."""
    if table.empty:
        return ()
    silent = {name: _silent(table, members) for name, members in ensembles.items()}
    return tuple(f"ensemble {name}: left out; {', '.join(who)} gave no scores." for name, who in silent.items() if who)


def _silent(table: pd.DataFrame, members: Sequence[str]) -> list[str]:
    """Members that have no scores in some fold."""
    folds = table.groupby("arm")["fold"].nunique()
    return [member for member in members if folds.get(member, 0) < table["fold"].nunique()]


def _of_fold(table: pd.DataFrame, arm: str, members: Sequence[str]) -> pd.DataFrame:
    """The ensemble's fits in one fold; their seeds are numbers from 0 on."""
    ranks = [_ranked(table[table["arm"] == member]) for member in members]
    fits = []
    for number in range(max(map(len, ranks))):
        paired = [own[number % len(own)] for own in ranks]
        mean = mean_rank([fit["score"].to_numpy() for fit in paired])
        fits.append(paired[0].assign(arm=arm, gan_seed="", seed=str(number), score=mean))
    return pd.concat(fits)


def _ranked(table: pd.DataFrame) -> list[pd.DataFrame]:
    """A detector's fits in one fold, in order, with ranks in place of scores and the patients in one order."""
    fits = {tuple(map(str, key)): fit for key, fit in table.groupby(["gan_seed", "seed"])}
    ordered = sorted(fits, key=lambda seeds: [int(one or -1) for one in seeds])
    return [_with_ranks(fits[key].sort_values(["split", "image_id"])) for key in ordered]


def _with_ranks(fit: pd.DataFrame) -> pd.DataFrame:
    healthy = fit[(fit["split"] == "val") & (fit["label"] == "normal")]
    patients = healthy["image_id"].to_numpy(dtype=str)
    return fit.assign(score=share_below(fit["score"].to_numpy(), healthy["score"].to_numpy(), patients))

"""What `validate` says of the release, beside simulated attacks and beside the gate's own measured error rates."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import rankdata, t

from pipeline.config.privacy import PrivacyConfig
from pipeline.measures.resampling import wilson_interval
from pipeline.verdict.release import tolerated_auroc
from pipeline.verdict.release_outlook import patients_needed, release_outlook, released_share

ROWS = Path(__file__).parents[1] / "benchmarks" / "results" / "audit_calibration.csv"


@pytest.mark.parametrize(("members", "unseen", "attacks"), [(60, 60, 1), (200, 70, 3)])
def test_the_share_is_that_of_attacks_on_noise(members: int, unseen: int, attacks: int) -> None:
    """Scores that know nothing; AUROCs by ranks, intervals by Mann and Whitney's variance, counted plainly."""
    random, draws = np.random.default_rng(0), 4000
    ranks = rankdata(random.standard_normal((attacks, draws, members + unseen)), axis=2)[..., :members].sum(axis=2)
    auroc = (ranks - members * (members + 1) / 2) / (members * unseen)
    error = ((members + unseen + 1) / (12 * members * unseen)) ** 0.5
    upper = auroc - 0.5 + t.ppf(0.95, min(members, unseen) - 1) * error
    counted = (upper < tolerated_auroc(0.2)).all(axis=0).mean()
    assert released_share(members, unseen, attacks, 0.2) == pytest.approx(counted, abs=0.02)


def test_the_share_is_what_the_gate_was_measured_to_do() -> None:
    """Healthy generators of three kinds of images; none of these decisions was made by the formula."""
    table = pd.read_csv(ROWS, dtype={"also": str})
    healthy = table[(table["generator"] == "healthy") & table["also"].isna()]
    for members, part in healthy.groupby("members"):
        low, high = wilson_interval(int((part["decision"] == "release").sum()), len(part), 0.05)
        assert low <= released_share(int(str(members)), int(str(members)), 3, 0.2) <= high


def test_what_is_said() -> None:
    needed = patients_needed(3, 0.2)
    assert released_share(needed, needed, 3, 0.2) >= 0.95 > released_share(needed - 1, needed - 1, 3, 0.2)
    assert f"95 of 100 need about {needed} of either" in release_outlook(PrivacyConfig(), 60, 60)
    assert "need" not in release_outlook(PrivacyConfig(), 300, 300)
    assert "audit needs 20 of either" in release_outlook(PrivacyConfig(), 300, 19)
    assert "nothing will be released" in release_outlook(PrivacyConfig(attacks=("discriminator",)), 300, 300)

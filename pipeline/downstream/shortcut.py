"""The shortcut of an arm that fills one class: does it take being synthetic for a sign of that class?"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from pipeline.downstream.feature_models import Predict
from pipeline.downstream.material import Material

_MOST = 256
_TELLING = 0.2


def called_rare(predict: Predict, material: Material) -> dict[str, float]:
    """Shares of the commonest class that a classifier calls a rarer one, of synthetic and of real validation images.

    A classifier that looks at the anatomy errs on both alike. At most 256 of either; empty where there are none.
    """
    trained = material.dataset.labels(material.real.rows, material.classes).numpy()
    counts = np.bincount(trained, minlength=len(material.classes))
    rare = counts < counts.max()
    found = {}
    for name, dataset, rows in (
        ("synthetic", material.generated, material.synthetic.rows),
        ("real", material.dataset, material.rows("val")),
    ):
        common = rows[~rare[dataset.labels(rows, material.classes).numpy()]]
        if not len(common):
            return {}
        some = common[np.unique(np.linspace(0, len(common) - 1, min(len(common), _MOST)).astype(int))]
        found[name] = float(rare[predict(dataset, some).argmax(axis=1)].mean())
    return found


def shortcut_notes(arm: str, fits: Iterable[Mapping[str, Any]]) -> tuple[str, ...]:
    """A warning where the arm's classifiers call synthetic images the rare class by far more often than real ones.

    Args:
        fits: `called_rare` of each fit, under "called_rare" in its facts.
    """
    shares = [fit["called_rare"] for fit in fits if fit.get("called_rare")]
    if not shares:
        return ()
    synthetic, real = (float(np.mean([share[name] for share in shares])) for name in ("synthetic", "real"))
    if synthetic - real <= _TELLING:
        return ()
    return (
        f"{arm}: its classifiers call {100 * synthetic:.0f} % of the synthetic images of the commonest class a "
        f"rarer one, but {100 * real:.0f} % of the real validation images. One class alone was filled up, and being "
        "synthetic has become a sign of it: such images may teach little about the disease. "
        "real+classical+synthetic@1 gives all classes synthetic images.",
    )

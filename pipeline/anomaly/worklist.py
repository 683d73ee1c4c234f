"""The worklist: the held-out images that look least like normal ones, ranked, with their maps."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from pipeline.anomaly.detector import Detector, ImageSet
from pipeline.anomaly.overlays import Case, MapScale, anomaly_map, draw_cases
from pipeline.core.files import atomic_path
from pipeline.core.layout import WORKLIST, WORKLIST_PICTURE
from pipeline.data.batches.dataset import write_table

_COLUMNS = {(2, True): 3, (2, False): 6, (3, True): 2, (3, False): 2}
"""Cases in a row of the picture, by dimensions and whether they have maps."""
_LONGEST = 20
"""Letters of a class's name that fit above a case where six are in a row."""


def write_worklist(
    out_dir: Path, scores: pd.DataFrame, tests: ImageSet, detector: Detector, scale: MapScale | None, length: int
) -> None:
    """Write WORKLIST (rank, image_id, label, score, p_value) and WORKLIST_PICTURE of the `length` highest test scores.

    Args:
        scores: rows of anomaly.csv of one fit; those of the split `test` count.
        tests: the test images.
    """
    rows = scores[scores["split"] == "test"]
    order = rows["anomaly_score"].astype(float).sort_values(ascending=False, kind="stable").index[:length]
    top = rows.loc[order].reset_index(drop=True)
    table = pd.DataFrame(
        {
            "rank": range(1, len(top) + 1),
            "image_id": top["image_id"],
            "label": top["label"],
            "score": top["anomaly_score"],
            "p_value": top["p_value"],
        }
    )
    if table.empty:
        return
    write_table(out_dir / WORKLIST, table)
    shown = ImageSet(tests.dataset, tests.dataset.rows(list(table["image_id"])))
    cases = []
    for place, (rank, label, p_value) in enumerate(zip(table["rank"], table["label"], table["p_value"], strict=True)):
        found = None if scale is None else anomaly_map(detector, shown, place)
        name = label or "no label"
        short = name if len(name) <= _LONGEST else f"{name[: _LONGEST - 1]}…"
        title = f"{rank} · p = {float(p_value):.2g}\n{short}"
        cases.append(Case(title, shown.dataset.tensor(shown.rows[place : place + 1])[0, 0].numpy(), found))
    with atomic_path(out_dir / WORKLIST_PICTURE) as temporary:
        temporary.write_bytes(draw_cases(cases, scale, _COLUMNS[cases[0].image.ndim, scale is not None]))

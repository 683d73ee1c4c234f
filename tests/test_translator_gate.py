"""A translator between sites passes the gate where the site goes and the class stays."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest

from pipeline.core.metrics import MetricRow
from pipeline.quality.measure import NOT_NOISE
from pipeline.report.verdict_tables import generators_table
from pipeline.verdict.gate import gated, look_at
from pipeline.verdict.rule import Verdict
from pipeline.verdict.translator_gate import Translated


def direction(site: str, shares: tuple[float, ...], wrong: tuple[float, ...], number: int = 40) -> list[MetricRow]:
    """Shares called the target of translations, sources and real images, and wrong calls of the same (or of the
    first two), the same of both classes, of which `ill` has three times as many images."""
    ends = ("", "_source", "_real")
    names = [f"called_target{end}" for end in ends] + [f"wrong_calls{end}" for end in ends[: len(wrong)]]
    return [
        MetricRow(
            stage="translation", fold="0", gan_seed="0", label=label, subgroup=f"site = {site}", metric=name,
            value=str(value), n_images=str(count),
        )
        for label, count in (("well", number // 4), ("ill", 3 * number // 4))
        for name, value in zip(names, (*shares, *wrong), strict=True)
    ]  # fmt: skip


GONE, STAYED, KEPT, LOST = (0.8, 0.1, 0.9), (0.2, 0.1, 0.9), (0.15, 0.1), (0.42, 0.1)


@pytest.mark.parametrize(
    ("one", "other", "state", "said"),
    [
        # (0.9 - 0.8) / 0.8 = 1/8 of the site stays, (0.15 - 0.1) / (0.5 - 0.1) = 1/8 of the class is lost
        (direction("A", GONE, KEPT), direction("B", GONE, KEPT), "passed", ""),
        # (1/8 + 7/8) / 2 is the middle, which is allowed
        (direction("A", GONE, KEPT), direction("B", STAYED, KEPT), "passed", ""),
        (
            direction("A", (0.26, 0.1, 0.9), KEPT),
            direction("B", (0.26, 0.1, 0.9), KEPT),
            "failed",
            "(20 % of the way from",
        ),
        (direction("A", GONE, LOST), direction("B", GONE, LOST), "failed", "lose the class (80 % of the way"),
        (direction("A", GONE, KEPT), direction("B", GONE, KEPT, 8), "not judged", "a direction has 8 translations"),
        (direction("A", (0.5, 0.4, 0.6), KEPT), direction("B", GONE, KEPT), "not judged", "tells the sites apart"),
        (direction("A", GONE, (0.5, 0.45)), direction("B", GONE, KEPT), "not judged", "tells the classes apart"),
        # real images of the target are called wrong too: (0.42 - 0.2) / (0.5 - 0.2) = 0.73, with 0.8 a mean of 0.77
        (direction("A", GONE, (*LOST, 0.2)), direction("B", GONE, (*LOST, 0.05)), "failed", "(77 % of the way"),
        (direction("A", GONE, (*LOST, 0.4)), direction("B", GONE, KEPT), "not judged", "tells the classes apart"),
        # one class alone, of which no classifier is ever wrong
        (
            [row for row in direction("A", GONE, (0.0, 0.0)) if row.label == "ill"],
            [],
            "not judged",
            "the classes apart",
        ),
    ],
)
def test_a_translators_site_goes_and_its_class_stays(
    one: list[MetricRow], other: list[MetricRow], state: str, said: str
) -> None:
    fid = MetricRow(
        stage="quality", fold="0", gan_seed="0", metric="fid", detail=f"{NOT_NOISE}: cyclegan changes real images"
    )
    found = look_at([fid, *one, *other], "0", "0")
    assert found.state == state and said in found.why


def test_a_class_without_a_real_image_at_the_target_is_held_against_its_sources() -> None:
    """`ill`, three of four translations, has none: (0.25 · 0.3 + 0.75 · 0.1) = 0.15, (0.29 - 0.15) / 0.35 = 0.4."""
    own = [replace(row, value="") if (row.metric, row.label) == ("wrong_calls_real", "ill") else row
           for row in direction("A", GONE, (0.29, 0.1, 0.3))]  # fmt: skip
    assert Translated.of(own).lost == pytest.approx(0.4)


def test_the_report_says_of_translators_what_is_left_of_site_and_class() -> None:
    gone = (0.7, 0.1, 0.9)  # a quarter of the way is left
    looks = [look_at([*direction("A", gone, wrong), *direction("B", gone, wrong)], "0", "0") for wrong in (KEPT, LOST)]
    found = gated(Verdict("no_benefit", ("No gain.",), {"arm": "translated-consistency"}), looks)
    assert found.decision == "inconclusive" and found.reasons[0].startswith("1 of 2 generators failed, the worst")
    run = SimpleNamespace(verdict={"utility": {"evidence": found.evidence}})
    table = generators_table(run)  # type: ignore[arg-type]
    assert table is not None and table.header == ("GAN", "Of the site is left", "Of the class is lost", "Gate")
    assert [row[1:] for row in table.rows] == [("25 %", "12 %", "passed"), ("25 %", "80 %", "failed")]

"""The low-data curve: how many real images do what the synthetic ones do, by the rule, and as one command."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from tiny_run import TINY

from flows.cli import launch
from pipeline.core.metrics import MetricRow
from pipeline.core.records import load_record
from pipeline.report.curve_page import answer
from pipeline.verdict.decide import VerdictPlan
from pipeline.verdict.low_data_curve import curve_table, number_reaching, size_points, size_row

ARM = "real+classical+synthetic@1"
PLAN = VerdictPlan(positive=("ill",), arm=ARM, bootstrap=500)


def predictions(gains: dict[str, float], draws: int = 6, patients: int = 300) -> pd.DataFrame:
    """Scores that lie `gain` above those of healthy patients, arm by arm; both arms and all draws share patients."""
    random = np.random.default_rng(0)
    ill = np.arange(patients) % 2 == 1
    parts = []
    for draw in range(draws):
        for arm, gain in gains.items():
            for seed in range(2):
                score = random.normal(gain * ill, 1.0)
                parts.append(
                    pd.DataFrame(
                        {
                            "arm": arm, "fold": str(draw), "seed": str(seed), "gan_seed": "0" if arm == ARM else "",
                            "split": np.where(np.arange(patients) < 100, "val", "test"),
                            "image_id": np.arange(patients).astype(str), "patient_id": np.arange(patients).astype(str),
                            "label": np.where(ill, "ill", "well"), "score_ill": score, "score_well": -score,
                        }
                    )
                )  # fmt: skip
    return pd.concat(parts, ignore_index=True)


def row(size: int, mean: float, gain: float = 0.0, p: float | None = 0.5, decision: str = "inconclusive") -> dict:
    return {
        "size": size, "reference_mean": mean, "difference": gain, "ci_low": gain - 0.1, "ci_high": gain + 0.1, "p": p,
        "decision": decision,
    }  # fmt: skip


def test_the_curve_is_read_over_the_logarithm_and_never_falls() -> None:
    sizes = np.array([10.0, 100.0, 1000.0])
    assert number_reaching(sizes, np.array([0.6, 0.8, 0.9]), 0.7) == pytest.approx(10**1.5)
    assert number_reaching(sizes, np.array([0.6, 0.8, 0.9]), 0.85) == pytest.approx(10**2.5)
    # a fall from 0.8 to 0.7 is their mean, 0.75, from 100 on
    assert number_reaching(sizes, np.array([0.6, 0.8, 0.7]), 0.675) == pytest.approx(10**1.5)
    assert number_reaching(sizes, np.array([0.6, 0.8, 0.7]), 0.75) == pytest.approx(100)


def test_the_ends_of_the_curve_are_the_least_and_the_most() -> None:
    sizes, curve = np.array([10.0, 100.0]), np.array([0.6, 0.8])
    assert number_reaching(sizes, curve, 0.5) == number_reaching(sizes, curve, 0.6) == 10  # not 10.000000000000002
    assert number_reaching(sizes, curve, 0.9) == 100
    assert np.isnan(number_reaching(sizes, curve, float("nan")))


def test_sizes_share_alpha_by_holms_rule() -> None:
    rows = [row(10, 0.6, 0.2, 0.02, "helps"), row(25, 0.7, 0.1, 0.03, "helps"), row(50, 0.8, -0.1, 0.001, "harms")]
    found = curve_table(rows, 0.05).set_index("size")
    # by hand: 3 x 0.001, then 2 x 0.02, then max(0.04, 1 x 0.03)
    assert found["p_holm"].to_dict() == pytest.approx({50: 0.003, 10: 0.04, 25: 0.04})
    assert found["decision"].to_dict() == {10: "helps", 25: "helps", 50: "harms"}
    rows[2] = row(50, 0.8, 0.0, 0.9)
    rows[1] = row(25, 0.7, 0.1, 0.04, "helps")
    # 3 x 0.02 = 0.06: neither survives
    assert curve_table(rows, 0.05)["decision"].tolist() == ["inconclusive"] * 3


def test_a_size_without_a_p_value_counts_as_one_that_shows_nothing() -> None:
    found = curve_table([row(10, 0.6, 0.2, 0.03, "helps"), row(25, 0.7, p=None)], 0.05)
    assert found["p_holm"].tolist() == pytest.approx([0.06, 1.0])
    assert found["decision"].tolist() == ["inconclusive", "inconclusive"]


def test_a_planted_worth_is_found() -> None:
    """At 10 the arm's scores are as good as those of real images alone at 40; at 40 and 160 it adds nothing."""
    gains = {10: (0.5, 1.0), 40: (1.0, 1.0), 160: (1.5, 1.5)}
    tables = {size: predictions({"real+classical": real, ARM: arm}) for size, (real, arm) in gains.items()}
    rows = [size_row(table, PLAN, size) for size, table in tables.items()]
    found = curve_table(rows, 0.05).set_index("size")
    assert found["decision"][10] == "helps" and found["draws"][10] == 6
    assert set(found["decision"][[40, 160]]) <= {"no_benefit", "inconclusive"}
    assert 30 < found["same_as"][10] < 55
    assert found["same_as_low"][10] < 40 < found["same_as_high"][10]
    points = pd.DataFrame([point for size, table in tables.items() for point in size_points(table, PLAN, size)])
    assert len(points) == 3 * 6 * 2
    means = points.groupby(["size", "arm"])["value"].mean()
    assert means[10, ARM] == pytest.approx(found["arm_mean"][10])
    assert means[160, "real+classical"] == pytest.approx(found["reference_mean"][160])


def quality(kid: float) -> list[MetricRow]:
    """Of one generator a draw, with 40 validation images; blank images lie at 0.6."""
    figures = {"kid": kid, "kid_floor": 0.0, "kid_blank": 0.6, "kid_shuffled": 0.9}
    return [
        MetricRow(
            stage="quality", fold=str(draw), gan_seed="0", label="all", metric=name, value=str(value),
            ci_low=str(value - 0.01), ci_high=str(value + 0.01), n_images="40",
        )
        for draw in range(6)
        for name, value in figures.items()
    ]  # fmt: skip


def test_a_size_whose_generators_failed_says_nothing_of_gan_augmentation() -> None:
    table = predictions({"real+classical": 2.5, ARM: 1.0})
    rows = [size_row(table, PLAN, 10 * number, quality(kid)) for number, kid in ((1, 0.1), (2, 0.5))]
    rows.append(size_row(table, PLAN, 30))
    found = curve_table(rows, 0.05)
    assert found["decision"].tolist() == ["harms", "inconclusive", "harms"]
    assert found["generators"].tolist() == ["passed", "failed", "not judged"]
    said = answer(found)
    assert (
        said[1] == "With 20 real images a class, generators failed, so that size says nothing about GAN augmentation."
    )
    assert said[2].startswith("With 30 real images a class, the generators could not be judged")
    assert "They did harm with 10, 30 real images a class." in said


@pytest.fixture
def study(ready_children: None, tmp_path: Path) -> Path:
    config = tmp_path / "tiny.yaml"
    config.write_text(
        "data:\n  source: {kind: phantom, cysts: 40, metastases: 40, haemangiomas: 40}\n"
        "  classes: [cyst, metastasis, haemangioma]\n  positive: [metastasis]\n"
    )
    return config


def curve(config: Path, out: Path, *words: str) -> int:
    known = "quality.extractor=effnet-lite0"  # it tells the images of generators that have seen so few
    changes = [*TINY, known, "classifier.seeds=1"]
    settings = [token for change in changes for token in ("--set", change)]
    return launch(["curve", str(config), "--out", str(out), "--engine", "direct", *settings, *words])


def test_one_command_draws_the_curve(study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "runs" / "curve"
    assert curve(study, out, "--sizes", "4", "8", "5000", "--draws", "2") == 0
    found = pd.read_csv(out / "curve.csv")
    assert found["size"].tolist() == [4, 8] and found["arm"].unique().tolist() == [ARM]
    assert (found["draws"] == 2).all()
    assert set(found["generators"]) <= {"failed", "not judged"}  # 4 or 8 images a class, 40 images shown
    points = pd.read_csv(out / "points.csv")
    assert len(points) == 2 * 2 * 2
    lost = pd.read_csv(out / "left_out.csv")
    assert lost["size"].tolist() == [5000] and "5000" in lost["reason"][0]
    looks = pd.read_csv(out / "ledger.csv")
    assert looks["what"].tolist() == ["curve"]
    fits = [load_record(path).figures["train_images"] for path in (tmp_path / "runs" / ".cache").glob("fit-gan-*")]
    assert sorted(fits) == [12, 12, 24, 24]  # a GAN a draw, on its own images alone: three classes
    page = (out / "curve.html").read_text()
    assert "low-data curve" in page and "5000: " in page and 'src="data:image/png' in page
    assert str(tmp_path) not in page
    shown = capsys.readouterr().out.splitlines()
    assert any(line.startswith("AUROC on ") for line in shown) and any(
        line.startswith("  4 a class: ") for line in shown
    )
    assert all(len(line) <= 80 for line in shown[-8:] if line.startswith("  "))
    before = (out / "curve.csv").read_bytes(), len(looks)
    assert curve(study, out, "--sizes", "4", "8", "5000", "--draws", "2") == 0
    assert ((out / "curve.csv").read_bytes(), len(pd.read_csv(out / "ledger.csv"))) == before
    assert 'role="alert"><strong>This is look' not in (out / "curve.html").read_text()
    shown = capsys.readouterr().out
    assert "sizes did synthetic images help" in shown and "This is look" not in shown
    assert curve(study, out, "--sizes", "4", "8", "--draws", "2", "--set", "classifier.steps=3") == 0
    decided = [
        f"{decision.replace('_', ' ')} with {', '.join(map(str, own['size']))}"
        for decision, own in found.groupby("decision", sort=False)
    ]
    said = f"This is look 2 at these test patients; earlier looks decided: {', '.join(decided)} (curve tiny, "
    shown = capsys.readouterr().out
    assert said in shown and shown.index(said) < shown.index("AUROC on ")
    assert f'role="alert"><strong>{said}' in (out / "curve.html").read_text()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--sizes", "8"], "two or more different numbers"),
        (["--sizes", "8", "8"], "two or more different numbers"),
        (["--sizes", "4", "8", "--draws", "0"], "--draws must be 1 or more"),
        (["--sizes", "4", "8", "--arm", "real+classical+mixup"], "no arm that may help"),
        (["--sizes", "4000", "8000"], "two sizes at least"),
        (["--sizes", "4", "8", "--draws", "2", "--set", "data.split.kind=kfold"], "draws are for one test set"),
    ],
)
def test_what_cannot_be_a_curve_is_refused(
    study: Path, tmp_path: Path, words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert curve(study, tmp_path / "runs" / "curve", *words) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "runs" / "curve" / "curve.html").exists()

"""The arms' table, their plan and cost, and the small parts they are made of, by worked numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from flows.cli import launch
from flows.plan import check_configs, plan_experiment
from pipeline.adversarial.families.s3gan import S3ganConfig
from pipeline.adversarial.families.sngan import SnganConfig
from pipeline.config.arms import ARMS, REFERENCE_ARM
from pipeline.config.experiment import Experiment
from pipeline.config.loading import load_experiment
from pipeline.core.errors import ConfigError
from pipeline.downstream import curation, features, train
from pipeline.downstream.features import TRUNKS, TrunkConfig
from pipeline.downstream.material import filling
from pipeline.downstream.representations import REPRESENTATIONS
from pipeline.supervised.classifier_cost import number_of_fits

DEMO = Path(__file__).resolve().parents[1] / "configs" / "demo.yaml"


def names_of(fact: str) -> set[str]:
    return {name.removeprefix(f"{REFERENCE_ARM}+") for name, facts in ARMS.items() if getattr(facts, fact)}


def test_what_an_arm_needs_follows_from_how_it_is_trained() -> None:
    translated = {"translated-consistency", "translated-pretrained", "minority-translated", "adapted"}
    translated |= {"translated-crosssitemixup", "adapted-pseudolabels", "harmonised"}
    assert names_of("translator") == translated
    assert names_of("generator") == {
        "synthetic", "curated", "synthetic+classical", "synthetic-pretrained", "cells-synthetic-pretrained",
        "minority-synthetic", "pool-gan", "pool-gan+fixmatch", "gan-features", "f-anogan-features+logistic",
        "f-anogan-features+svm", "discriminator-features+logistic", "discriminator-features+svm", *translated,
    }  # fmt: skip
    assert names_of("pool") == {
        "pseudolabels", "fadingpseudolabels", "fixmatch", "fadingpseudolabels+fixmatch", "simclr-features",
        "autoencoder-features", "pool-gan", "pool-gan+fixmatch", "gan-features",
    }  # fmt: skip
    assert names_of("ensemble") == {
        "pseudolabels", "fadingpseudolabels", "fadingpseudolabels+fixmatch", "curated", "pool-gan", "pool-gan+fixmatch",
        "adapted-pseudolabels",
    }  # fmt: skip
    cells = {"cells-pretrained", "cells-synthetic-pretrained"}
    looks_at_sites, at_target = {"sitecentred", "matched", "fourier"}, {"matched", "fourier", "adabn"}
    assert names_of("target") == {*at_target, "adapted", "adapted-pseudolabels"}
    in_batches = {"coral", "dann", "crosssitemixup", "bigaug", "bigaug+crosssitemixup", "amplitudemix"}
    known = {*looks_at_sites, *at_target, *in_batches}
    assert names_of("sites") == {"cellbalanced", "groupdro", "cells-consistency", *cells, *translated, *known}
    assert names_of("by_site") == {"cells-synthetic-pretrained", *translated} - {"harmonised"}
    assert names_of("ratio") == {"synthetic", "curated"}
    assert names_of("candidate") == {
        "synthetic", "curated", "synthetic-pretrained", "cells-synthetic-pretrained", "minority-synthetic", "pool-gan",
        "pool-gan+fixmatch", "gan-features", *translated,
    }  # fmt: skip
    assert names_of("on_features") == {
        "real", REFERENCE_ARM, "oversampling", "classweights", "cellbalanced", "pseudolabels", "synthetic", "curated",
        "synthetic+classical", "minority-translated", "adapted", "adapted-pseudolabels", "harmonised", "standardised",
        "equalised", "bigaug", *looks_at_sites,
    }  # fmt: skip
    assert {name for name, facts in ARMS.items() if facts.trainings == 2} == {
        "augmented-pretrained", "synthetic-pretrained", "cells-pretrained", "cells-synthetic-pretrained",
        "cells-consistency", "translated-consistency", "translated-pretrained", f"{REFERENCE_ARM}+fixmatch",
        f"{REFERENCE_ARM}+fadingpseudolabels+fixmatch", "pool-gan+fixmatch",
    }  # fmt: skip
    assert {facts.trunk for facts in ARMS.values()} - {None} == set(TRUNKS)
    assert {facts.representation for facts in ARMS.values()} - {None} == set(REPRESENTATIONS)


def test_arms_that_are_asked_by_site_must_beat_what_mends_a_scanner_without_a_gan() -> None:
    """Each was once missing beside a `helps` that it then took back (docs/results.md)."""
    remedies = {f"{REFERENCE_ARM}+{name}" for name in ("crosssitemixup", "bigaug", "amplitudemix")}
    asked = {name: facts.controls for name, facts in ARMS.items() if facts.by_site and not facts.target}
    assert len(asked) == 5 and all(remedies <= set(controls) for controls in asked.values())


def test_filling_is_as_frequent_as_what_lacks() -> None:
    asked = np.array([0, 0, 1, 1, 1, 2, 2])
    rows = filling(asked, np.array([0, 2, 4]))
    counts = np.bincount(rows, minlength=7)
    assert counts[:2].tolist() == [0, 0] and counts.min(initial=9, where=asked > 0) >= 1
    assert counts[5:].sum() == 2 * counts[2:5].sum()


def test_the_upper_half_of_each_class_is_kept() -> None:
    asked, scores = np.array([0, 0, 0, 0, 1, 1]), np.array([4.0, 1.0, 3.0, 2.0, -9.0, -8.0])
    assert curation.upper_part(scores, asked).tolist() == [True, False, True, False, False, True]


def test_the_encoders_budget_is_the_gans_up_to_the_cap() -> None:
    gan = S3ganConfig(num_images=6400, batch_size=64, discriminator_width=8, latent_dim=6)
    assert features.trunk_config(gan, 100_000) == TrunkConfig(width=8, steps=100, batch_size=64, latent_dim=6)
    assert features.trunk_config(gan, 1000).steps == 15


def experiment_of(*arms: str, family: str = "s3gan") -> Experiment:
    listed = ", ".join([REFERENCE_ARM, *arms])
    demo = Path(__file__).resolve().parents[1] / "configs" / "demo.yaml"
    overrides = [f"arms=[{listed}]", "gan.gan_seeds=2", "classifier.seeds=3", "compute.device=cpu"]
    experiment = load_experiment(demo, [*overrides, "compute.precision=float32"])
    gan = {"s3gan": S3ganConfig, "sngan": SnganConfig}[family](gan_seeds=2)
    return experiment.model_copy(update={"gan": gan})


def test_a_pool_gan_needs_a_family_that_reads_the_pool() -> None:
    for arm in ("pool-gan", "pool-gan+fixmatch", "gan-features"):
        with pytest.raises(ConfigError, match="ssgan or s3gan"):
            check_configs(plan_experiment(experiment_of(arm, family="sngan")))
        check_configs(plan_experiment(experiment_of(arm)))
    check_configs(plan_experiment(experiment_of("simclr-features", f"{REFERENCE_ARM}+pseudolabels", family="sngan")))


def test_validate_says_so_before_it_reads_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["--set", f"arms=[{REFERENCE_ARM}, pool-gan]", "--set", "gan.family=sngan"]
    assert launch(["validate", str(DEMO), *words]) == 2
    assert "ssgan or s3gan" in capsys.readouterr().err
    assert not list(tmp_path.rglob("*.csv"))


def test_a_fold_without_generator_fits_the_arms_without_one() -> None:
    steps = {step.name: step for step in plan_experiment(experiment_of("gan-features", "simclr-features", "real"))}
    plain, other = steps["downstream-fold-0"].config, steps["downstream-fold-0-gan-1"].config
    assert isinstance(plain, train.DownstreamConfig) and isinstance(other, train.DownstreamConfig)
    assert plain.arms == (REFERENCE_ARM, "simclr-features", "real") and other.arms == ("gan-features", REFERENCE_ARM)
    assert plain.needs_pool and other.needs_pool and plain.trunk == other.trunk != None  # noqa: E711
    assert {"fit-gan", "synthesise"} <= set(steps["downstream-fold-0-gan-1"].needs)
    without = plan_experiment(experiment_of("real+classical+synthetic@1"))
    configs = [step.config for step in without if isinstance(step.config, train.DownstreamConfig)]
    assert all(config.trunk is None and not config.needs_pool for config in configs)


def test_fits_are_counted_with_their_pretrainings_and_ensembles() -> None:
    """3 seeds and 2 GANs; the reference is 3 fits, the reverse check 1 a GAN."""
    assert number_of_fits(experiment_of("augmented-pretrained")) == 3 * (1 + 2)
    assert number_of_fits(experiment_of("synthetic-pretrained")) == 3 * (1 + 2 * 2) + 2
    assert number_of_fits(experiment_of(f"{REFERENCE_ARM}+pseudolabels")) == 3 * (1 + 1 + 1)
    assert number_of_fits(experiment_of("vae-features+svm", "effnet-features+svm")) == 3  # the reference's alone
    assert number_of_fits(experiment_of("discriminator-features+svm")) == 3 + 2
    assert number_of_fits(experiment_of("pool-gan", "real+classical+curated@1")) == 3 * (1 + 2 * 2 + 2) + 2


def test_what_is_drawn_from_a_generator_changes_no_training() -> None:
    """`synthesis:` reaches the stage that draws, and no other; `gan:` has no say in how many images are drawn."""
    plain = plan_experiment(load_experiment(DEMO, ["compute.device=cpu"]))
    for change in ("synthesis.samples_per_class=9", "synthesis.truncation_psi=0.5"):
        steps = plan_experiment(load_experiment(DEMO, ["compute.device=cpu", change]))
        changed = [one.kind for one, other in zip(steps, plain, strict=True) if one.config != other.config]
        assert changed == ["synthesise"]
    (drawn,) = [step.config for step in steps if step.kind == "synthesise"]
    assert drawn.model_dump()["truncation_psi"] == 0.5

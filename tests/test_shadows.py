"""Shadow generators and their likelihood ratio: who they learn from, and what they see that a distance does not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from clouds import CPU, PRIVACY, clouds, stored, write_images
from scipy.stats import norm

from flows.plan import plan_experiment
from pipeline.adversarial import fit
from pipeline.adversarial.families.sngan import SnganConfig
from pipeline.config.experiment import Experiment
from pipeline.config.loading import validate_experiment
from pipeline.core.errors import ConfigError
from pipeline.data.batches.dataset import read_table
from pipeline.data.cohort.halves import Half, in_half
from pipeline.measures.classification import weighted_auroc
from pipeline.privacy.attack import Candidates, Target
from pipeline.privacy.attacks import ATTACKS
from pipeline.privacy.attacks.lira import likelihood_ratio
from pipeline.privacy.shadows import fit_shadow_config

MakeInputs = Callable[..., dict[str, Path]]
CLASSES = ("normal", "disease")
DATA = {"source": {"kind": "phantom"}, "classes": ["cyst", "metastasis"], "positive": ["metastasis"]}


def experiment(**changes: object) -> Experiment:
    return validate_experiment(
        {"name": "t", "data": DATA, "privacy": {"attacks": ["lira"], "shadows": 4}} | changes, "t"
    )


def test_two_halves_have_every_patient_once_and_classes_alike() -> None:
    table = pd.DataFrame({"image_id": [f"i{i}" for i in range(90)], "patient_id": [f"p{i // 2}" for i in range(90)]})
    table["label"] = np.where(np.arange(90) < 60, "a", "b")
    one, other = (in_half(table, Half(seed=5, side=side)) for side in (0, 1))
    assert (one ^ other).all()
    assert all(one[2 * i] == one[2 * i + 1] for i in range(45))
    assert one[:60].sum() == 30 and one[60:].sum() in (14, 16)
    assert (one != in_half(table, Half(seed=6, side=0))).any()


def test_a_shadow_learns_from_its_half_and_says_so(noise_inputs: MakeInputs, tmp_path: Path) -> None:
    inputs = noise_inputs(num=48)
    seen = []
    for side in (0, 1):
        gan = SnganConfig(
            num_images=8, batch_size=4, generator_width=4, discriminator_width=4, latent_dim=4, snapshots=1
        )
        config = fit.FitConfig(
            gan=gan.model_copy(update={"watch": gan.watch.model_copy(update={"checks": 0})}), classes=CLASSES,
            positive=("disease",), fold=0, gan_seed=0, seed=3, device="cpu", precision="float32", deterministic=False,
            half={"seed": 1, "side": side},
        )  # fmt: skip
        out = tmp_path / str(side)
        out.mkdir()
        record = fit.run(config, inputs, out)
        seen.append(set(read_table(out / "shadow.csv")["image_id"]))
        assert record.figures["train_images"] == len(seen[-1]) == 24
    assert seen[0] | seen[1] == {f"image-{number}" for number in range(48)}


def test_shadows_are_planned_for_the_attack_that_needs_them() -> None:
    steps = {step.name: step for step in plan_experiment(experiment())}
    fits = [step for step in steps.values() if step.kind == "fit-shadow"]
    assert len(fits) == 4 and len({step.config.half.seed for step in fits}) == 2
    attack = steps["attack-lira-fold-0-gan-0"]
    assert {name for name in attack.needs if name.startswith("shadow")} == {
        f"{what}-{number}" for what in ("shadow", "shadow-gan") for number in range(4)
    }
    assert steps["synthesise-shadow-3-fold-0-gan-0"].needs["fit-gan"] == "fit-shadow-3-fold-0-gan-0"
    without = plan_experiment(experiment(privacy={"attacks": ["distance"]}))
    assert not [step for step in without if "shadow" in step.kind]
    used = [step for step in steps.values() if step.kind in ("downstream", "quality", "privacy", "detect")]
    assert not any("shadow" in need for step in used for need in step.needs.values())


def test_a_family_that_is_lent_masks_has_no_shadows() -> None:
    with pytest.raises(ConfigError, match=r"privacy\.attacks: lira .* spade"):
        fit_shadow_config(experiment(gan={"family": "spade"}), 0)


def test_the_ratio_is_that_of_two_gaussians() -> None:
    """One image has shadows 2 +- 1 where it is known and 0 +- 1 where not; s² = 8 / 2, of 4 residuals with 2 means,
    and with one image its gap is the mean gap."""
    shadow, known = np.array([[3.0], [1.0], [1.0], [-1.0]]), np.array([[True], [True], [False], [False]])
    found = likelihood_ratio(np.array([2.5]), shadow, known)
    spread = (4 / 2) ** 0.5
    assert found[0] == pytest.approx(norm.logpdf(2.5, 2, spread) - norm.logpdf(2.5, 0, spread))
    assert likelihood_ratio(np.array([1.0]), shadow, known)[0] == pytest.approx(0, abs=1e-9)  # in the middle
    turned = likelihood_ratio(np.array([2.5]), -shadow, known)
    assert turned[0] > 0  # a gap of the wrong sign does not turn the score


def blended(members: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """A generator that shows means of three of those it knows, with noise: no copy of anybody."""
    drawn = members[random.integers(0, len(members), (3, 2 * len(members)))].mean(axis=0)
    return (drawn + 0.05 * random.standard_normal(drawn.shape)).clip(-1, 1)


def test_the_ratio_sees_what_the_distance_does_not(tmp_path: Path) -> None:
    random, images = np.random.default_rng(0), clouds(160, 3)
    candidates = Candidates(stored(images), np.array([""] * 160), np.arange(160))
    member = np.arange(160) < 80
    inputs = {}
    for number in range(8):
        half = np.random.default_rng(number // 2).permutation(160) % 2 == number % 2
        gan, made = tmp_path / f"gan-{number}", tmp_path / f"images-{number}"
        gan.mkdir()
        made.mkdir()
        pd.DataFrame({"image_id": np.flatnonzero(half)}).to_csv(gan / "shadow.csv", index=False)
        write_images(made, blended(images[half], random))
        inputs |= {f"shadow-gan-{number}": gan, f"shadow-{number}": made}
    target = Target(stored(blended(images[member], random)), PRIVACY, CPU, 0, inputs)

    def auroc(attack: str) -> float:
        return float(weighted_auroc(ATTACKS[attack].scores(target, candidates), member, np.ones((1, 160)))[0])

    assert auroc("distance") + 0.1 < auroc("lira")
    healthy = Target(stored(blended(clouds(80, 4), random)), PRIVACY, CPU, 0, inputs)
    control = ATTACKS["lira"].scores(healthy, candidates)
    assert 0.4 < weighted_auroc(control, member, np.ones((1, 160)))[0] < 0.6

"""`gan.dp` from the configuration to the certificate: what is refused by name, what is left, who quotes it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
import yaml
from audits import of_a_healthy_generator
from noise_data import write_noise

from flows.cli import launch
from pipeline.adversarial import gan_cost
from pipeline.adversarial.families import FAMILIES
from pipeline.adversarial.fit import FitConfig, fit_config, run
from pipeline.adversarial.gan_cost import noise_training
from pipeline.adversarial.loop import train
from pipeline.adversarial.private.certificate import OUTSIDE
from pipeline.adversarial.private.check import obstacles
from pipeline.adversarial.private.outlook import outlook
from pipeline.adversarial.weights import read_description
from pipeline.anomaly.normal_gan import fit_normals_config
from pipeline.config.experiment import ReleaseConfig
from pipeline.config.families import validate_gan
from pipeline.config.loading import dump_experiment, validate_experiment
from pipeline.config.privacy import PrivacyConfig
from pipeline.core.certificates import read_certificate
from pipeline.core.compute import Hardware
from pipeline.core.cost import CostEstimate
from pipeline.core.errors import ConfigError, DataError, RefusedError
from pipeline.nets.sizes import ImageShape
from pipeline.report.privacy_tables import certificate_table
from pipeline.supervised import classifier_cost
from pipeline.verdict.release import release_verdict

MakeInputs = Callable[..., dict[str, Path]]
DATA = {"source": {"kind": "phantom"}, "spatial_dims": 2, "classes": ["cyst", "metastasis"], "positive": ["metastasis"]}
SMALL = {
    "batch_size": 16, "generator_width": 4, "discriminator_width": 4, "latent_dim": 6, "embedding_dim": 4,
    "snapshots": 2, "checkpoints": 2,
}  # fmt: skip


def experiment(**changes: Any) -> Any:
    gan = {"family": "cgan", "dp": {"epsilon": 3}} | changes.pop("gan", {})
    return validate_experiment({"name": "t", "data": DATA, "gan": gan} | changes, "t")


@pytest.mark.parametrize(
    ("gan", "named"),
    [
        ({"ada": {"target": 0.6}}, "ada adapts to the signs"),
        ({"watch": {"checks": 5}}, "watch compares with training images"),
        ({"attributes": ["age"]}, "attributes lends"),
        ({"accumulate": 2}, "accumulate divides a batch"),
        ({"dp": {"epsilon": -1}}, "epsilon"),
        ({"dp": {"epsilon": 1, "sigma": 1}}, "sigma"),
        ({"dp": {"epsilon": 1, "unit": "study"}}, "unit"),
    ],
)
def test_what_is_not_accounted_for_is_refused_by_name(gan: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        experiment(gan=gan)


@pytest.mark.parametrize(
    ("family", "named"),
    [
        ("sngan", "spectral norm"), ("wgan", "batch norm"), ("wgan-gp", "gradient penalty"), ("stylegan2", "R1"),
        ("spade", "mask"), ("cyclegan", "source"), ("vae", "batch norm"),
    ],
)  # fmt: skip
def test_families_that_cannot_are_refused_with_what_stands_in_the_way(family: str, named: str) -> None:
    with pytest.raises(
        ConfigError, match=rf"gan\.family: {family} cannot.*{named}.*Use one of cgan, dcgan, dp-merf, gan"
    ):
        fit_config(experiment(gan={"family": family}), 0, 0)


def test_projection_is_refused_for_its_spectral_norm_and_devices_for_the_noise() -> None:
    with pytest.raises(ConfigError, match="spectral norm"):
        fit_config(experiment(gan={"conditioning": "projection"}), 0, 0)
    with pytest.raises(ConfigError, match=r"compute\.precision: float32"):
        fit_config(experiment(compute={"precision": "bf16"}), 0, 0)


def test_no_family_says_that_it_can_and_has_an_obstacle() -> None:
    for name, family in FAMILIES.items():
        found = obstacles(validate_gan({"family": name, "dp": {"epsilon": 1}}), 2)
        assert bool(found) != bool(family.private), (name, found)


def test_the_resolved_configuration_says_that_the_watch_is_off() -> None:
    found = experiment()
    assert found.gan.watch.checks == 0 and fit_config(found, 0, 0).precision == "float32"
    again = validate_experiment(yaml.safe_load(dump_experiment(found)), "t")
    assert again == found
    assert fit_normals_config(found, ["cyst"], 0).gan.dp is None, "what never leaves needs no promise"
    assert validate_gan({"family": "cgan"}).dp is None


def stage_config(family: str, **dp: Any) -> FitConfig:
    values = SMALL | {"family": family, "num_images": 16 * 12, "dp": {"epsilon": 10, "discriminator_steps": 3} | dp}
    return FitConfig(
        gan=validate_gan(values), classes=("normal", "disease"), positive=("disease",), fold=0, gan_seed=0, seed=3,
        device="cpu", precision="float32", deterministic=False,
    )  # fmt: skip


@pytest.mark.parametrize("family", ["cgan", "dp-merf"])
def test_the_stage_leaves_a_certificate_of_its_weights(family: str, noise_inputs: MakeInputs, tmp_path: Path) -> None:
    record = run(stage_config(family), noise_inputs((12, 12), num=600), tmp_path)
    found = json.loads((tmp_path / "certificate.json").read_text(encoding="utf-8"))
    assert found == read_certificate(tmp_path, found["weights"]["generator"])
    assert 9.9 < found["epsilon"] <= 10.01 and found["delta"] == 1 / 3000 and found["units"] == 300
    assert found["unit"] == "patient" and found["budget"]["epsilon"] == 10 and found["outside"] == list(OUTSIDE)
    assert found["weights"] == json.loads((tmp_path / "model.json").read_text(encoding="utf-8"))["weights"]
    asked_for = ("neighbours", "accountant", "mechanism", "noise_multiplier", "steps", "clip", "trust_model", "covers")
    assert all(found[name] for name in asked_for)
    if family == "cgan":
        assert found["steps"] == 12 and found["sampling_rate"] == 16 / 300 and found["accountant"] == "RDP"
        assert found["epsilon"] == max(found["accountants"].values())
    else:
        assert found["steps"] == 1 and "sampling_rate" not in found and found["accountant"] == "analytic Gaussian"
    assert any("differentially private with ε = 10" in note and "collapse watch" in note for note in record.notes)
    told = (tmp_path / "stats.jsonl").read_text(encoding="utf-8") + json.dumps(record.figures)
    assert "real" not in told and "discriminator" not in told, "no figure of real images is logged"
    assert not (tmp_path / "resume.pt").exists(), "it holds the noise"
    with pytest.raises(RefusedError, match="of other weights"):
        read_certificate(tmp_path, "0")
    for damaged in ("{", "[]", "{}"):
        (tmp_path / "certificate.json").write_text(damaged, encoding="utf-8")
        with pytest.raises(DataError, match="is damaged"):
            read_certificate(tmp_path, found["weights"]["generator"])


def test_too_few_patients_and_images_without_patients_are_refused(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    with pytest.raises(DataError, match=r"gan\.dp\.epsilon: 10 with 100 training patients"):
        run(stage_config("cgan"), write_noise(tmp_path / "less", num=200), out)
    inputs = write_noise(tmp_path / "more", num=600)
    table = pd.read_csv(inputs["prepare"] / "manifest.csv", dtype=str).assign(patient_id="")
    table.to_csv(inputs["prepare"] / "manifest.csv", index=False)
    with pytest.raises(DataError, match=r"gan\.dp\.unit: 300 of 300 training images have no patient id"):
        run(stage_config("cgan"), inputs, out)
    run(stage_config("dp-merf", unit="image"), inputs, out)
    certificate = read_certificate(out, read_description(out)["weights"]["generator"])
    assert certificate is not None and certificate["unit"] == "image"


@pytest.mark.parametrize("family", ["cgan", "dp-merf"])
def test_the_cost_of_a_private_training_is_counted_without_a_budget(family: str) -> None:
    config = stage_config(family).gan
    training = noise_training(config, ImageShape((12, 12), 1, 2), Hardware("cpu", "float32"))
    train(training, training.images_per_step, lambda _: None)
    assert training.step == 1


def people(patients: int, each: int = 2) -> pd.DataFrame:
    names = [f"p{number // each}" for number in range(patients * each)]
    return pd.DataFrame({"fold": "0", "image_id": [f"i{n}" for n in range(len(names))], "patient_id": names})


def test_validate_says_what_to_expect_and_refuses_what_cannot_be() -> None:
    gan = validate_gan(SMALL | {"family": "cgan", "num_images": 16 * 100, "dp": {"epsilon": 10}})
    sentence, table = outlook(gan, people(5000))
    assert "ε = 10, δ = 2.0e-05 for each of 5000 patients by 100 looks" in sentence and sentence.endswith("blurred.")
    assert "patients 60,000" in table and "refused" in table
    with pytest.raises(DataError, match="200 training patients"):
        outlook(gan, people(200))
    once = validate_gan(SMALL | {"family": "dp-merf", "dp": {"epsilon": 10}})
    assert "by one look" in outlook(once, people(200))[0]


def test_the_release_evidence_quotes_the_certificate(tmp_path: Path) -> None:
    records = of_a_healthy_generator(tmp_path)
    place, privacy = ReleaseConfig(), PrivacyConfig()
    assert release_verdict(records, place, privacy)["evidence"]["certificate"] is None
    certificate = {"unit": "patient", "epsilon": 2.5, "delta": 1e-5}
    for record in records:
        if record.kind == "attack":
            record.extra["certificate"] = certificate
    found = release_verdict(records, place, privacy)
    assert found["evidence"]["certificate"] == certificate
    said = "differentially private besides: ε = 2.50 and δ = 1.0e-05 for each patient"
    assert found["decision"] != "release" or any(said in reason for reason in found["reasons"])


def test_the_report_shows_what_the_certificate_promises_and_what_not() -> None:
    certificate = {
        "unit": "patient", "epsilon": 2.5, "delta": 1e-5, "sampling_rate": 0.0136, "outside": ["Tuning", "Preparation"],
    }  # fmt: skip
    run_of: Any = SimpleNamespace(verdict={"release": {"evidence": {"certificate": certificate}}})
    table = certificate_table(run_of)
    assert table is not None
    assert dict(table.rows) == {
        "Unit": "patient", "ε": "2.5", "δ": "1e-05", "Sampling rate": "0.0136",
        "Outside the promise": "Tuning · Preparation",
    }  # fmt: skip
    assert certificate_table(SimpleNamespace(verdict={"release": {"evidence": {}}})) is None  # type: ignore[arg-type]


def test_validate_says_what_privacy_costs_or_refuses_what_cannot_be_kept(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The command, on the demo's 56 training patients."""
    for costs in (gan_cost, classifier_cost):  # what they say is tested elsewhere, and takes seconds
        monkeypatch.setattr(costs, "estimate", lambda experiment: CostEstimate(1e12, 1.0, 500.0))
    demo = Path(__file__).parents[1] / "configs" / "demo.yaml"
    command = ["validate", str(demo), "--set", "gan.dp={epsilon: 8}", "--set"]
    assert launch([*command, "gan.family=dp-merf"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "Differential privacy: ε = 8, δ = " in said and "for each of 56 patients by one look" in said
    assert launch([*command, "gan.family=cgan"]) == 2
    assert "gan.dp.epsilon: 8 with 56 training patients" in capsys.readouterr().err

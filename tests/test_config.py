"""Loading of experiments: the shipped configs, one-level extends, overrides, and messages that help."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml

from pipeline.config.experiment import DENSENET_SIDE
from pipeline.config.loading import dump_experiment, load_experiment
from pipeline.core.errors import ConfigError
from pipeline.nets.classifiers import make_classifier

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
SMALL = """
data:
  source: {kind: phantom}
  classes: [a, b]
  positive: [b]
"""


def write(folder: Path, text: str, name: str = "study.yaml") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_shipped_config_loads_and_opens_with_its_command(path: Path) -> None:
    experiment = load_experiment(path)
    assert experiment.name == path.stem
    first, second = path.read_text(encoding="utf-8").splitlines()[:2]
    assert f"radaug run configs/{path.name}" in first and second.startswith("# ")
    assert "# Expect:" in path.read_text(encoding="utf-8")


def test_a_resolved_config_loads_to_itself(tmp_path: Path) -> None:
    experiment = load_experiment(CONFIGS / "liver-64.yaml")
    assert load_experiment(write(tmp_path, dump_experiment(experiment))) == experiment


def test_extends_merges_one_level_and_overrides_win(tmp_path: Path) -> None:
    write(tmp_path, SMALL + "gan: {num_images: 10, batch_size: 8}", "base.yaml")
    path = write(tmp_path, "extends: base.yaml\ngan: {num_images: 20}\nseed: 4")
    experiment = load_experiment(path, ["seed=5", "classifier.steps=7", "arms=[real+classical]"])
    assert (experiment.name, experiment.seed) == ("study", 5)
    assert (experiment.gan.num_images, experiment.gan.batch_size) == (20, 8)
    assert experiment.classifier.steps == 7 and experiment.arms == ("real+classical",)


def test_a_run_is_called_as_its_file_in_letters_that_every_system_takes(tmp_path: Path) -> None:
    assert load_experiment(write(tmp_path, SMALL, "Röntgen Thorax (2024).yaml")).name == "Rontgen-Thorax-2024"


def test_keys_of_older_configurations_are_taken_to_their_place_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write(tmp_path, SMALL + "gan: {family: vae, samples_per_class: 9, truncation_psi: 0.7}")
    old = load_experiment(path, ["gan.samples_per_class=10"])
    assert (old.synthesis.samples_per_class, old.synthesis.truncation_psi) == (10, 0.7)
    assert "gan.truncation_psi is synthesis.truncation_psi now" in caplog.text


def test_a_source_of_another_kind_replaces_the_bases(tmp_path: Path) -> None:
    write(tmp_path, SMALL.replace("{kind: phantom}", "{kind: phantom, cysts: 5}"), "base.yaml")
    path = write(tmp_path, "extends: base.yaml\ndata: {source: {kind: npz, path: x.npz}}")
    assert load_experiment(path).data.source.kind == "npz"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("data: {spatial_sise: 32}", "data.spatial_sise: there is no such key. Did you mean spatial_size?"),
        ("gan: {num_image: 3}", "\n  gan.num_image: there is no such key. Did you mean num_images?"),
        (
            "gan: {samples_per_class: 9}\nsynthesis: {samples_per_class: 8}",
            "samples_per_class stands under gan: and under synthesis:. Remove gan.samples_per_class.",
        ),
        ("synthesis: {truncation_psi: 0}", "synthesis.truncation_psi: "),
        ("gan: {family: stylegan9}", "gan.family: must be one of biggan, cgan, "),
        ("gan: {family: stylegan9}", "; did you mean stylegan2? (found 'stylegan9')"),
        (
            "data: {spatial_size: 28}\nclassifier: {network: densenet121}",
            "needs a side of 29; data.spatial_size has one of 28",
        ),
        ("data: {positive: [c]}", "positive must name some, but not all, of ['a', 'b']"),
        ("data: {positive: [a, b]}", "positive must name some, but not all"),
        ("data: {window: [250, -100]}", "low < high"),
        ("data: {spatial_size: [32, 32, 32]}", "spatial_size needs one number, or 2 of them"),
        ("data: {split: {val: 0.6, test: 0.5}}", "leave nothing to train on"),
        ("data: {split: {kind: column}}", "phantoms have none"),
        ("arms: [real]", "real+classical must be among the arms"),
        ("arms: [real+classical, real+magic]", "unknown arms: real+magic"),
        ("arms: [real+classical, real+clasical+mixup]", "(did you mean real+classical+mixup?)"),
        ("data: {fit: Padd}", "data.fit: must be one of pad, stretch; did you mean pad? (found 'Padd')"),
        ("classifier: {network: resnet}", "did you mean resnet18? (found 'resnet')"),
        ("data: {source: {kind: fantom}}", "did you mean phantom? (found 'fantom')"),
        ("verdict: {endpoint: auc}", "did you mean auroc?"),
        ("verdict: {arm: real+classical+synthetic@2}", "did you mean real+classical+synthetic@1?"),
        ("release: {fold: 1}", "must name a generator of this run"),
        ("release: {uid_root: 1.2.840.10008.5}", "DICOM's own root"),
        ("release: {uid_root: 1.02.3}", "release.uid_root"),
        ("name: ../up", "name"),
        ("extends: absent.yaml", "there is no such configuration file"),
        ("data: [1", "is not valid YAML"),
        ("- 1", "must be a mapping"),
    ],
)
def test_a_wrong_config_names_the_key_and_the_mend(tmp_path: Path, text: str, message: str) -> None:
    values = yaml.safe_load(SMALL)
    try:
        change = yaml.safe_load(text)
    except yaml.YAMLError:
        change = None
    if isinstance(change, dict) and "extends" not in change:
        for key, value in change.items():
            values[key] = values.get(key, {}) | value if isinstance(value, dict) else value
        text = yaml.safe_dump(values)
    with pytest.raises(ConfigError) as error:
        load_experiment(write(tmp_path, text))
    assert (message in str(error.value) and "study.yaml" in str(error.value)) or "absent.yaml" in str(error.value)
    assert error.value.exit_code == 2


def test_a_chain_of_bases_is_refused(tmp_path: Path) -> None:
    write(tmp_path, SMALL, "first.yaml")
    write(tmp_path, "extends: first.yaml", "second.yaml")
    with pytest.raises(ConfigError, match="One level is allowed"):
        load_experiment(write(tmp_path, "extends: second.yaml"))


def test_an_override_without_a_value_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="key=value"):
        load_experiment(write(tmp_path, SMALL), ["gan.num_images"])


def test_the_smallest_side_that_densenet_is_given_is_the_smallest_that_it_can_take() -> None:
    net = make_classifier("densenet121", spatial_dims=2, channels=1, num_classes=2).eval()
    with torch.no_grad():
        net(torch.zeros(1, 1, DENSENET_SIDE, DENSENET_SIDE))
        with pytest.raises(RuntimeError, match="size"):
            net(torch.zeros(1, 1, DENSENET_SIDE - 1, DENSENET_SIDE))

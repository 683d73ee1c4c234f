"""`gan.start_from`: whose weights a training begins with, and whose images that generator may not have seen."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
import yaml
from noise_data import write_noise
from safetensors.torch import load_file

from flows.cli import launch
from pipeline.adversarial import gan_cost
from pipeline.adversarial.first_run import start_of
from pipeline.adversarial.fit import FitConfig, run, start
from pipeline.adversarial.starting import Start, begin_with, require_strangers
from pipeline.config.families import validate_gan
from pipeline.core.cost import CostEstimate
from pipeline.core.errors import ConfigError, DataError, LeakageError
from pipeline.data.cohort.folds import open_fold
from pipeline.supervised import classifier_cost

CLASSES = ("normal", "disease")
SMALL = {
    "family": "cgan", "num_images": 32, "batch_size": 16, "generator_width": 4, "discriminator_width": 4,
    "latent_dim": 4, "embedding_dim": 4, "snapshots": 1, "checkpoints": 1, "watch": {"checks": 0}, "group_norm": True,
}  # fmt: skip


def config(classes: tuple[str, ...] = CLASSES, begins: Start | None = None, **gan: Any) -> FitConfig:
    return FitConfig(
        gan=validate_gan(SMALL | gan), classes=classes, positive=("disease",), fold=0, gan_seed=0, seed=3, device="cpu",
        precision="float32", deterministic=False, start=begins,
    )  # fmt: skip


def strangers(root: Path, num: int = 48) -> dict[str, Path]:
    """The data set of another hospital: no image of it is in `write_noise`'s own."""
    inputs = write_noise(root, num=num)
    table = pd.read_csv(inputs["split"] / "manifest.csv", dtype=str)
    table.assign(pixel_digest="other " + table["pixel_digest"]).to_csv(inputs["split"] / "manifest.csv", index=False)
    return inputs


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run directory as far as `start_from` reads it."""
    root = tmp_path_factory.mktemp("public")
    inputs, run_dir = strangers(root / "data"), root / "run"
    place = run_dir / "checkpoints" / "fold-0-gan-0"
    place.mkdir(parents=True)
    run(config(), inputs, place)
    shutil.copytree(inputs["split"], run_dir / "stages" / "split")
    data = {"source": {"kind": "csv", "path": "labels.csv"}, "classes": [*CLASSES], "positive": ["disease"]}
    (run_dir / "config.yaml").write_text(yaml.safe_dump({"name": "public", "data": data, "gan": SMALL}))
    return run_dir


def begins(finished: Path, **gan: Any) -> Start:
    found = start_of(validate_gan(SMALL | gan | {"start_from": str(finished)}))
    assert found is not None
    return found


def test_a_training_begins_with_the_other_weights(finished: Path, tmp_path: Path) -> None:
    inputs = write_noise(tmp_path / "own", num=48)
    dataset = open_fold(inputs["prepare"], inputs["split"], 0)
    rows = dataset.rows([f"image-{number}" for number in range(24)])
    training, _ = start(config(begins=begins(finished)), dataset, rows)
    for name in ("generator", "discriminator"):
        theirs = load_file(finished / "checkpoints" / "fold-0-gan-0" / f"{name}.safetensors")
        own = training.context.nets[name].state_dict()
        assert all(torch.equal(own[key], value) for key, value in theirs.items())
    averaged = training.ema.nets["generator"].state_dict()
    theirs = load_file(finished / "checkpoints" / "fold-0-gan-0" / "generator.safetensors")
    assert all(torch.equal(averaged[key], value) for key, value in theirs.items())


def test_other_classes_are_learned_afresh(finished: Path, tmp_path: Path) -> None:
    """Three classes instead of two: what has their number in its shape stays random, all else is taken."""
    three = start(config((*CLASSES, "x")), *_own(tmp_path))[0].context.nets
    before = {name: {key: value.clone() for key, value in net.state_dict().items()} for name, net in three.items()}
    taken, kept = begin_with(begins(finished), three), 0
    for name, net in three.items():
        theirs = load_file(finished / "checkpoints" / "fold-0-gan-0" / f"{name}.safetensors")
        for key, value in net.state_dict().items():
            alike = value.shape == theirs[key].shape
            assert torch.equal(value, theirs[key] if alike else before[name][key])
            kept += not alike
    assert kept == 2 and taken == sum(map(len, before.values())) - 2, "an embedding of classes in each net"


def _own(root: Path) -> tuple[Any, Any]:
    inputs = write_noise(root, num=48)
    dataset = open_fold(inputs["prepare"], inputs["split"], 0)
    return dataset, dataset.rows([f"image-{number}" for number in range(24)])


def test_nets_that_are_made_otherwise_are_refused(finished: Path, tmp_path: Path) -> None:
    for changes in ({"generator_width": 8}, {"latent_dim": 32}, {"discriminator_width": 8}):
        with pytest.raises(ConfigError, match="is made otherwise"):
            start(config(begins=begins(finished), **changes), *_own(tmp_path / next(iter(changes))))
    with pytest.raises(ConfigError, match=r"gan\.group_norm true"):
        start(config(begins=begins(finished), group_norm=False), *_own(tmp_path / "batch"))
    with pytest.raises(ConfigError, match=r"of the family cgan, and gan\.family is gan"):
        start_of(validate_gan(SMALL | {"family": "gan", "start_from": str(finished)}))
    with pytest.raises(ConfigError, match="holds no finished run's generator"):
        start_of(validate_gan(SMALL | {"start_from": str(tmp_path)}))
    changed = tmp_path / "changed"
    shutil.copytree(finished, changed)
    (changed / "checkpoints" / "fold-0-gan-0" / "generator.safetensors").write_bytes(b"other")
    with pytest.raises(DataError, match=r"generator\.safetensors does not match"):
        start(config(begins=begins(changed)), *_own(tmp_path / "own"))
    description = changed / "checkpoints" / "fold-0-gan-0" / "model.json"
    description.write_text(json.dumps(json.loads(description.read_text()) | {"started_from": "abc"}))
    with pytest.raises(ConfigError, match="Name that first run"):
        begins(changed)


def test_an_image_that_it_may_not_have_seen_is_a_leak(finished: Path, tmp_path: Path) -> None:
    """The other run's training images are image-0 to image-23; `write_noise` trains on the first half of 48 too."""
    own = write_noise(tmp_path / "own", num=48)
    start_at = begins(finished)
    require_strangers(start_at, own["split"], 0, private=True)
    place = own["split"] / "manifest.csv"
    table = pd.read_csv(place, dtype=str)
    for row, private, part in ((30, False, "val"), (47, False, "test"), (3, True, "training")):
        digests = table["pixel_digest"].to_list()
        digests[row] = "other image-5"
        table.assign(pixel_digest=digests).to_csv(place, index=False)
        with pytest.raises(LeakageError, match=f"1 of this run's {part} images"):
            require_strangers(start_at, own["split"], 0, private=private)
        with pytest.raises(LeakageError):
            run(config(begins=start_at, **({"dp": {"epsilon": 10}} if private else {})), own, tmp_path)
    require_strangers(start_at, own["split"], 0, private=False)  # training images may be the same without a promise


def test_validate_says_whose_weights_and_refuses_a_leak(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RADAUG_CACHE", str(tmp_path / "cache"))
    for costs in (gan_cost, classifier_cost):  # what they say is tested elsewhere, and takes seconds
        monkeypatch.setattr(costs, "estimate", lambda experiment: CostEstimate(1e12, 1.0, 500.0))
    demo = Path(__file__).parents[1] / "configs" / "demo.yaml"
    settings = [token for name, value in SMALL.items() if isinstance(value, str | int | bool)
                for token in ("--set", f"gan.{name}={str(value).lower()}")]  # fmt: skip
    for kind in ("cysts", "metastases", "haemangiomas"):
        settings += ["--set", f"data.source.{kind}=18"]
    command = ["validate", str(demo), *settings, "--set", f"gan.start_from={finished}"]
    assert launch(command) == 0
    assert "whose images count as public" in " ".join(capsys.readouterr().out.split())
    (split,) = (tmp_path / "cache").glob("split-*")
    mine = pd.read_csv(split / "splits.csv", dtype=str)
    tested = mine.loc[mine["split"] == "test", "image_id"].iloc[0]
    own = pd.read_csv(split / "manifest.csv", dtype=str).set_index("image_id")["pixel_digest"]
    seen = tmp_path / "seen"
    shutil.copytree(finished, seen)
    place = seen / "stages" / "split" / "manifest.csv"
    table = pd.read_csv(place, dtype=str)
    table.loc[table["image_id"] == "image-0", "pixel_digest"] = own[tested]
    table.to_csv(place, index=False)
    assert launch([*command[:-1], f"gan.start_from={seen}"]) == 3
    assert "1 of this run's test images" in capsys.readouterr().err


def test_the_certificate_says_that_the_first_weights_are_outside(finished: Path, tmp_path: Path) -> None:
    inputs = write_noise(tmp_path / "own", num=600)
    record = run(config(begins=begins(finished), dp={"epsilon": 10, "discriminator_steps": 2}), inputs, tmp_path)
    digest = begins(finished).weights["generator"]
    assert digest in json.loads((tmp_path / "certificate.json").read_text())["outside"][-1]
    described = (tmp_path / "model.json").read_text()
    assert json.loads(described)["started_from"] == digest and str(finished) not in described
    assert any(digest[:12] in note and "count as public" in note for note in record.notes)

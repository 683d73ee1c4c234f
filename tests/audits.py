"""Images that a generator shows, and the records that an audit of them leaves."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pipeline.config.privacy import PrivacyConfig
from pipeline.core.records import Record
from pipeline.data.batches.dataset import open_dataset
from pipeline.privacy import attack_stage, memorisation

CLASSES = ("normal", "disease")
DEFAULT = PrivacyConfig()


def fresh(number: int, seed: int = 9) -> np.ndarray:
    """Noise of the data set's own kind: a generator that remembers nobody."""
    random = np.random.default_rng(seed)
    bright = 100 * (np.arange(number) % 2).reshape(-1, 1, 1, 1)
    return (random.integers(0, 120, (number, 1, 12, 12)) + bright).astype(np.uint8)


def shown(inputs: dict[str, Path], root: Path, images: np.ndarray, weights: str = "w1") -> dict[str, Path]:
    """The inputs with `images` in the place of a generator's, and the description of a generator of these weights."""
    places = {name: root / name for name in ("synthesise", "fit-gan")}
    for place in places.values():
        place.mkdir(parents=True)
    np.save(places["synthesise"] / "images.npy", images)
    table = pd.DataFrame({"image_id": [f"s{i}" for i in range(len(images))], "label": "normal", "patient_id": ""})
    table.assign(weights_digest="w1").to_csv(places["synthesise"] / "manifest.csv", index=False)
    scaling = open_dataset(inputs["prepare"]).scaling.as_json()
    Record(kind="synthesise", extra={"scaling": scaling}).save(places["synthesise"])
    described = {"weights": {"generator": weights}, "gan": {"family": "sngan", "attributes": []}}
    (places["fit-gan"] / "model.json").write_text(json.dumps(described), encoding="utf-8")
    return inputs | places


def config(attack: str = "distance", **privacy: Any) -> attack_stage.AttackConfig:
    return attack_stage.AttackConfig(
        attack=attack, privacy=PrivacyConfig(**privacy), fold=0, gan_seed=0, pool=False, seed=3, device="cpu",
        precision="float32",
    )  # fmt: skip


def audited(inputs: dict[str, Path], root: Path) -> list[Record]:
    """Records of the default attacks and of memorisation, as the cache would leave them."""
    made = []
    digests = {"prepare": "p", "split": "s", "synthesise": "y"}
    for attack in DEFAULT.attacks:
        out = root / attack
        out.mkdir()
        record = attack_stage.run(config(attack), inputs, out)
        inputs_of = digests | {"fit-gan": "g"}
        made.append(replace(record, fold=0, gan_seed=0, variant=attack, inputs=inputs_of))
    out = root / "privacy"
    out.mkdir()
    look = memorisation.MemorisationConfig(classes=CLASSES, fold=0, gan_seed=0, seed=0, pool=False)
    return [*made, replace(memorisation.run(look, inputs, out), fold=0, gan_seed=0, inputs=digests)]


def write_stages(run: Path, records: Iterable[Record], inputs: dict[str, Path], weights: str) -> None:
    """Lay the records into a run's stages as those of a generator of these weights, beside its data and its split."""
    trained = Record("fit-gan", fold=0, gan_seed=0, digest="g", inputs={"prepare": "p", "split": "s"})
    for record in (trained, *records):
        place = run / "stages" / record.name
        place.mkdir(parents=True)
        extra = record.extra | ({"weights": weights} if record.kind == "attack" else {})
        replace(record, extra=extra).save(place)
    for name in ("prepare", "split"):
        shutil.copytree(inputs[name], run / "stages" / name)
    Record("split").save(run / "stages" / "split")


def of_a_healthy_generator(root: Path) -> list[Record]:
    """An audit of a generator that shows fresh images."""
    from noise_data import write_noise

    return audited(shown(write_noise(root / "data", num=300), root, fresh(200)), root)

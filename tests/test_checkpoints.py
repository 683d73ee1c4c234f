"""A checkpoint is taken up whole or not at all: after a failed load the training is a fresh one, bit for bit."""

from __future__ import annotations

import copy
import io
import logging
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from pipeline.adversarial.assembly import assemble
from pipeline.adversarial.checkpoints import CheckpointError, take_up
from pipeline.adversarial.log import load_resume, save_resume
from pipeline.adversarial.loop import GanTraining, train
from pipeline.adversarial.rollback import GOOD, Collapsed, Watch
from pipeline.adversarial.weights import MODEL, load_net, read_description
from pipeline.config.families import validate_gan
from pipeline.config.gan import WatchConfig
from pipeline.core.compute import Hardware
from pipeline.core.errors import DataError
from pipeline.data.batches.scaling import Scaling
from pipeline.data.batches.streams import StoredImages
from pipeline.nets.sizes import ImageShape

FAMILIES = {"cyclegan": {"buffer": 4}, "stylegan2": {"ada": {"target": 0.6, "num_images": 100}}, "wgan": {}}
"""One that keeps images, one with running means, schedules and lazy terms, one with RMSprop."""
Change = Callable[[dict[str, Any]], object]


def training_of(family: str) -> GanTraining:
    gan = validate_gan(
        {"family": family, "num_images": 64, "batch_size": 8, "latent_dim": 6, "embedding_dim": 4,
         "generator_width": 4, "discriminator_width": 4} | FAMILIES[family]
    )  # fmt: skip
    images = torch.randint(0, 255, (12, 1, 12, 12), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    label = torch.arange(12) % 3
    stored = StoredImages(images, label, Scaling(1.0, 0.0, "none", (0.0, 255.0), "uint8"))
    return assemble(gan, stored, ImageShape((12, 12), 1, 3, positive=(2,)), Hardware("cpu", "float32"), seed=3)


def steps(training: GanTraining, num: int) -> None:
    train(training, training.num_images + num * training.images_per_step, lambda _: None)


def flat(value: Any, name: str = "") -> dict[str, Any]:
    """Every leaf of nested dicts and lists, by name."""
    if isinstance(value, dict | list | tuple):
        pairs = value.items() if isinstance(value, dict) else enumerate(value)
        return {key: leaf for part, inner in pairs for key, leaf in flat(inner, f"{name}/{part}").items()}
    return {name: value.clone() if isinstance(value, Tensor) else value}


def differing(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    assert one.keys() == other.keys()
    return [
        name
        for name, value in one.items()
        if not (torch.equal(value, other[name]) if isinstance(value, Tensor) else value == other[name])
    ]


@pytest.fixture(scope="module", params=list(FAMILIES))
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def saved(family: str, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The resume file of a training after three steps, with the memory of a watch."""
    training = training_of(family)
    steps(training, 3)
    path = tmp_path_factory.mktemp("saved") / "resume.pt"
    save_resume(path, training, watch_of(path.parent))
    return path.read_bytes()


def watch_of(folder: Path) -> Watch:
    return Watch(WatchConfig(), None, folder, name="GAN", total=64, seed=3)


def without(saved: bytes, member: str) -> bytes:
    """The archive without the members whose name ends like that."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(saved)) as old, zipfile.ZipFile(out, "w") as new:
        names = [name for name in old.namelist() if not name.endswith(member)]
        assert len(names) < len(old.namelist())
        for name in names:
            new.writestr(name, old.read(name))
    return out.getvalue()


def damaged(saved: bytes) -> dict[str, bytes]:
    size = len(saved)
    cuts = {f"cut at {place}": saved[:place] for place in (0, 1, 100, *range(size // 9, size, size // 9), size - 1)}
    members = ("data.pkl", "/data/0", "/data/7", "/data/20", "version")
    gone = {f"without {member}": without(saved, member) for member in members}
    with zipfile.ZipFile(io.BytesIO(saved)) as archive:
        largest = max((archive.read(name) for name in archive.namelist()), key=len)
    place = saved.index(largest) + len(largest) // 2
    flipped = saved[:place] + bytes([saved[place] ^ 0xFF]) + saved[place + 1 :]
    other = io.BytesIO()
    torch.save([1, 2], other)
    return cuts | gone | {"flipped": flipped, "no archive": b"half a file", "no training": other.getvalue()}


def test_a_damaged_file_leaves_a_fresh_training(
    family: str, saved: bytes, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fresh = training_of(family)
    begun = flat(fresh.state_dict())
    training, watch = training_of(family), watch_of(tmp_path)
    for name, content in damaged(saved).items():
        (tmp_path / "resume.pt").write_bytes(content)
        caplog.clear()
        load_resume(tmp_path / "resume.pt", training, watch)
        assert differing(begun, flat(training.state_dict())) == [], name
        assert "training begins anew" in caplog.text, name
    steps(training, 2)
    steps(fresh, 2)
    assert differing(flat(fresh.state_dict()), flat(training.state_dict())) == []
    (tmp_path / "resume.pt").write_bytes(saved)
    with caplog.at_level(logging.INFO):
        load_resume(tmp_path / "resume.pt", training, watch)
    assert "goes on at" in caplog.text
    steps(training, 1)
    steps(fresh, 2)
    assert differing(flat(fresh.state_dict()), flat(training.state_dict())) == []  # four steps in a row


def last(values: dict[str, Any]) -> Any:
    return values[list(values)[-1]]


def set_last(values: dict[str, Any], change: Callable[[Any], Any]) -> None:
    name = list(values)[-1]
    values[name] = change(values[name])


def moments(state: dict[str, Any]) -> dict[str, Any]:
    """What the last player's optimiser remembers of the last weight that it has moved."""
    remembered: dict[str, Any] = last(last(state["stepper"])["state"])
    return remembered


WRONG: dict[str, Change] = {
    "a shape of the last net": lambda s: set_last(last(s["nets"]), lambda v: torch.zeros(*v.shape, 2)),
    "a dtype of the last net": lambda s: set_last(last(s["nets"]), lambda v: v.double().half()),
    "a key too few": lambda s: last(s["nets"]).popitem(),
    "a key too many": lambda s: last(s["nets"]).update(new=torch.zeros(1)),
    "no mean": lambda s: s["ema"].pop("nets"),
    "a shape of the mean": lambda s: set_last(last(s["ema"]["nets"]), lambda v: torch.zeros(*v.shape, 2)),
    "a net's name": lambda s: s["nets"].update(other=s["nets"].pop("generator")),
    "no stepper": lambda s: s.pop("stepper"),
    "an optimiser's shape": lambda s: set_last(moments(s), lambda v: torch.zeros(*v.shape, 3)),
    "an optimiser's memory": lambda s: moments(s).popitem(),
    "an optimiser's weights": lambda s: last(s["stepper"])["param_groups"][0]["params"].pop(),
    "an optimiser's rate": lambda s: last(s["stepper"])["param_groups"][0].update(lr="fast"),
    "a weight too many": lambda s: last(s["stepper"])["state"].update({10_000: moments(s)}),
    "a stream": lambda s: s["streams"].clear(),
    "a position": lambda s: last(s["streams"])["position"].__setitem__(0, 99),
    "an order": lambda s: last(s["streams"])["order"].__setitem__(0, torch.tensor([0])),
    "a turn": lambda s: last(s["streams"]).update(turn=7),
    "a stream's random state": lambda s: last(s["streams"]).update(random=torch.zeros(3, dtype=torch.uint8)),
    "the random state": lambda s: s.update(random=torch.zeros(5056, dtype=torch.uint8)),
    "no random state": lambda s: s.pop("random"),
    "a count": lambda s: s.update(num_images="24"),
    "a table": lambda s: s.update(nets=3),
    "figures": lambda s: s.update(figures={"loss": "low"}),
    "no watch": lambda s: s.pop("watch"),
    "the watch's memory": lambda s: s["watch"].update(streak="two"),
    "the watch's rows": lambda s: s["watch"].update(rows=[{"finding": "good"}]),
}
OF_STATES: dict[str, Change] = {
    "no state": lambda s: s["states"].popitem(),
    "a state's key": lambda s: last(s["states"]).popitem(),
    "a state's shape": lambda s: last(s["states"]).update({key: torch.zeros(2, 3) for key in last(s["states"])}),
    "a state's dtype": lambda s: set_last(last(s["states"]), lambda v: v.to(torch.complex64)),
}


def test_a_checkpoint_of_another_form_leaves_a_fresh_training(
    family: str, saved: bytes, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    right = torch.load(io.BytesIO(saved), weights_only=True)
    training, watch = training_of(family), watch_of(tmp_path)
    begun = flat(training.state_dict())
    for name, change in (WRONG | (OF_STATES if right["states"] else {})).items():
        state = copy.deepcopy(right)
        change(state)
        torch.save(state, tmp_path / "resume.pt")
        caplog.clear()
        load_resume(tmp_path / "resume.pt", training, watch)
        assert differing(begun, flat(training.state_dict())) == [], name
        assert "training begins anew" in caplog.text and watch.memory == watch_of(tmp_path).memory, name


def test_another_familys_checkpoint_is_refused() -> None:
    training = training_of("wgan")
    with pytest.raises(CheckpointError, match="another training"):
        take_up(training, training_of("cyclegan").state_dict())


def test_a_good_state_that_cannot_be_read_changes_nothing_and_says_so(tmp_path: Path) -> None:
    training, watch = training_of("wgan"), watch_of(tmp_path)
    steps(training, 2)
    watch.memory.good_at = 8
    (tmp_path / GOOD).write_bytes(b"half a file")
    before = flat(training.state_dict())
    with pytest.raises(DataError, match=r"collapsed \(similarity 0\.95\).*cannot be read.*run again"):
        watch.go_back(training, Collapsed("similarity 0.95"))
    assert differing(before, flat(training.state_dict())) == []


@pytest.mark.parametrize("content", [None, '{"gan": {"fam', "[]", "{}"])
def test_a_generators_description_that_is_none_is_named(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / MODEL).write_text(content)
    for read in (read_description, lambda folder: load_net(folder, "generator")):
        with pytest.raises(DataError, match=r"model\.json: is missing or damaged; train this generator again"):
            read(tmp_path)

"""Every family in 2D and 3D against the same demands."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from pipeline.adversarial.assembly import assemble
from pipeline.adversarial.condition_sampler import ConditionSampler
from pipeline.adversarial.families import FAMILIES
from pipeline.adversarial.fit import fit_config
from pipeline.adversarial.loop import GanTraining, sample, train
from pipeline.adversarial.weights import load_net, save_nets
from pipeline.config.families import family_module, validate_gan
from pipeline.config.gan import GanConfig
from pipeline.config.loading import dump_experiment, validate_experiment
from pipeline.core.compute import Hardware
from pipeline.core.cost import FlopCount
from pipeline.core.errors import ConfigError
from pipeline.data.batches.scaling import Scaling
from pipeline.data.batches.streams import StoredImages
from pipeline.nets.conditions import Condition
from pipeline.nets.sizes import ImageShape

NAMES = tuple(FAMILIES)
OF_THE_FIELD = {
    "gan", "dcgan", "cgan", "wgan", "wgan-gp", "sngan", "sagan", "biggan", "progan", "stylegan2", "cyclegan", "cogan",
    "pix2pix", "spade", "vae", "vae-gan", "ssgan", "s3gan",
}  # fmt: skip
SIZES = {2: (12, 12), 3: (8, 9, 10)}
BATCH, CLASSES = 4, 3
DATA = {"source": {"kind": "phantom"}, "spatial_dims": 2, "classes": ["cyst", "metastasis"], "positive": ["metastasis"]}
grid = pytest.mark.parametrize("dims", [2, 3])
every_family = pytest.mark.parametrize("name", NAMES)


def tiny(name: str, **changes: Any) -> GanConfig:
    values = {
        "family": name, "num_images": 1000, "batch_size": BATCH, "latent_dim": 6, "embedding_dim": 4,
        "generator_width": 4, "discriminator_width": 4,
    }  # fmt: skip
    return validate_gan(values | changes)


def stored(size: tuple[int, ...], attributes: int = 0, num: int = 12) -> StoredImages:
    random = torch.Generator().manual_seed(1)
    return StoredImages(
        stored=torch.randint(0, 255, (num, 1, *size), generator=random, dtype=torch.uint8),
        label=torch.arange(num) % CLASSES,
        scaling=Scaling(1.0, 0.0, "none", (0.0, 255.0), "uint8"),
        masks=torch.randint(0, 2, (num, 1, *size), generator=random, dtype=torch.uint8),
        attributes=torch.randn(num, attributes, generator=random) if attributes else None,
    )


def training_of(name: str, size: tuple[int, ...], seed: int = 3, **changes: Any) -> GanTraining:
    config = tiny(name, **changes)
    shape = ImageShape(size, 1, CLASSES, len(config.attributes), positive=(2,))
    return assemble(config, stored(size, len(config.attributes)), shape, Hardware("cpu", "float32"), seed)


def asked(name: str, size: tuple[int, ...], attributes: int = 0) -> tuple[torch.Tensor, Condition]:
    """Noise and the condition for two images a class."""
    random = torch.Generator().manual_seed(5)
    sampler = ConditionSampler(stored(size, attributes), FAMILIES[name].needs, positive=(2,))
    label = torch.arange(CLASSES).repeat_interleave(2)
    return torch.randn(len(label), 6, generator=random), sampler.sample(label, random)


def steps(training: GanTraining, num: int) -> None:
    train(training, training.num_images + num * training.images_per_step, lambda _: None)


def everything(training: GanTraining) -> dict[str, torch.Tensor]:
    """All tensors of a training, by name."""
    found: dict[str, torch.Tensor] = {}

    def collect(prefix: str, value: Any) -> None:
        if isinstance(value, torch.Tensor):
            found[prefix] = value.clone()
        elif isinstance(value, dict):
            for key, part in value.items():
                collect(f"{prefix}.{key}", part)
        elif isinstance(value, list):
            for number, part in enumerate(value):
                collect(f"{prefix}.{number}", part)

    collect("", training.state_dict())
    return found


def parameters(training: GanTraining) -> dict[str, torch.Tensor]:
    return {
        f"{net}.{name}": value.detach().clone()
        for net, module in training.context.nets.items()
        for name, value in module.named_parameters()
    }


def test_the_table_finds_the_families_of_the_field() -> None:
    assert set(NAMES) >= OF_THE_FIELD and list(NAMES) == sorted(NAMES) and len(FAMILIES) == len(NAMES)
    assert "stylegan3" not in FAMILIES
    for name, family in FAMILIES.items():
        assert family.name == name and family.source and family.dimensions == (2, 3) and family.conditions


def test_a_family_is_one_short_file() -> None:
    folder = Path(__file__).parents[1] / "pipeline" / "adversarial" / "families"
    files = {name: folder / f"{name.replace('-', '_')}.py" for name in OF_THE_FIELD}
    lengths = sorted(len(path.read_text(encoding="utf-8").splitlines()) for path in files.values())
    assert lengths[-1] <= 65 and lengths[len(lengths) // 2] <= 47


def test_the_page_says_of_a_family_what_its_file_says() -> None:
    page = (Path(__file__).parents[1] / "docs" / "families.md").read_text(encoding="utf-8")
    for name in OF_THE_FIELD:
        what = str(family_module(name).__doc__).splitlines()[0].rstrip(".")
        family = FAMILIES[name]
        assert f"| `{name}` | {what} | {', '.join(family.conditions)} | {family.note} |" in page, name


@every_family
def test_a_resolved_configuration_keeps_the_keys_of_its_family(name: str) -> None:
    gan = tiny(name)
    experiment = validate_experiment({"name": "x", "data": DATA, "gan": gan.model_dump(mode="json")}, "here")
    assert type(experiment.gan) is type(gan) and experiment.gan == gan
    for values in (experiment.model_dump()["gan"], yaml.safe_load(dump_experiment(experiment))["gan"]):
        assert set(values) == set(type(gan).model_fields)
    assert fit_config(experiment, 0, 0).model_dump(mode="json")["gan"].keys() == type(gan).model_fields.keys()


@grid
@every_family
def test_images_have_the_asked_shape_and_range(name: str, dims: int) -> None:
    for size in {2: [(12, 12), (20, 24), (9, 17)], 3: [(8, 9, 10), (16, 16, 12)]}[dims]:
        training = training_of(name, size)
        z, condition = asked(name, size)
        images = sample(training.context.nets["generator"], z, condition)
        assert images.shape == (6, 1, *size)
        assert torch.isfinite(images).all() and images.abs().max() <= 1
        assert images.std() > 0


@grid
@every_family
def test_a_discriminator_judges_each_image_and_never_squashes(name: str, dims: int) -> None:
    training = training_of(name, SIZES[dims])
    if "discriminator" not in training.context.nets:
        assert "discriminator" in FAMILIES[name].note
        return
    _, condition = asked(name, SIZES[dims])
    judgement = training.context.nets["discriminator"](torch.randn(6, 1, *SIZES[dims]), condition)
    assert len(judgement.logits) == 6 and judgement.logits.ndim <= 2
    for feature in judgement.features:
        assert len(feature) == 6
    modules = [type(module).__name__ for module in training.context.nets["discriminator"].modules()]
    assert "Sigmoid" not in modules


@grid
@every_family
def test_only_the_moving_player_moves_and_with_finite_gradients(name: str, dims: int) -> None:
    training = training_of(name, SIZES[dims])
    steps(training, 1)
    for player in training.recipe.players:
        before = parameters(training)
        training.stepper.move(player, [training.turn(player)], 1, 0)
        after = parameters(training)
        moved = {key for key in before if not torch.equal(before[key], after[key])}
        assert moved, player.name
        assert all(key.split(".")[0] in player.trains for key in moved), player.name
        for net in player.trains:
            gradients = [weight.grad for weight in training.context.nets[net].parameters() if weight.grad is not None]
            assert gradients and all(torch.isfinite(gradient).all() for gradient in gradients), (player.name, net)


@grid
@every_family
def test_every_weight_is_trained_by_some_player(name: str, dims: int) -> None:
    training = training_of(name, (16, 16) if dims == 2 else (16, 16, 16))
    reached: set[str] = set()
    training.num_images = training.total_images - 1  # what grows is grown
    for schedule in training.recipe.schedules:
        schedule(training)
    for player in training.recipe.players:
        for _ in range(2):
            training.stepper.move(player, [training.turn(player)], 1, 0)
            reached |= {
                f"{net}.{key}"
                for net in player.trains
                for key, weight in training.context.nets[net].named_parameters()
                if weight.grad is not None
            }
    assert sorted(set(parameters(training)) - reached) == []


@grid
@every_family
def test_a_seed_is_one_training_whole_or_resumed_and_another_seed_another(name: str, dims: int) -> None:
    """Trainings of the same seed: one of five steps, and one of two steps that a third goes on from."""
    whole, first, second, other = (training_of(name, SIZES[dims], seed=seed) for seed in (3, 3, 3, 4))
    steps(whole, 5)
    steps(first, 2)
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    steps(second, 1)  # what a fresh training has already done must not matter
    steps(other, 1)
    mine, different = everything(second), everything(other)
    weights = [key for key in mine if ".nets.generator" in key and mine[key].ndim > 1]
    assert not all(torch.equal(mine[key], different[key]) for key in weights)
    second.load_state_dict(torch.load(io.BytesIO(file.getvalue()), weights_only=True))
    torch.manual_seed(99)  # nor may the global generator
    steps(second, 3)
    one, two = everything(whole), everything(second)
    assert one.keys() == two.keys()
    assert [key for key in one if not torch.equal(one[key], two[key])] == []


@grid
@every_family
def test_saved_nets_come_back_as_the_same_functions(name: str, dims: int, tmp_path: Path) -> None:
    size = SIZES[dims]
    training = training_of(name, size)
    steps(training, 2)
    nets = {**training.context.nets, **training.ema.nets}
    save_nets(
        tmp_path,
        nets,
        {
            "gan": tiny(name).model_dump(mode="json"), "classes": ["a", "b", "c"], "positive": ["c"],
            "spatial_size": list(size), "channels": 1,
        },
    )  # fmt: skip
    z, condition = asked(name, size)
    expected = sample(nets["generator"], z, condition)
    loaded, _ = load_net(tmp_path, "generator")
    torch.testing.assert_close(sample(loaded, z, condition), expected, atol=1e-5, rtol=1e-4)
    if "discriminator" in nets:
        judge, _ = load_net(tmp_path, "discriminator")
        images = torch.randn(6, 1, *size, generator=torch.Generator().manual_seed(2))
        with torch.no_grad():
            mine = nets["discriminator"].eval()(images, condition).logits
            torch.testing.assert_close(judge(images, condition).logits, mine, atol=1e-4, rtol=1e-3)


@grid
@every_family
def test_each_condition_that_a_family_names_changes_the_image(name: str, dims: int) -> None:
    size, conditions = SIZES[dims], FAMILIES[name].conditions
    attributes = ("size",) if "attributes" in conditions else ()
    training = training_of(name, size, attributes=attributes)
    steps(training, 3)
    generator = training.context.nets["generator"]
    z, condition = asked(name, size, len(attributes))
    base = sample(generator, z, condition)
    flipped = {"class": "label", "attributes": "attributes", "mask": "mask", "source": "source"}
    assert set(conditions) <= set(flipped) and set(FAMILIES[name].needs) <= set(conditions)
    for kind in conditions:
        part = flipped[kind]
        value = getattr(condition, part)
        new = (value + 1) % 2 if part == "label" else -value if part != "mask" else 1 - value
        changed = Condition(**{**vars(condition), part: new})
        assert not torch.allclose(sample(generator, z, changed)[:4], base[:4], atol=1e-6), kind


@pytest.mark.parametrize("name", [name for name in NAMES if FAMILIES[name].private != "embedding"])
def test_networks_are_within_twice_each_others_flops(name: str) -> None:
    """G and D forward on one image against the default family's: any two are at most a factor of 2 apart."""
    assert 2**-0.5 <= forward_flops(name, 2) / forward_flops("sngan", 2) <= 2**0.5


@grid
@every_family
def test_moves_in_bf16_leave_no_autocast_behind(name: str, dims: int) -> None:
    size = SIZES[dims]
    shape = ImageShape(size, 1, CLASSES, positive=(2,))
    training = assemble(tiny(name), stored(size), shape, Hardware("cpu", "bf16"), seed=3)
    steps(training, 2)
    assert not torch.is_autocast_enabled("cpu")
    assert all(value.dtype == torch.float32 for value in parameters(training).values())
    assert all(torch.isfinite(value).all() for value in parameters(training).values())


@grid
@pytest.mark.parametrize("name", ["wgan-gp", "stylegan2", "progan", "cyclegan"])
def test_the_cost_of_families_with_penalties_can_be_counted(name: str, dims: int) -> None:
    training = training_of(name, SIZES[dims])
    with FlopCount() as counter:
        steps(training, 1)
    assert counter.total > 0


def test_flops_are_those_that_torch_counts() -> None:
    from torch.utils.flop_counter import FlopCounterMode

    net, image = torch.nn.Conv3d(2, 3, 3), torch.randn(2, 2, 6, 6, 6)
    with FlopCounterMode(display=False) as reference:
        net(image).sum().backward()
    with FlopCount() as counter:
        net(image).sum().backward()
    assert counter.total == reference.get_total_flops() > 0


def forward_flops(name: str, dims: int) -> float:
    width, size = {2: (32, (32, 32)), 3: (16, (32, 32, 32))}[dims]
    config = validate_gan({"family": name, "generator_width": width, "discriminator_width": width})
    nets, _ = FAMILIES[name].build(config, ImageShape(size, 1, CLASSES, positive=(2,)))
    random = torch.Generator().manual_seed(5)
    sampler = ConditionSampler(stored(size), FAMILIES[name].needs, positive=(2,))
    condition = sampler.sample(torch.tensor([0]), random)
    with FlopCount() as counter, torch.no_grad():
        image = nets["generator"].eval()(torch.randn(1, 64, generator=random), condition)
        if "encoder" in nets:
            nets["encoder"].eval()(image, condition)
        if "discriminator" in nets:
            nets["discriminator"].eval()(image, condition)
    return float(counter.total)


@every_family
def test_attributes_are_refused_where_images_cannot_be_asked_by_them(name: str) -> None:
    gan = {"family": name, "attributes": ["diameter_mm"]}
    experiment = validate_experiment({"name": "x", "data": DATA, "gan": gan, "compute": {"device": "cpu"}}, "test")
    if "attributes" in FAMILIES[name].conditions:
        assert fit_config(experiment, 0, 0).gan.attributes == ("diameter_mm",)
    else:
        with pytest.raises(ConfigError, match=rf"gan.attributes: images of gan.family: {name} cannot be asked"):
            fit_config(experiment, 0, 0)

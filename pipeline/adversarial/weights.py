"""Finished nets as files: safetensors beside a JSON that says how to build them."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn.utils import parametrize

from pipeline.adversarial.cells import classes_a_site
from pipeline.adversarial.condition_sampler import ConditionSampler
from pipeline.adversarial.families import FAMILIES
from pipeline.config.families import validate_gan
from pipeline.core.errors import DataError
from pipeline.core.files import atomic_path, digest_file, read_json, write_json
from pipeline.core.layout import MODEL
from pipeline.nets.conditions import as_generator
from pipeline.nets.sizes import ImageShape

Net = TypeVar("Net", bound=nn.Module)


def folded(net: Net) -> Net:
    """A copy in evaluation mode whose parametrisations (spectral norm) are folded into plain weights."""
    net = copy.deepcopy(net).eval()
    for module in net.modules():
        if parametrize.is_parametrized(module):
            _own_class(module)
            for name in list(module.parametrizations):  # type: ignore[arg-type]
                parametrize.remove_parametrizations(module, name, leave_parametrized=True)
    return net


def _own_class(module: nn.Module) -> None:
    """A copied module shares its parametrised class with the original, whose weights removal would take away too."""
    shared = type(module)
    body = {key: value for key, value in vars(shared).items() if key not in ("__dict__", "__weakref__")}
    module.__class__ = type(shared.__name__, shared.__bases__, body)


def save_nets(out_dir: Path, nets: dict[str, nn.Module], description: dict[str, Any]) -> None:
    """Write each net as NAME.safetensors and `model.json` with `description` and the weights' digests."""
    digests = {}
    for name, net in nets.items():
        path = out_dir / f"{name}.safetensors"
        state = {key: value.detach().cpu().contiguous() for key, value in folded(net).state_dict().items()}
        with atomic_path(path) as temporary:
            save_file(state, temporary)
        digests[name] = digest_file(path)
    write_json(out_dir / MODEL, description | {"weights": digests})


def read_description(directory: Path) -> dict[str, Any]:
    """What `save_nets` was told of the nets in `directory`.

    Raises:
        DataError: it is missing or damaged.
    """
    try:
        description: dict[str, Any] = read_json(directory / MODEL)
        _ = description["weights"], description["gan"]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise DataError(f"{MODEL}: is missing or damaged; train this generator again.") from error
    return description


def has_net(directory: Path, name: str) -> bool:
    """Whether the family of the nets in `directory` has a net of this name."""
    return name in read_description(directory)["weights"]


def load_net(directory: Path, name: str) -> tuple[nn.Module, dict[str, Any]]:
    """Build net `name` from a fit-gan directory, in evaluation mode on the CPU, with its description.

    Raises:
        DataError: the description cannot be read, or the weights are not the ones that it was written with.
    """
    description = read_description(directory)
    path = directory / f"{name}.safetensors"
    if not path.is_file() or digest_file(path) != description["weights"][name]:
        raise DataError(f"{path.name}: does not match {MODEL} beside it; train this generator again.")
    gan = validate_gan(description["gan"])
    shape = ImageShape(
        spatial_size=tuple(description["spatial_size"]),
        channels=int(description["channels"]),
        num_classes=len(description["classes"]),
        num_attributes=len(gan.attributes),
        positive=tuple(description["classes"].index(name) for name in description["positive"]),
        classes_a_site=classes_a_site(gan, description.get("cells", {})),
    )
    nets, _ = FAMILIES[gan.family].build(gan, shape)
    net = folded(nets[name])
    net.load_state_dict(load_file(path))
    return net, description


@torch.no_grad()
def refresh_batch_norm(
    generator: nn.Module, sampler: ConditionSampler, num_classes: int, seed: int, batches: int = 32
) -> None:
    """Give an averaged generator batch-norm statistics of its own ("standing statistics", Brock et al. 2019).

    Averaged weights with the statistics of the last, unaveraged ones make images too flat or too bright.
    """
    norms = [module for module in generator.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    if not norms:
        return
    device = sampler.images.device
    random = torch.Generator().manual_seed(seed)
    kept = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain mean over the batches
    generator.train()
    for _ in range(batches):
        z = torch.randn(64, as_generator(generator).latent_dim, generator=random).to(device)
        generator(z, sampler.sample(torch.arange(64) % num_classes, random))
    for norm, momentum in zip(norms, kept, strict=True):
        norm.momentum = momentum
    generator.eval()

"""Fixed representations: images as vectors that were learnt without reading a label.

None has seen an image of a patient who is kept from training: it is learnt from the fold's labelled and unlabelled
training images, or is that of a GAN of the same fold, or comes from photographs. A GAN that is asked by class has seen
the labels of the training images.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from filelock import FileLock
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.functional import adaptive_max_pool2d, adaptive_max_pool3d

from pipeline.adversarial.activations import activations, image_by_image, under_label
from pipeline.adversarial.families import FAMILIES
from pipeline.adversarial.inversion import residuals
from pipeline.adversarial.weights import load_net
from pipeline.config.arms import Representation, known_arm
from pipeline.config.experiment import Experiment
from pipeline.core.errors import ConfigError, LeakageError
from pipeline.core.files import atomic_path
from pipeline.core.patients import patient_units
from pipeline.core.seeds import derive_seed
from pipeline.data.batches.draws import Draws
from pipeline.data.batches.streams import UNLABELLED, StoredImages, images_at
from pipeline.data.cohort.leakage import SIDES
from pipeline.downstream.feature_models import Encode
from pipeline.downstream.features import TrunkConfig
from pipeline.downstream.material import Material
from pipeline.nets.autoencoders import Autoencoder, ImageEncoder
from pipeline.nets.conditions import Condition, as_generator
from pipeline.nets.extractors import EffNetLite0
from pipeline.nets.sizes import ImageShape
from pipeline.supervised.unlabelled import Loss, evidence_loss, fit_unlabelled

_CELLS = {2: 4, 3: 2}
"""Cells along an axis that a discriminator's layer is pooled to, by spatial dimensions."""


def require_representations(experiment: Experiment) -> None:
    """Refuse representations that the run's GAN cannot give.

    Raises:
        ConfigError: its family has no discriminator, or its generator needs more than noise and a class.
    """
    family = FAMILIES[experiment.gan.family]
    judged = any("discriminator" in player.trains for player in family.recipe(experiment.gan).players)
    for arm in experiment.arms:
        kind = known_arm(arm).representation
        if kind in ("f-anogan", "discriminator") and not judged:
            raise ConfigError(
                f"arms: {arm} looks through the GAN's discriminator, and gan.family: {family.name} has none. Choose "
                "another family, or leave the arm out."
            )
        if kind == "f-anogan" and family.needs:
            raise ConfigError(
                f"arms: {arm} looks for the noise that an image is made from, and the generator of {family.name} makes "
                f"images from {' and '.join(family.needs)}. Choose another gan.family, or leave the arm out."
            )


def images_to_learn_from(material: Material, rows: np.ndarray) -> StoredImages:
    """The images at `rows` without their labels.

    Raises:
        LeakageError: one is of a patient whom the fold validates or tests on.
    """
    held_out = np.concatenate([material.rows(split) for split in SIDES if split != "train"])
    units = patient_units(material.dataset.manifest)
    shared = set(units.iloc[rows]) & set(units.iloc[held_out])
    if shared:
        raise LeakageError(
            f"fold {material.fold}: a representation would be learnt from images of {len(shared)} patient(s) of val, "
            "test or external. Give it the fold's training and unlabelled images alone."
        )
    label = torch.full((len(rows),), UNLABELLED)
    return images_at(material.dataset, rows, label, material.hardware.device)


def _learnt(name: str, net: nn.Module, loss: Loss, trunk: TrunkConfig, material: Material, seed: int) -> nn.Module:
    """`net`, trained by the first process that asks; its weights are kept for the others and for a resumed stage."""
    path = material.parts / f"{name}-{seed}.safetensors"
    with FileLock(material.parts / f".lock-{name}-{seed}"):
        if path.is_file():
            net.load_state_dict(load_file(path))
        else:
            rows = np.concatenate([material.real.rows, material.rows("unlabelled")])
            fit_unlabelled(
                images_to_learn_from(material, rows), net, loss, material.hardware,
                steps=trunk.steps, batch_size=trunk.batch_size, seed=seed, what=f"the encoder of {name}",
            )  # fmt: skip
            with atomic_path(path) as temporary:
                save_file(net.state_dict(), temporary)
    return _frozen(net, material)


def _frozen(net: nn.Module, material: Material) -> nn.Module:
    return net.to(material.hardware.device).eval().requires_grad_(False)


def _new(make: Callable[[], nn.Module], seed: int) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "weights"))
        return make()


def _shape(material: Material) -> ImageShape:
    images = material.dataset.images
    return ImageShape(images.shape[2:], images.shape[1], len(material.classes))


def vae_codes(trunk: TrunkConfig, material: Material, seed: int) -> Encode:
    """Means of the codes, [B, latent_dim] (Kingma & Welling, "Auto-Encoding Variational Bayes", ICLR 2014)."""
    shape = _shape(material)
    net: Any = _new(lambda: Autoencoder(shape, trunk.width, trunk.latent_dim, spread=True), seed)
    net = _learnt("vae", net, lambda images, draws: evidence_loss(net, images, draws), trunk, material, seed)
    return torch.no_grad()(lambda images: net.encoder(images).chunk(2, dim=1)[0])


def f_anogan_codes(trunk: TrunkConfig, material: Material, seed: int) -> Encode:
    """Codes from which the generator makes the images again, [B, latent_dim], under the class that fits best.

    The encoder is trained on the residual in pixels and in the discriminator's features ("izi_f"; Schlegl et al.,
    MedIA 2019). What the class alone says of an image need not be in the code.
    """
    generator, description = _of_gan("generator", material)
    discriminator, _ = _of_gan("discriminator", material)
    made = as_generator(generator)
    encoder = _new(lambda: ImageEncoder(_shape(material), trunk.width, made.latent_dim), seed)

    def loss(images: Tensor, draws: Draws) -> Tensor:
        del draws
        conditions = [_under_class(images, number, description) for number in range(len(description["classes"]))]
        code = encoder(images).float()
        found, _ = residuals(made, lambda one, under: activations(discriminator, one, under), images, code, conditions)
        return found.mean()

    return torch.no_grad()(_learnt("f-anogan", encoder, loss, trunk, material, seed))


def discriminator_features(trunk: TrunkConfig, material: Material, seed: int) -> Encode:
    """All layers of the discriminator, side by side, each max-pooled to 4 x 4 (in 3D 2 x 2 x 2) cells: [B, D].

    Radford, Metz & Chintala, "Unsupervised representation learning with deep convolutional generative adversarial
    networks", ICLR 2016. Every image is looked at under the first class.
    """
    del trunk, seed
    net, description = _of_gan("discriminator", material)

    @torch.no_grad()
    def encode(images: Tensor) -> Tensor:
        layers = activations(net, images, _under_class(images, 0, description))
        return torch.cat([_cells(layer.float()) for layer in layers], dim=1)

    return encode


def _under_class(images: Tensor, number: int, description: dict[str, Any]) -> Condition:
    return under_label(torch.full((len(images),), number, device=images.device), images.shape[2:], description)


def _cells(layer: Tensor) -> Tensor:
    """[B, D, *grid] or [B, D] -> [B, numbers]."""
    if layer.ndim < 4:
        return layer.flatten(1)
    sides = [min(_CELLS[layer.ndim - 2], side) for side in layer.shape[2:]]
    pooled = adaptive_max_pool2d(layer, sides) if layer.ndim == 4 else adaptive_max_pool3d(layer, sides)
    return pooled.flatten(1)


def _of_gan(name: str, material: Material) -> tuple[nn.Module, dict[str, Any]]:
    """A net of the fold's own GAN, with its description."""
    _ = material.generated  # whose fold it checks
    net, description = load_net(material.inputs["fit-gan"], name)
    return _frozen(image_by_image(net), material), description


def effnet_features(trunk: TrunkConfig, material: Material, seed: int) -> Encode:
    """EfficientNet-Lite0's, [B, 1280]; see `EffNetLite0`."""
    del trunk, seed
    return EffNetLite0(material.hardware.device).extract


REPRESENTATIONS: dict[Representation, Callable[[TrunkConfig, Material, int], Encode]] = {
    "vae": vae_codes,
    "f-anogan": f_anogan_codes,
    "discriminator": discriminator_features,
    "effnet": effnet_features,
}

"""Arms on the features of a trunk: the GAN's discriminator, and controls with the same trunk that saw no GAN."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.adversarial.weights import folded, load_net
from pipeline.config.arms import Trunk, known_arm
from pipeline.config.families import GanSettings
from pipeline.config.section import Section
from pipeline.core.compute import autocast, place
from pipeline.core.seeds import derive_seed
from pipeline.data.batches.augmentation import Augmenter
from pipeline.data.batches.dataset import DataSet
from pipeline.data.batches.draws import Draws
from pipeline.data.batches.streams import UNLABELLED, images_at
from pipeline.downstream.feature_models import Predict
from pipeline.downstream.material import Material
from pipeline.nets.classifiers import TrunkClassifier, last_layer, pooled
from pipeline.nets.discriminators import StridedTrunk
from pipeline.supervised.encoders import fit_encoder
from pipeline.supervised.fit import Phase, Regimen, apply_classifier, fit

STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)
"""C of the logistic regression; the best on val is taken, of equals the smallest."""
COPIES = 10
"""How often each training image is seen by the logistic regression, under other classical transforms each time."""
_BATCH = 64
_TRAINED_BEFORE = ("simclr", "autoencoder")


class TrunkConfig(Section):
    """The trunk that the GAN's discriminator has, and how long its controls are trained.

    Attributes:
        width: channels of its first layer.
        steps: of SimCLR, of autoencoders and of f-AnoGAN's encoder, `batch_size` images each.
        latent_dim: numbers of a variational autoencoder's code: as many as the GAN's images are made from.
    """

    width: int
    steps: int
    batch_size: int
    latent_dim: int


def trunk_config(gan: GanSettings, encoder_images: int) -> TrunkConfig:
    """As many steps as the GAN's discriminator has batches of real images; no more images than `encoder_images`."""
    steps = max(1, min(gan.num_images, encoder_images) // gan.batch_size)
    return TrunkConfig(width=gan.discriminator_width, steps=steps, batch_size=gan.batch_size, latent_dim=gan.latent_dim)


def fit_on_features(arm: str, trunk: TrunkConfig, material: Material, seed: int) -> tuple[Predict, dict[str, Any]]:
    """Fit both a logistic regression on frozen features and a fine-tuned network; the better one on val is taken.

    The frozen features are means over the trunk's last grid, standardised; both see balanced classes and the classical
    transforms, and the fine-tuning takes the steps of every other arm.

    Returns:
        What predicts, and facts for the record: which was taken, both AUROCs on val (mean over the classes, each
        against the rest), C, and how many images a control's encoder was shown.
    """
    kind = known_arm(arm).trunk
    assert kind is not None
    net = TRUNKS[kind](trunk, material, seed)
    features = int(net.features)  # type: ignore[arg-type]
    frozen, facts = _frozen(net, material, seed)
    regimen = Regimen(
        (Phase((material.real,), material.config.steps),),
        net=_on_trunk(copy.deepcopy(net), features, material, seed),
    )
    tuned_net = fit(material.config, regimen, material.classes, material.hardware, seed=seed)

    def tuned(dataset: DataSet, rows: np.ndarray) -> np.ndarray:
        return apply_classifier(tuned_net, dataset, rows, material.hardware)

    on_val = {"frozen": val_auroc(frozen, material), "tuned": val_auroc(tuned, material)}
    chosen = max(on_val, key=lambda name: on_val[name])
    facts |= {"chosen": chosen} | {f"val_auroc_{name}": round(value, 4) for name, value in on_val.items()}
    if kind in _TRAINED_BEFORE:
        facts["encoder_images"] = trunk.steps * trunk.batch_size
    return (frozen if chosen == "frozen" else tuned), facts


def val_auroc(predict: Predict, material: Material) -> float:
    """Mean over the classes of the AUROC of each against the rest, on the fold's validation images."""
    rows = material.rows("val")
    return mean_auroc(material.dataset.labels(rows, material.classes).numpy(), predict(material.dataset, rows))


def mean_auroc(label: np.ndarray, scores: np.ndarray) -> float:
    """The same of classes [N] and scores [N, num_classes]."""
    from sklearn.metrics import roc_auc_score

    return float(np.mean([roc_auc_score(label == number, scores[:, number]) for number in range(scores.shape[1])]))


def _frozen(trunk: nn.Module, material: Material, seed: int) -> tuple[Predict, dict[str, Any]]:
    trunk = place(trunk, material.hardware).eval()
    real = material.real
    seeds = [derive_seed(seed, "copy", number) for number in range(COPIES)]
    seen = np.concatenate([_features(trunk, material, real.dataset, real.rows, one) for one in seeds])
    label = np.tile(real.dataset.labels(real.rows, material.classes).numpy(), COPIES)

    def fitted(strength: float) -> Predict:
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler

        regression = LogisticRegression(C=strength, class_weight="balanced", max_iter=5000)
        model = make_pipeline(StandardScaler(), regression).fit(seen, label)
        return lambda dataset, rows: model.predict_proba(_features(trunk, material, dataset, rows, None))

    models = {strength: fitted(strength) for strength in STRENGTHS}
    on_val = {strength: val_auroc(model, material) for strength, model in models.items()}
    best = max(on_val, key=lambda strength: on_val[strength])
    return models[best], {"C": best}


@torch.no_grad()
def _features(trunk: nn.Module, material: Material, dataset: DataSet, rows: np.ndarray, seed: int | None) -> np.ndarray:
    """[len(rows), features] in float64; with a seed, of classically transformed copies."""
    device = material.hardware.device
    augment, draws = Augmenter(material.config.augment), Draws(torch.Generator(device).manual_seed(seed or 0))
    parts: list[Tensor] = []
    for start in range(0, len(rows), _BATCH):
        images = dataset.tensor(rows[start : start + _BATCH]).to(device)
        images = images if seed is None else augment(images, draws)
        with autocast(material.hardware):
            parts.append(pooled(trunk(images)).double().cpu())
    return torch.cat(parts).numpy()


def _on_trunk(trunk: nn.Module, features: int, material: Material, seed: int) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "head"))
        net = TrunkClassifier(trunk, features, len(material.classes))
        last_layer(net).reset_parameters()
    return net.cpu()


def gan_trunk(config: TrunkConfig, material: Material, seed: int) -> nn.Module:
    """The trunk of the generator's discriminator, spectral norm folded in."""
    del config, seed
    discriminator: Any = load_net(material.inputs["fit-gan"], "discriminator")[0]
    trunk: nn.Module = discriminator.trunk
    return trunk


def random_trunk(config: TrunkConfig, material: Material, seed: int) -> nn.Module:
    """The same layers with He's initial weights (ICCV 2015), never trained."""
    images = material.dataset.images
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "trunk"))
        trunk = folded(StridedTrunk(spatial_size=images.shape[2:], channels=images.shape[1], width=config.width))
        for layer in trunk.layers:
            nn.init.kaiming_normal_(layer.weight, a=0.1)  # type: ignore[arg-type]
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    return trunk


def _encoder(kind: Literal["simclr", "autoencoder"]) -> Callable[[TrunkConfig, Material, int], nn.Module]:
    def make(config: TrunkConfig, material: Material, seed: int) -> nn.Module:
        """Trained on the labelled and the unlabelled images of the fold, which the GAN has seen too."""
        trunk: Any = random_trunk(config, material, seed)
        rows = np.concatenate([material.real.rows, material.pool_rows])
        label = torch.full((len(rows),), UNLABELLED)
        images = images_at(material.dataset, rows, label, material.hardware.device)
        return fit_encoder(
            kind, trunk, int(trunk.features), images,
            steps=config.steps, batch_size=config.batch_size, hardware=material.hardware, seed=seed,
        )  # fmt: skip

    return make


TRUNKS: dict[Trunk, Callable[[TrunkConfig, Material, int], nn.Module]] = {
    "gan": gan_trunk,
    "random": random_trunk,
    "simclr": _encoder("simclr"),
    "autoencoder": _encoder("autoencoder"),
}

"""What pages call networks, GAN families and detectors, whose names in files are short."""

from __future__ import annotations

_FAMILIES = {
    "gan": "GAN", "dcgan": "DCGAN", "cgan": "conditional GAN", "wgan": "WGAN", "wgan-gp": "WGAN-GP", "sngan": "SNGAN",
    "sagan": "SAGAN", "biggan": "BigGAN", "progan": "ProGAN", "stylegan2": "StyleGAN2", "cyclegan": "CycleGAN",
    "pix2pix": "pix2pix", "spade": "SPADE", "cogan": "CoGAN", "vae": "VAE", "vae-gan": "VAE-GAN", "ssgan": "SSGAN",
    "s3gan": "S3GAN", "stargan": "StarGAN", "dp-merf": "DP-MERF",
}  # fmt: skip
_NETWORKS = {
    "small_cnn": "small convolutional network", "resnet18": "ResNet-18", "densenet121": "DenseNet-121",
    "efficientnet-lite0": "EfficientNet-Lite0", "logistic": "logistic regression", "forest": "random forest",
    "svm": "linear support vector machine",
}  # fmt: skip
_DETECTORS = {
    "ae": "Autoencoder", "ae-u": "Autoencoder with its own uncertainty (AE-U)", "anogan": "AnoGAN",
    "cutpaste": "CutPaste", "cycle-healthy": "Translation to healthy images", "dae": "Denoising autoencoder",
    "discriminator-average": "Discriminators averaged", "discriminator-features": "Discriminator's features",
    "discriminator-logit": "Discriminator's logit", "discriminator-negatives": "Discriminator with made negatives",
    "ecod": "ECOD", "f-anogan": "f-AnoGAN", "feature-ae": "Autoencoder of features", "ganomaly": "GANomaly",
    "isolation-forest": "Isolation forest", "knn": "Nearest neighbours", "mahalanobis": "Mahalanobis distance",
    "padim": "PaDiM", "patchcore": "PatchCore", "pca": "Principal components (PCA)",
    "perceptual-ae": "Perceptual autoencoder", "simclr-knn": "Nearest neighbours in SimCLR features",
    "vae": "Variational autoencoder", "vae-restoration": "Restoration by a variational autoencoder",
}  # fmt: skip


def family_title(family: str) -> str:
    """Such as `SNGAN`; the family's own name where there is no other."""
    return _FAMILIES.get(family, family)


def network_title(network: str) -> str:
    """Such as `ResNet-18`; the network's own name where there is no other."""
    return _NETWORKS.get(network, network)


def detector_title(name: str) -> str:
    """Such as `Discriminator's logit, through the run's GAN`; an ensemble keeps the name that it was given."""
    own, at, _ = name.partition("@run")
    title = _DETECTORS.get(own, own)
    return f"{title}, through the run's GAN" if at else title


def detector_named(name: str) -> str:
    """The plain name, and the one of the files beside it."""
    title = detector_title(name)
    return name if title == name else f"{title} ({name})"

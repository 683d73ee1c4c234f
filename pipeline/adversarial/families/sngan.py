"""SNGAN: spectral norm, hinge loss, class projection, conditional batch norm (Miyato et al., ICLR 2018)."""

from __future__ import annotations

from typing import Literal

from pipeline.adversarial.family import Family
from pipeline.config.gan import GanConfig


class SnganConfig(GanConfig):
    """Spectrally normalised GAN with hinge loss and projection (Miyato et al. 2018), the default family."""

    family: Literal["sngan"] = "sngan"


FAMILY = Family(
    SnganConfig, source="Miyato et al., Spectral Normalization for GANs, ICLR 2018; Miyato & Koyama, ICLR 2018"
)

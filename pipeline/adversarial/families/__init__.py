"""The table of GAN families: one file and one line each."""

from __future__ import annotations

from pipeline.adversarial.families import (
    biggan,
    cgan,
    cogan,
    cyclegan,
    dcgan,
    gan,
    pix2pix,
    progan,
    s3gan,
    sagan,
    sngan,
    spade,
    ssgan,
    stylegan2,
    vae,
    vae_gan,
    wgan,
    wgan_gp,
)
from pipeline.adversarial.recipe import Family
from pipeline.config.gan import GanConfig

FAMILIES: dict[str, Family] = {
    family.name: family
    for family in (
        gan.FAMILY,
        dcgan.FAMILY,
        cgan.FAMILY,
        wgan.FAMILY,
        wgan_gp.FAMILY,
        sngan.FAMILY,
        sagan.FAMILY,
        biggan.FAMILY,
        progan.FAMILY,
        stylegan2.FAMILY,
        cyclegan.FAMILY,
        cogan.FAMILY,
        pix2pix.FAMILY,
        spade.FAMILY,
        vae.FAMILY,
        vae_gan.FAMILY,
        ssgan.FAMILY,
        s3gan.FAMILY,
    )
}


def learns_from_pool(config: GanConfig) -> bool:
    """Whether the family's recipe reads the stream of unlabelled images."""
    return "unlabelled" in FAMILIES[config.family].recipe(config).streams

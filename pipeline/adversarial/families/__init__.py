"""The table of GAN families: one file and one line each."""

from __future__ import annotations

from pipeline.adversarial.families import sngan
from pipeline.adversarial.recipe import Family

FAMILIES: dict[str, Family] = {family.name: family for family in (sngan.FAMILY,)}

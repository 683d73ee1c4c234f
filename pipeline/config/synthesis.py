"""`synthesis:` — what is drawn from a trained generator. Changing it trains no GAN anew."""

from __future__ import annotations

from pydantic import Field

from pipeline.config.section import Section


class SynthesisConfig(Section):
    """How the synthetic set is drawn.

    Attributes:
        samples_per_class: images of each class.
        truncation_psi: below 1, images are nearer to the mean and less different from each other.
    """

    samples_per_class: int = Field(200, ge=8)
    truncation_psi: float = Field(1.0, gt=0, le=1)

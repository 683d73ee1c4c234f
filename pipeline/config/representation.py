"""`representation:` — fixed representations that are compared with a classifier trained from scratch."""

from __future__ import annotations

from pydantic import Field, field_validator

from pipeline.config.arms import LinearModel, Representation, representation_arm
from pipeline.config.section import Section


class RepresentationConfig(Section):
    """Which representations, and which models on each; every pair is one more arm.

    Attributes:
        of: `vae`, latent means of a variational autoencoder; `f-anogan`, codes for the run's GAN; `discriminator`, the
            features of its layers; `effnet`, EfficientNet-Lite0.
        models: `logistic` regression, `svm` with a linear kernel.
    """

    of: tuple[Representation, ...] = ()
    models: tuple[LinearModel, ...] = Field(("logistic", "svm"), min_length=1)

    @field_validator("of", "models")
    @classmethod
    def _named_once(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(names)) != len(names):
            raise ValueError("one is named twice")
        return names

    @property
    def arms(self) -> tuple[str, ...]:
        """The arms that the section stands for."""
        return tuple(representation_arm(one, model) for one in self.of for model in self.models)

"""`gan.dp:` — differential privacy of the training patients, by what the generator learns through."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from pipeline.config.section import Section

Positive = Annotated[float, Field(gt=0)]


class DpConfig(Section):
    """How much the weights may say of one patient; docs/differential-privacy.md reasons the defaults.

    Attributes:
        epsilon: the budget: training ends before it is exceeded.
        delta: null = a tenth of one in as many as there are training patients.
        unit: whom it protects. `image` is for data without patient ids: a patient with k images then has k times ε.
        clip: how long one patient's gradient may be, of all the discriminator's weights together.
        noise: the noise multiplier; null = as much as makes the budget last for `gan.num_images`.
        discriminator_steps: noisy moves of the discriminator for each of the generator; `adaptive` = 1 at first, and
            more where it tells fewer than three of five fakes.
    """

    epsilon: Positive
    delta: Annotated[float, Field(gt=0, lt=1)] | None = None
    unit: Literal["patient", "image"] = "patient"
    clip: Positive = 1.0
    noise: Positive | None = None
    discriminator_steps: Annotated[int, Field(ge=1)] | Literal["adaptive"] = 10

    @property
    def whole_step(self) -> int:
        """Moves of the discriminator that belong together; of `adaptive` ones each may be the last."""
        return 1 if self.discriminator_steps == "adaptive" else self.discriminator_steps

"""`quality:` — how synthetic images are measured against real ones."""

from __future__ import annotations

from pydantic import Field, field_validator

from pipeline.config.section import Section

EXTRACTORS = ("effnet-lite0", "classifier")


class QualityConfig(Section):
    """What the figures of image quality are made from.

    Attributes:
        extractor: whose features are compared: `effnet-lite0` (ImageNet), `classifier` (the run's own network, fitted
            on real training images) or a TorchScript file `….pt` that maps images [B, C, *spatial] in [-1, 1] to
            features [B, D]; a relative path starts in the data folder.
        classifier_steps: training steps of the classifier that is fitted for the Inception score.
        neighbours: k of precision, recall, density and coverage.
        max_images: above so many images of a set, what needs all pairs of images uses as many, drawn at random.
        pairs: pairs of images of a class for MS-SSIM.
        draws: random parts of both sets that an interval is made from.
    """

    extractor: str = "effnet-lite0"
    classifier_steps: int = Field(200, ge=1)
    neighbours: int = Field(5, ge=1)
    max_images: int = Field(10_000, ge=100)
    pairs: int = Field(200, ge=1)
    draws: int = Field(20, ge=5)

    @field_validator("extractor")
    @classmethod
    def _known(cls, extractor: str) -> str:
        if extractor not in EXTRACTORS and not extractor.endswith(".pt"):
            raise ValueError(f"must be {' or '.join(EXTRACTORS)}, or the path of a TorchScript file that ends in .pt")
        return extractor

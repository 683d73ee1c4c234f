"""Random transforms of images, for classifiers and discriminators alike."""

from __future__ import annotations

from pydantic import Field, model_validator

from pipeline.config.section import Section


class AugmentConfig(Section):
    """Batched random transforms on the device. Every strength is a half-range; 0 switches a transform off.

    Attributes:
        brightness: added to images in [-1, 1].
        contrast: factor about the image's own mean, 1 - c to 1 + c.
        gamma: the image (mapped to [0, 1]) to the power exp(-g .. g).
        shift: fraction of the side, in whole voxels, filled by reflection.
        rotate_degrees: about the centre (in 3D about every axis).
        scale: factor 1 - s to 1 + s.
        noise: Gaussian sigma in units of [-1, 1], 0 to n.
        blur: Gaussian sigma in voxels, 0 to b.
        sharpen: in place of that blur, half of the images get 0 to s times what it would take away (unsharp masking).
        cutout: side of a square (cube) set to the lowest value, as a fraction of the side.
        flip: spatial axes that may be mirrored; empty by default, since anatomy is not symmetric.
    """

    brightness: float = Field(0.1, ge=0, le=1)
    contrast: float = Field(0.2, ge=0, lt=1)
    gamma: float = Field(0.0, ge=0, le=1)
    shift: float = Field(0.08, ge=0, le=0.5)
    rotate_degrees: float = Field(8.0, ge=0, le=180)
    scale: float = Field(0.08, ge=0, lt=0.5)
    noise: float = Field(0.03, ge=0, le=1)
    blur: float = Field(0.0, ge=0, le=5)
    sharpen: float = Field(0.0, ge=0, le=10)
    cutout: float = Field(0.0, ge=0, lt=1)
    flip: tuple[int, ...] = ()

    @model_validator(mode="after")
    def _sharpening_needs_its_blur(self) -> AugmentConfig:
        if self.sharpen and not self.blur:
            raise ValueError("sharpen adds what `blur` would take away: set blur too, such as 1.5")
        return self

    @property
    def acts(self) -> bool:
        """Whether any transform is switched on."""
        return any(bool(getattr(self, name)) for name in type(self).model_fields)


DISCRIMINATOR_AUGMENT = AugmentConfig(
    brightness=0.25, contrast=0.5, shift=0.125, rotate_degrees=0, scale=0, noise=0, cutout=0.5
)

APPEARANCE = {"blur": 1.5, "sharpen": 2.0, "gamma": 0.7, "brightness": 0.2, "noise": 0.1}
"""What scanners, kernels and doses change."""
STRONG_CUTOUT = 0.5


def with_appearance(policy: AugmentConfig) -> AugmentConfig:
    """A policy with the appearance part of BigAug: sharpness, blur, noise, brightness and gamma.

    Strengths are at least `APPEARANCE`. Of the paper's, gamma goes to 2 in place of 4.5, noise to 0.05 of the range,
    and each acts on every image by a strength of its own, not on half of them. Zhang et al., "Generalizing
    deep learning for medical image segmentation to unseen domains via deep stacked transformation", IEEE TMI 2020.
    """
    stronger = {name: max(getattr(policy, name), strength) for name, strength in APPEARANCE.items()}
    return policy.model_copy(update=stronger)


def strong(policy: AugmentConfig) -> AugmentConfig:
    """A policy for FixMatch's strongly transformed copies: `with_appearance`, and a square of half the side cut out.

    The paper's are RandAugment and Cutout; what RandAugment does to photographs' colours is left out.
    """
    return with_appearance(policy).model_copy(update={"cutout": max(policy.cutout, STRONG_CUTOUT)})

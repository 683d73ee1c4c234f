"""Random transforms of images, for classifiers and discriminators alike."""

from __future__ import annotations

from pydantic import Field

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
    cutout: float = Field(0.0, ge=0, lt=1)
    flip: tuple[int, ...] = ()

    @property
    def acts(self) -> bool:
        """Whether any transform is switched on."""
        return any(bool(getattr(self, name)) for name in type(self).model_fields)


DISCRIMINATOR_AUGMENT = AugmentConfig(
    brightness=0.25, contrast=0.5, shift=0.125, rotate_degrees=0, scale=0, noise=0, cutout=0.5
)

"""Words of the guard against synthetic shortcuts that several rooms share."""

STAGE = "guard"
FROM_IMAGE, FROM_SCORE, GAP, WARNING = (
    "synthetic_from_image", "synthetic_from_score", "synthetic_score_gap", "probe_warning",
)  # fmt: skip
SOURCE_COLUMN = "source_image"
"""Of a synthetic manifest: the id of the training image that an image was made from, where it was made from one."""

"""Words of the guard against synthetic shortcuts, and of translations, that several rooms share."""

STAGE = "guard"
FROM_IMAGE, FROM_SCORE, GAP, WARNING = (
    "synthetic_from_image", "synthetic_from_score", "synthetic_score_gap", "probe_warning",
)  # fmt: skip
TRANSLATION, TRANSLATIONS_PICTURE = "translation", "translations.png"
"""The stage of the rows of metrics.csv, and the picture that the stage `quality` draws."""
CYCLE_COLUMN = "cycle_error"
"""Of the manifest of translations between sites: mean difference there and back, in shares of the window."""
SOURCE_COLUMN = "source_image"
"""Of a synthetic manifest: the id of the training image that an image was made from, where it was made from one."""

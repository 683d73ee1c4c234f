"""Settings of a whole run that takes seconds."""

TINY = [
    "gan.num_images=64", "gan.batch_size=8", "gan.generator_width=4", "gan.discriminator_width=4", "gan.snapshots=1",
    "synthesis.samples_per_class=8", "classifier.steps=2", "classifier.seeds=2", "verdict.bootstrap=100",
    "data.spatial_size=16", "compute.precision=float32", "quality.classifier_steps=2", "quality.draws=5",
    "quality.pairs=4", "quality.extractor=classifier", "gan.watch.checks=2", "gan.watch.images=8",
    "anomaly.detectors=[discriminator-logit@run, pca]",
]  # fmt: skip

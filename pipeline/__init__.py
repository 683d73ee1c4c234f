"""radaug: GAN augmentation of CT and X-ray data sets, judged with evidence. Not for diagnosis."""

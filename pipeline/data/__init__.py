"""Manifest, readers and writers, audit, patient split, preparation, batched augmentation."""

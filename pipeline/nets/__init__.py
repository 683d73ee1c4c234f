"""Generators, discriminators and classifiers; 2D and 3D are the same code, built from MONAI's layer factories."""

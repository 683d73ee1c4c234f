"""Generators, discriminators and classifiers; 2D and 3D are the same code, from one table of layers."""

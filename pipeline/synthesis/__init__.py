"""Weights to images."""

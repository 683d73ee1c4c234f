"""Classifiers and encoders: one loop trains them all, one function applies a classifier."""

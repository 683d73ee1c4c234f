"""The one supervised loop: fit a classifier, apply it."""

"""Adversarial training: one loop, many recipes."""

"""Anomaly scores from the discriminator."""

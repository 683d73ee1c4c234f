"""What the synthetic images give away about the training patients."""

"""A first configuration from what lies in a folder: what is guessed, and why. Nothing here reads more than it must."""

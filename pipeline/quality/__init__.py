"""Are the synthetic images like the real ones, and as varied? Figures of the images themselves."""

"""Numbers from arrays, with intervals."""

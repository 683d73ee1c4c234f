"""Arms of classifiers and their training."""

"""One experiment seed, many independent streams."""

from __future__ import annotations

import secrets

import numpy as np

from pipeline.core.files import digest_text


def derive_seed(seed: int, *names: str | int) -> int:
    """A 63-bit seed for the stream called `names` under the experiment's `seed`.

    The same names always give the same stream, and adding a stream never moves another one.
    """
    return int(digest_text("/".join(map(str, (seed, *names))))[:16], 16) >> 1


def numpy_generator(seed: int, *names: str | int) -> np.random.Generator:
    return np.random.default_rng(derive_seed(seed, *names))


def secret_seed() -> int:
    """63 bits from the operating system, which nobody can know or make again."""
    return secrets.randbits(63)

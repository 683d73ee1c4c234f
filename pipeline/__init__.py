"""radaug: GAN augmentation of CT and X-ray data sets, judged with evidence. Not for diagnosis."""

import os

# Threads that wait for each other sleep instead of spinning: spinning ones take the cores of whoever works beside them,
# and of their own process's other threads. OpenMP libraries read this once, when they load. The user's values stay.
for _name, _value in {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "0", "KMP_BLOCKTIME": "0"}.items():
    os.environ.setdefault(_name, _value)

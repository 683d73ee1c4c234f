"""How the machine is shared: threads, memory and GPUs of each job."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from flows.plan import TRAINS_GAN, Step
from pipeline.config.anomaly import detector_module, named
from pipeline.config.experiment import ComputeConfig, Experiment
from pipeline.core.threads import PROCESS_MIB

_SECONDS = {
    "ingest": 3.0,
    "split": 0.5,
    "prepare": 1.0,
    "quality": 10.0,
    "detect": 5.0,
    "shift": 1.0,
    "privacy": 1.0,
    "attack": 4.0,
    "verdict": 3.0,
}
"""On one thread, of steps whose work is small beside that of training: guesses, to order the work by."""
_MS_A_PIXEL = {
    "fit-gan": 2.2e-3,
    "fit-normals": 2.2e-3,
    "fit-shadow": 2.2e-3,
    "detect": 1e-3,
    "downstream": 3.5e-4,
    "synthesise": 3e-4,
    "synthesise-shadow": 3e-4,
}
"""Milliseconds an image and pixel on one thread of a core at 2.5 GHz, of the default nets; a voxel takes 0.4 of it.
Detectors that train a network lie between 4e-4 and 2.2e-3."""
_NO_NETS = ("ingest", "split", "prepare", "shift", "verdict")
_COPIES = 4
_MOST_SENT = 64
"""Jobs that other engines have at once: with hundreds Prefect's submission to Dask is known to stop."""


@dataclass(frozen=True)
class Size:
    """What a job is expected to take: seconds on one thread, MiB, whether it computes on the run's device, voxels of
    an image."""

    seconds: float
    mib: float
    on_device: bool
    voxels: int = 0


def size_of(step: Step, part: str, experiment: Experiment) -> Size:
    """What a step, or one of its parts, is expected to take. A step whose parts are made has little left to do."""
    gan, classifier, anomaly, shape = experiment.gan, experiment.classifier, experiment.anomaly, experiment.data.shape
    made = float(experiment.synthesis.samples_per_class * len(experiment.data.classes))
    images = {
        "fit-gan": float(gan.num_images),
        "fit-shadow": float(gan.num_images),
        "fit-normals": float(anomaly.gan_images or gan.num_images),
        "detect": float(anomaly.steps * anomaly.batch_size) if _trains(step) else 0.0,
        "downstream": float(classifier.steps * classifier.batch_size) if part else 0.0,
        "synthesise": made,
        "synthesise-shadow": made,
    }.get(step.kind, 0.0)
    pixels = math.prod(shape) * (1.0 if len(shape) == 2 else 0.4)
    seconds = _SECONDS.get(step.kind, 0.5) + images * pixels * _MS_A_PIXEL.get(step.kind, 0.0) / 1000
    training = (math.ceil(gan.batch_size / gan.accumulate), gan.discriminator_width)
    batch, channels = {**dict.fromkeys(TRAINS_GAN, training), "downstream": (classifier.batch_size, 64)}.get(
        step.kind, (16, 16)
    )
    activations = batch * channels * math.prod(shape) * 4 * _COPIES / 2**20
    return Size(seconds, PROCESS_MIB + activations, step.kind not in _NO_NETS, math.prod(shape))


def _trains(step: Step) -> bool:
    return step.kind == "detect" and detector_module(named(step.variant).name).DETECTOR.trains


@dataclass(frozen=True)
class Share:
    """What a job gets: threads, MiB that are set aside for it, and numbers of GPUs (None: it computes on none)."""

    threads: int
    mib: float
    gpus: tuple[int, ...] | None = None


@dataclass
class Machine:
    """What jobs share, and who has what of it.

    Attributes:
        workers: jobs at once, at most.
        cores: threads at once, at most, over all jobs.
        free: cores that other processes leave idle: no job gets more threads than these.
        mib: memory for all jobs together.
        gpus: numbers of the GPUs, one step on each at a time; none where nets run on the CPU.
        threads: of every job, where the user has set them.
    """

    workers: int
    cores: int
    free: int
    mib: float
    gpus: tuple[int, ...] = ()
    threads: int | None = None
    running: dict[str, Share] = field(default_factory=dict)

    def share(self, size: Size, wanted: int, devices: int = 1) -> Share | None:
        """A share for a job that would like `wanted` threads and `devices` GPUs; None where it must wait.

        It gets the threads that are idle where those are fewer. A job that is alone never waits, however much it needs.
        """
        taken = {number for share in self.running.values() for number in share.gpus or ()}
        left = tuple(number for number in self.gpus if number not in taken)
        gpus = left[:devices] if size.on_device and self.gpus else None
        threads = self.threads or max(1, min(wanted, self.free, self.idle))
        if self.running:
            held = sum(share.mib for share in self.running.values())
            if len(self.running) >= self.workers or threads > self.idle or held + size.mib > self.mib:
                return None
            if gpus is not None and len(gpus) < devices:
                return None
        return Share(threads, size.mib, gpus)

    @property
    def idle(self) -> int:
        """Cores that no job has."""
        return self.cores - sum(share.threads for share in self.running.values())


def machine_of(compute: ComputeConfig) -> Machine:
    """This machine as it is now: what this process may use of it, and what others leave. Of a cluster, the jobs that
    `compute.workers` allows, each with its own worker's memory and GPUs."""
    if compute.cluster:
        workers, threads = min(compute.workers or 1, _MOST_SENT), compute.threads or 1
        return Machine(workers, workers * threads, threads, math.inf, threads=threads)
    from pipeline.core.compute import resolve_hardware
    from pipeline.core.threads import available_cores, available_memory_mib, free_cores

    cores = available_cores()
    workers = compute.workers or max(1, cores // (compute.threads or 1))
    if compute.engine != "local":
        workers = min(workers, _MOST_SENT)
    return Machine(
        workers=workers,
        cores=max(cores, workers * (compute.threads or 1)),
        free=max(1, min(cores, round(free_cores()))),
        mib=available_memory_mib(),
        gpus=_gpus() if resolve_hardware(compute.device, compute.precision).device == "cuda" else (),
        threads=compute.threads,
    )


def _gpus() -> tuple[int, ...]:
    """Numbers of the GPUs that this process may see."""
    import torch

    return tuple(range(torch.cuda.device_count()))

"""Our detectors beside anomalib's and PyOD's on the same prepared images and features: scores, AUROC, seconds.

Run: .venv/bin/python benchmarks/anomaly_peers.py [SET] [--only patchcore padim ganomaly pyod] [--seeds 3] [--steps 400]

Needs anomalib and PyOD: pip install -e '.[anomaly-peers]' into an environment of its own, since anomalib is large and
brings a torch of its own; what is missing is left out, and a line says so. The sets are those of `anomaly.py`; the
images are the fold's normal training patients' and all validation patients'. Test patients are never looked at.

PatchCore and PaDiM get the feature maps of our frozen network in place of anomalib's backbone, from images that were
brought to 128 x 128 beforehand, so that maps are smoothed at one size. GANomaly is trained by both with the same
images, steps, batch size, latent size, layers, channels and optimisers. What differs: anomalib compares the
discriminator's answers where the paper and we compare its features, and takes a smooth absolute distance of codes in
training; both players move on one batch there, here each on its own. Its training step is written as in its
`lightning_model.py`.
"""

from __future__ import annotations

import argparse
import importlib.util
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from anomaly import CACHE, SETTINGS, experiment_of
from scipy.stats import spearmanr
from torch import Tensor, nn
from torch.nn.functional import interpolate

from flows.plan import plan_experiment
from pipeline.anomaly.cohort import cohort_of
from pipeline.anomaly.detector import Detector, ImageSet, Normals, Setting
from pipeline.anomaly.detectors import DETECTORS
from pipeline.anomaly.thumbnails import averaged_down, thumbnails
from pipeline.config.anomaly import AnomalyConfig, normal_classes
from pipeline.core.cache import execute
from pipeline.core.compute import Hardware
from pipeline.core.threads import use_threads
from pipeline.data.batches.dataset import DataSet
from pipeline.data.batches.streams import Stream
from pipeline.data.cohort.normals import normal_rows
from pipeline.measures.classification import weighted_auroc
from pipeline.nets.extractors import EffNetLite0
from pipeline.nets.feature_maps import EffNetMaps
from pipeline.nets.sizes import ImageShape


@dataclass(frozen=True)
class Case:
    """Images to learn from and to be tried on.

    Attributes:
        tried: [N, C, *spatial] in [-1, 1].
        abnormal: [N] bool.
    """

    normals: Normals
    tried: Tensor
    abnormal: np.ndarray
    config: AnomalyConfig

    def ours(self, name: str, seed: int) -> Detector:
        """Our detector, fitted."""
        dataset = self.normals.train.dataset
        shape = ImageShape(tuple(dataset.images.shape[2:]), dataset.images.shape[1], 2)
        setting = Setting(self.config, shape, ("normal",), Hardware("cpu", "float32"), seed)
        detector = DETECTORS[name].make(setting)
        detector.fit(self.normals)
        return detector.eval()

    def auroc(self, score: np.ndarray) -> float:
        return float(weighted_auroc(score, self.abnormal, np.ones((1, len(score))))[0])


def case_of(name: str, steps: int) -> Case:
    """Fold 0 of a set of `anomaly.py`, prepared as `radaug run` does."""
    experiment, directories = experiment_of(name, "pca", 0, []), dict[str, Path]()
    for step in plan_experiment(experiment):
        if step.kind in ("ingest", "split", "prepare"):
            directories[step.name] = execute(step.stage(directories), CACHE).directory
    data = experiment.data
    normal = normal_classes(experiment.anomaly, data.classes, data.positive)
    cohort = cohort_of(directories["prepare"], directories["split"], 0, normal)
    val = cohort.tried["val"]
    abnormal = ~normal_rows(val.dataset, normal)[val.rows]
    config = AnomalyConfig(detectors=(), steps=steps)
    return Case(cohort.normals, torch.cat(list(val.blocks())), abnormal, config)


def enlarged(case: Case) -> Case:
    """The same images at the size that our frozen network looks at."""
    sides = (EffNetLite0.SIDE, EffNetLite0.SIDE)

    def larger(images: ImageSet) -> ImageSet:
        dataset, stored = (
            images.dataset,
            torch.from_numpy(np.array(images.dataset.images[images.rows], dtype=np.float32)),
        )
        found = interpolate(stored, sides, mode="bilinear", align_corners=False).numpy()
        table = dataset.manifest.iloc[images.rows].reset_index(drop=True)
        return ImageSet(DataSet(dataset.root, table, found, dataset.scaling), np.arange(len(found)))

    normals = Normals(larger(case.normals.train), larger(case.normals.val), larger(case.normals.mixed))
    tried = interpolate(case.tried, sides, mode="bilinear", align_corners=False)
    return replace(case, normals=normals, tried=tried)


class OurMaps(nn.Module):
    """Our frozen network where anomalib expects its own."""

    def __init__(self) -> None:
        super().__init__()
        self.maps = EffNetMaps()

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return {"ours": self.maps(images)}


def with_our_maps(make: Callable[..., Any], **options: Any) -> Any:
    """An anomalib model with an untrained small backbone, which is then replaced."""
    model = make(backbone="resnet18", layers=["layer1"], pre_trained=False, **options)
    model.feature_extractor, model.layers = OurMaps(), ["ours"]
    return model


def learnt(model: Any, images: ImageSet, finish: Callable[[], object]) -> Any:
    model.train()
    for block in images.blocks():
        model(block)
    finish()
    return model.eval()


@torch.no_grad()
def scored(model: Any, images: Tensor) -> np.ndarray:
    return np.concatenate([model(part).pred_score.flatten().numpy() for part in images.split(32)])


def padim(case: Case, seeds: int) -> None:
    """The same features of the maps are chosen for both; anomalib adds 0.01001 to variances, the paper and we 0.01."""
    from anomalib.models.image.padim.torch_model import PadimModel

    case = enlarged(case)
    for seed in range(seeds):
        ours, spent = timed(case.ours, "padim", seed)
        chosen = ours.get_buffer("chosen")
        model = with_our_maps(PadimModel, n_features=64)
        model.idx = chosen
        model, theirs = timed(learnt, model, case.normals.train, model.fit)
        row(
            case,
            f"PaDiM, anomalib, seed {seed}",
            ours.score(case.tried).numpy(),
            scored(model, case.tried),
            spent,
            theirs,
        )


def patchcore(case: Case, seeds: int) -> None:
    """With our memory, so that scores must be equal; then with their own, whose coreset begins elsewhere."""
    from anomalib.models.image.patchcore.torch_model import PatchcoreModel

    case = enlarged(case)
    for seed in range(seeds):
        ours, spent = timed(case.ours, "patchcore", seed)
        bank, own = ours.get_buffer("bank"), ours.score(case.tried).numpy()
        torch.manual_seed(seed)
        model = with_our_maps(PatchcoreModel).eval()
        model.memory_bank = bank
        row(case, f"PatchCore, anomalib with our memory, seed {seed}", own, scored(model, case.tried), spent, None)
        model = with_our_maps(PatchcoreModel)
        model, theirs = timed(learnt, model, case.normals.train, partial(model.subsample_embedding, 0.1))
        name = f"PatchCore, anomalib with its memory ({len(model.memory_bank)} patches, ours {len(bank)}), seed {seed}"
        row(case, name, own, scored(model, case.tried), spent, theirs)


def ganomaly(case: Case, seeds: int) -> None:
    """Two implementations trained apart: what can be alike is the AUROC, within its scatter over seeds."""
    for seed in range(seeds):
        ours, spent = timed(case.ours, "ganomaly", seed)
        model, theirs = timed(their_ganomaly, case, seed)
        row(
            case,
            f"GANomaly, anomalib, seed {seed}",
            ours.score(case.tried).numpy(),
            scored(model, case.tried),
            spent,
            theirs,
        )


def their_ganomaly(case: Case, seed: int) -> Any:
    from anomalib.models.image.ganomaly.loss import DiscriminatorLoss, GeneratorLoss
    from anomalib.models.image.ganomaly.torch_model import GanomalyModel

    torch.manual_seed(seed)
    config, images = case.config, case.normals.train
    side = 2 ** int(np.ceil(np.log2(max(case.tried.shape[2:]))))  # as their model pads images
    model = GanomalyModel((side, side), case.tried.shape[1], config.width, config.latent_dim)
    generator_loss, discriminator_loss = GeneratorLoss(), DiscriminatorLoss()
    players = (model.discriminator, model.generator)
    optimisers = [torch.optim.Adam(one.parameters(), lr=2e-4, betas=(0.5, 0.999)) for one in players]
    stream = Stream(images.stored("cpu"), config.batch_size, seed, balanced=False)
    for _ in range(config.steps):
        padded, fake, first, second = model(stream.next().images)
        real = model.discriminator(padded)[0]
        loss = generator_loss(first, second, padded, fake, real, model.discriminator(fake)[0])
        optimisers[1].zero_grad()
        loss.backward(retain_graph=True)
        optimisers[1].step()
        loss = discriminator_loss(real, model.discriminator(fake.detach())[0])
        optimisers[0].zero_grad()
        loss.backward()
        optimisers[0].step()
    return model.eval()


def pyod(case: Case, seeds: int) -> None:
    """PyOD's ECOD once image by image, which must be equal, and once all together, as it is mostly called."""
    from pyod.models.ecod import ECOD
    from pyod.models.iforest import IForest
    from pyod.models.kpca import KPCA

    train = torch.cat([thumbnails(block) for block in case.normals.train.blocks()]).numpy()
    tried = thumbnails(case.tried).numpy()
    ours, spent = timed(case.ours, "ecod", 0)
    theirs, taken = timed(ECOD().fit, train)
    alone = np.concatenate([theirs.decision_function(one[None]) for one in tried])
    row(case, "ECOD, PyOD, image by image", ours.score(case.tried).numpy(), alone, spent, taken)
    together = theirs.decision_function(tried)
    row(case, "ECOD, PyOD, all images at once", ours.score(case.tried).numpy(), together, spent, taken)
    for seed in range(seeds):
        ours, spent = timed(case.ours, "isolation-forest", seed)
        forest = IForest(n_estimators=100, max_samples=min(256, len(train)), random_state=seed)
        theirs, taken = timed(forest.fit, train)
        shifted = theirs.decision_function(tried) - theirs.detector_.offset_
        row(case, f"isolation forest, PyOD, seed {seed}", ours.score(case.tried).numpy(), shifted, spent, taken)
    longest = 64 if case.tried.ndim == 4 else 32
    large, images = averaged_down(case.tried, longest).flatten(1), list(case.normals.train.blocks())
    small = torch.cat([averaged_down(block, longest).flatten(1) for block in images])
    ours, spent = timed(case.ours, "pca", 0)
    kept = len(ours.get_buffer("components"))
    theirs, taken = timed(KPCA(n_components=kept, kernel="linear").fit, small.double().numpy())
    residual = theirs.decision_function(large.double().numpy()) / large.shape[1]
    row(
        case,
        f"PCA's residual, PyOD's KPCA with a linear kernel, {kept}",
        ours.score(case.tried).numpy(),
        residual,
        spent,
        taken,
    )


def timed(call: Callable[..., Any], *given: Any) -> tuple[Any, float]:
    started = time.perf_counter()
    found = call(*given)
    return found, time.perf_counter() - started


def row(case: Case, name: str, ours: np.ndarray, theirs: np.ndarray, spent: float, taken: float | None) -> None:
    apart = np.abs(ours - theirs).max() / np.abs(theirs).max()
    cells = [
        name, f"{case.auroc(ours):.4f}", f"{case.auroc(theirs):.4f}", f"{spearmanr(ours, theirs)[0]:.4f}",
        f"{apart:.1e}", f"{spent:.1f}", "–" if taken is None else f"{taken:.1f}",
    ]  # fmt: skip
    print(f"| {' | '.join(cells)} |", flush=True)


SECTIONS: dict[str, tuple[str, Callable[[Case, int], None]]] = {
    "padim": ("anomalib", padim),
    "patchcore": ("anomalib", patchcore),
    "ganomaly": ("anomalib", ganomaly),
    "pyod": ("pyod", pyod),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("set", nargs="?", default="liver", choices=list(SETTINGS))
    parser.add_argument("--only", nargs="+", default=list(SECTIONS), choices=list(SECTIONS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=400)
    asked = parser.parse_args()
    use_threads(1)
    missing = {library for library, _ in SECTIONS.values() if importlib.util.find_spec(library) is None}
    case = case_of(asked.set, asked.steps)
    print(f"{asked.set}: {len(case.normals.train)} normal training images, {len(case.tried)} validation images\n")
    print("| beside | our AUROC | theirs | rank correlation | largest difference | our fit, s | theirs |")
    print("|---|---|---|---|---|---|---|")
    for name in asked.only:
        library, compare = SECTIONS[name]
        if library in missing:
            print(f"{name} is left out: {library} is not installed (pip install -e '.[anomaly-peers]').")
        elif name != "pyod" and case.tried.ndim != 4:
            print(f"{name} is left out: {library} has it for images, not for volumes.")
        else:
            compare(case, asked.seeds)


if __name__ == "__main__":
    main()

"""scikit-learn's classifiers on EfficientNet-Lite0 features: what an arm's network learns step by step, learnt at once.

A batch's mixture becomes weights: the shares of a phase weigh as much as in a batch, the classes (or groups) of a
balanced share equally, and a soft label is as many weighted copies of the image as there are classes. So
`oversampling` and `classweights` differ from the reference by the draws of their transforms alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from pipeline.config.experiment import ClassifierConfig
from pipeline.core.compute import Hardware
from pipeline.core.errors import DataError
from pipeline.core.patients import patient_units
from pipeline.core.seeds import derive_seed
from pipeline.data.batches.dataset import DataSet
from pipeline.data.batches.draws import Draws
from pipeline.nets.extractors import EffNetLite0
from pipeline.supervised.fit import Phase, Share, transforms_of

Encode = Callable[[torch.Tensor], torch.Tensor]
"""Images [B, C, *spatial] in [-1, 1] on the device -> features [B, D]."""
Predict = Callable[[DataSet, np.ndarray], np.ndarray]
"""(data set, rows) -> class probabilities [len(rows), num_classes]."""
COPIES = 10
"""At most so many classically transformed copies of an image are seen."""
TREES = 300
FOLDS = 5
_BATCH = 64


class FittedModel(Protocol):
    """What scikit-learn's classifiers are once fitted."""

    def predict_proba(self, features: np.ndarray, /) -> np.ndarray: ...


@dataclass(frozen=True)
class Examples:
    """Rows of a training set.

    Attributes:
        features: [N, D], float64.
        label: [N] class numbers.
        weight: [N], summing to the number of images, so that copies make no penalty weaker.
        group: [N]; rows of one patient, or of one image without patient, have one number.
    """

    features: np.ndarray
    label: np.ndarray
    weight: np.ndarray
    group: np.ndarray


def fit_feature_model(
    config: ClassifierConfig, phase: Phase, classes: Sequence[str], hardware: Hardware, *, seed: int
) -> Predict:
    """Fit `config.network`, one of `logistic`, `forest` and `svm`, on the images of a phase's shares.

    With classical transforms every image is seen in several transformed copies: as many as bring the images to what a
    network sees in `config.steps` steps, but at least one and at most `COPIES`. Features are standardised by the
    training set's mean and spread.

    Args:
        seed: of the transforms, and of the forest's bootstrap.

    Raises:
        DataError: a class has no image, or for `svm` fewer than two patients.
    """
    from sklearn.preprocessing import StandardScaler

    examples = examples_of(config, phase, classes, hardware, seed)
    scaler = StandardScaler().fit(examples.features, sample_weight=examples.weight)
    model = MODELS[config.network](examples, scaler.transform(examples.features), seed)

    def predict(dataset: DataSet, rows: np.ndarray) -> np.ndarray:
        found: np.ndarray = model.predict_proba(scaler.transform(features_of(dataset, rows, hardware)))
        return found

    return predict


def examples_of(
    config: ClassifierConfig,
    phase: Phase,
    classes: Sequence[str],
    hardware: Hardware,
    seed: int,
    *,
    encode: Encode | None = None,
    most_copies: int = COPIES,
) -> Examples:
    """The training set of a phase.

    Args:
        encode: what makes the features; None = EfficientNet-Lite0.
        most_copies: of an image under classical transforms.

    Raises:
        DataError: a class has no image.
    """
    images = sum(len(share.rows) for share in phase.shares)
    copies = min(most_copies, max(1, config.steps * config.batch_size // images)) if phase.classical else 1
    draws = Draws(torch.Generator(hardware.device).manual_seed(derive_seed(seed, "augment")))
    augment = transforms_of(config, phase)
    classical = (lambda batch: augment(batch, draws)) if phase.classical else None
    features, targets, groups = [], [], []
    for share in phase.shares:
        for _ in range(copies):
            features.append(features_of(share.dataset, share.rows, hardware, classical, encode))
            targets.append(share.weight * _weights(share, classes))
            groups.append(patient_units(share.dataset.manifest.iloc[share.rows]).to_numpy(dtype=str))
    target = np.concatenate(targets)
    if phase.loss == "class_weights":
        target = target / np.maximum(target.sum(axis=0), np.finfo(float).tiny)
    image, label = np.nonzero(target)  # a row for each class that an image may be of
    absent = [name for number, name in enumerate(classes) if number not in label]
    if absent:
        raise DataError(f"classifier: no training image is of the class {absent[0]}. Leave it out of data.classes.")
    weight, group = target[image, label], np.unique(np.concatenate(groups), return_inverse=True)[1]
    return Examples(np.concatenate(features)[image], label, weight * images / weight.sum(), group[image])


def _weights(share: Share, classes: Sequence[str]) -> np.ndarray:
    """[len(rows), num_classes], summing to 1: how much each image counts as each class."""
    if share.soft is not None:
        return share.soft / share.soft.sum()
    label = share.dataset.labels(share.rows, classes).numpy()
    one_hot = np.eye(len(classes))[label]
    if share.groups is not None:
        return one_hot / np.bincount(share.groups)[share.groups, None] / len(np.unique(share.groups))
    counts = one_hot.sum(axis=0)
    spread = one_hot / np.maximum(counts, 1) if share.balanced else one_hot
    return spread / spread.sum()


def features_of(
    dataset: DataSet,
    rows: np.ndarray,
    hardware: Hardware,
    changed: Callable[[torch.Tensor], torch.Tensor] | None = None,
    encode: Encode | None = None,
) -> np.ndarray:
    """Features [len(rows), D], float64, of images that were perhaps changed before; EfficientNet-Lite0's by default."""
    encode = encode or EffNetLite0(hardware.device).extract
    parts = []
    for start in range(0, len(rows), _BATCH):
        images = dataset.tensor(rows[start : start + _BATCH]).to(hardware.device)
        parts.append(encode(images if changed is None else changed(images)).double().cpu().numpy())
    return np.concatenate(parts)


def patient_folds(examples: Examples) -> list[tuple[np.ndarray, np.ndarray]]:
    """(fitted rows, left-out rows) of at most `FOLDS` folds of whole patients; every fold has every class.

    Raises:
        DataError: a class has fewer than two patients.
    """
    totals = np.zeros((examples.group.max() + 1, examples.label.max() + 1))
    np.add.at(totals, (examples.group, examples.label), examples.weight)
    mostly = totals.argmax(axis=1)  # the class of each patient
    folds = min(FOLDS, int(np.bincount(mostly, minlength=totals.shape[1]).min()))
    if folds < 2:
        raise DataError(
            "A support vector machine needs two training patients a class, to fit its probabilities to patients that "
            "it has not seen. Use logistic in place of svm, or classifier.network: forest."
        )
    fold = np.zeros(len(mostly), dtype=int)
    for number in range(totals.shape[1]):
        own = np.flatnonzero(mostly == number)
        fold[own] = np.arange(len(own)) % folds
    left_out = fold[examples.group]
    return [(np.flatnonzero(left_out != number), np.flatnonzero(left_out == number)) for number in range(folds)]


def _logistic(examples: Examples, features: np.ndarray, seed: int) -> FittedModel:
    """Ridge penalty with C = 0.1, an image counting once however many copies there are."""
    del seed
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=0.1, max_iter=5000)
    return model.fit(features, examples.label, sample_weight=examples.weight)


def _forest(examples: Examples, features: np.ndarray, seed: int) -> FittedModel:
    """Breiman, Machine Learning 2001; its probabilities are the mean over the trees of a leaf's frequencies."""
    from sklearn.ensemble import RandomForestClassifier

    model = RandomForestClassifier(TREES, random_state=derive_seed(seed, "forest") % 2**32)
    return model.fit(features, examples.label, sample_weight=examples.weight)


def _svm(examples: Examples, features: np.ndarray, seed: int) -> FittedModel:
    """Linear, C = 0.01; probabilities by Platt's sigmoid, a class against the rest, on cross-validated margins.

    With a Gaussian kernel unseen images lie far from all of few training images along a thousand features, and alike.
    Whole patients are left out at a time, and all copies of an image with them: margins of images that were trained on
    would make probabilities too sure. Platt, "Probabilistic outputs for support vector machines", 1999.
    """
    del seed
    from sklearn.calibration import CalibratedClassifierCV
    from sklearn.svm import SVC

    model = CalibratedClassifierCV(
        SVC(kernel="linear", C=0.01), method="sigmoid", cv=patient_folds(examples), ensemble=False
    )
    return model.fit(features, examples.label, sample_weight=examples.weight)


MODELS: dict[str, Callable[[Examples, np.ndarray, int], FittedModel]] = {
    "logistic": _logistic,
    "forest": _forest,
    "svm": _svm,
}

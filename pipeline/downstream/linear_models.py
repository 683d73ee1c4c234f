"""Arms on a fixed representation: linear models of scikit-learn on vectors that were learnt without labels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, Self

import numpy as np

from pipeline.config.arms import LinearModel, Representation, known_arm
from pipeline.data.batches.dataset import DataSet
from pipeline.downstream.feature_models import (
    COPIES,
    Examples,
    FittedModel,
    Predict,
    examples_of,
    features_of,
    patient_folds,
)
from pipeline.downstream.features import STRENGTHS, TrunkConfig, mean_auroc
from pipeline.downstream.material import Material
from pipeline.downstream.representations import REPRESENTATIONS
from pipeline.supervised.fit import Phase

_VALUES = 2**23
"""Numbers that a linear model is fitted to, at most, unless the images alone are more: what is wide is seen in fewer
transformed copies."""


class _Linear(Protocol):
    """scikit-learn's linear classifiers."""

    def fit(self, features: np.ndarray, label: np.ndarray, sample_weight: np.ndarray) -> Self: ...

    def decision_function(self, features: np.ndarray, /) -> np.ndarray: ...


@dataclass(frozen=True)
class _Kind:
    """A kind of linear model.

    Attributes:
        make: C -> the model, not yet fitted.
        strengths: values of C to choose from.
        finish: the fitted model with probabilities.
    """

    make: Callable[[float], _Linear]
    strengths: tuple[float, ...]
    finish: Callable[[Any, Examples, np.ndarray], FittedModel]


def fit_on_representation(
    arm: str, trunk: TrunkConfig, material: Material, seed: int
) -> tuple[Predict, dict[str, Any]]:
    """Fit the arm's linear model on the labelled training images, as vectors of a fixed representation.

    Vectors are standardised. Classes weigh equally, and each image is seen in classically transformed copies, as many
    as `classifier.steps` batches hold, but ten at most. C is the best on validation images (the mean AUROC of each
    class against the rest), of equals the smallest.

    Args:
        seed: of the representation and of the transforms: arms that share it share both.

    Returns:
        What predicts, and facts for the record: C, its AUROC on val, the length of a vector, the copies, and how many
        images the representation was learnt from.

    Raises:
        DataError: a class has no image, or for `svm` fewer than two patients.
        LeakageError: the GAN is another fold's.
    """
    from sklearn.preprocessing import StandardScaler

    kind, name = known_arm(arm).representation, known_arm(arm).model
    assert kind is not None and name is not None
    encode, model, dataset = REPRESENTATIONS[kind](trunk, material, seed), MODELS[name], material.dataset
    real, val = material.real, material.rows("val")
    numbers = encode(dataset.tensor(real.rows[:1]).to(material.hardware.device)).shape[1]
    examples = examples_of(
        material.config, Phase((real,), material.config.steps), material.classes, material.hardware, seed,
        encode=encode, most_copies=min(COPIES, max(1, _VALUES // (numbers * len(real.rows)))),
    )  # fmt: skip
    scaler = StandardScaler().fit(examples.features, sample_weight=examples.weight)
    seen = scaler.transform(examples.features)

    def vectors(images: DataSet, rows: np.ndarray) -> np.ndarray:
        found: np.ndarray = scaler.transform(features_of(images, rows, material.hardware, encode=encode))
        return found

    label, held_out = dataset.labels(val, material.classes).numpy(), vectors(dataset, val)
    fitted = {c: model.make(c).fit(seen, examples.label, sample_weight=examples.weight) for c in model.strengths}
    on_val = {c: mean_auroc(label, _scores(one, held_out)) for c, one in fitted.items()}
    best = max(on_val, key=lambda c: on_val[c])
    finished = model.finish(fitted[best], examples, seen)
    facts = {
        "C": best, "val_auroc": round(on_val[best], 4), "numbers": numbers,
        "copies": len(examples.features) // len(real.rows), **_learnt_from(kind, trunk, material),
    }  # fmt: skip
    return lambda images, rows: finished.predict_proba(vectors(images, rows)), facts


def _scores(model: Any, features: np.ndarray) -> np.ndarray:
    """Probabilities where the model has them, else margins; [N, num_classes]."""
    found: np.ndarray = getattr(model, "predict_proba", model.decision_function)(features)
    return np.stack([-found, found], axis=1) if found.ndim == 1 else found


def _learnt_from(kind: Representation, trunk: TrunkConfig, material: Material) -> dict[str, int]:
    if kind not in ("vae", "f-anogan"):
        return {}
    unlabelled = len(material.rows("unlabelled"))
    return {
        "labelled": len(material.real.rows), "unlabelled": unlabelled, "encoder_images": trunk.steps * trunk.batch_size
    }  # fmt: skip


def _logistic(strength: float) -> _Linear:
    """With a ridge penalty."""
    from sklearn.linear_model import LogisticRegression

    model: _Linear = LogisticRegression(C=strength, max_iter=5000)
    return model


def _svm(strength: float) -> _Linear:
    """With a squared hinge loss (L2-SVM), a class against the rest. It is solved in the primal, so that no matrix of
    all pairs of images is needed."""
    from sklearn.svm import LinearSVC

    model: _Linear = LinearSVC(C=strength, dual=False, max_iter=5000)
    return model


def _as_it_is(model: FittedModel, examples: Examples, features: np.ndarray) -> FittedModel:
    del examples, features
    return model


def _calibrated(model: Any, examples: Examples, features: np.ndarray) -> FittedModel:
    """Platt's sigmoid on margins of patients that were left out; see `feature_models`."""
    from sklearn.calibration import CalibratedClassifierCV

    both = CalibratedClassifierCV(_svm(model.C), method="sigmoid", cv=patient_folds(examples), ensemble=False)
    return both.fit(features, examples.label, sample_weight=examples.weight)


MODELS: dict[LinearModel, _Kind] = {
    "logistic": _Kind(_logistic, STRENGTHS, _as_it_is),
    "svm": _Kind(_svm, tuple(c / 10 for c in STRENGTHS), _calibrated),
}

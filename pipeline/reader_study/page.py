"""The page for the readers: one file without network, ids or truth."""

from __future__ import annotations

import base64
import hashlib
import json
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from pipeline.core.errors import UserError
from pipeline.core.files import clear_disk_errors, digest_text, whole_folder, write_text
from pipeline.data.batches.scaling import Scaling
from pipeline.reader_study.draw import Drawn
from pipeline.reader_study.files import CONFIDENCES, PAGE, Study, write_study
from pipeline.report.page import templates
from pipeline.report.sheets import axial_planes

_SCRIPTS = ("viewer.js", "study.js")
_LEVELS, _FINE_LEVELS = 255, 4095
_MOST_SLICES = 64
_OWN = Path(__file__).parent


def make_study(drawn: Drawn, out: Path, seed: int) -> Study:
    """Write the study's folder `out`, whole or not at all, and give its key.

    Raises:
        UserError: there is something at `out`.
    """
    if out.is_symlink() or out.exists():
        raise UserError(f"{out}: is there already, and answers may have been given to it. Choose another --out.")
    experiment = drawn.experiment
    shown = [_payload(*drawn.image(place)) for place in range(len(drawn.table))]
    classes = experiment.data.classes
    study = Study(
        name=digest_text(json.dumps([shown, classes]))[:12], run=experiment.name, fold=experiment.release.fold,
        gan_seed=experiment.release.gan_seed, seed=seed, classes=classes, key=drawn.table,
    )  # fmt: skip
    scaling = next(iter(drawn.sets.values())).scaling
    told = {
        "study": study.name, "classes": classes, "confidences": CONFIDENCES, "images": shown,
        "window": scaling.window, "unit": "" if scaling.unit == "none" else scaling.unit,
    }  # fmt: skip
    with clear_disk_errors(out), whole_folder(out) as place:
        write_text(place / PAGE, _page(told, drawn))
        write_study(place, study)
    return study


def _page(told: Mapping[str, object], drawn: Drawn) -> str:
    script = "\n".join((_OWN / name).read_text(encoding="utf-8") for name in _SCRIPTS)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    mark = "pack" if drawn.released else "phantoms" if drawn.experiment.data.simulated else "patients"
    # no "<" in the data, which a class could otherwise end its element by
    data = json.dumps(told).replace("<", "\\u003c")
    page = templates(_OWN).get_template("page.html.j2")
    return page.render(
        script=script, script_digest=digest, data=data, mark=mark, volumes=drawn.experiment.data.spatial_dims == 3,
        num_images=len(drawn.table), confidences=CONFIDENCES, classes=drawn.experiment.data.classes,
    )  # fmt: skip


def _payload(image: np.ndarray, scaling: Scaling) -> dict[str, object]:
    """An image [C, *spatial] in stored numbers as the page reads it: slices, rows, columns, and levels of the window.

    Real and synthetic images go through the same: what lies beyond the window, where a generator makes nothing, is cut,
    and grey values get the same few levels, so that neither tells them apart.
    """
    slices = [image[0]] if image.ndim == 3 else axial_planes(image)
    if len(slices) > _MOST_SLICES:
        slices = [slices[place] for place in np.linspace(0, len(slices) - 1, _MOST_SLICES).round().astype(int)]
    physical = np.stack(slices).astype(np.float64) * scaling.scale + scaling.offset
    low, high = scaling.window
    levels = _LEVELS if scaling.dtype == "uint8" else _FINE_LEVELS
    grey = np.rint((np.clip(physical, low, high) - low) / (high - low) * levels)
    raw = grey.astype("<u2" if levels > _LEVELS else "u1").tobytes()
    return {"shape": grey.shape, "levels": levels, "pixels": base64.b64encode(zlib.compress(raw, 9)).decode()}

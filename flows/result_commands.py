"""Commands on what is there: finished runs, packs, anyone's predictions, and lists of what there is to choose from."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from pipeline.core.errors import RefusedError, UserError
from pipeline.core.files import make_folder
from pipeline.core.layout import CONFIG, LOCK


def sample(
    run_dir: Annotated[Path, Parameter(name="RUN")],
    *,
    label: Annotated[list[str], Parameter(consume_multiple=True, negative="", help="One class, or several.")],
    num: Annotated[int, Parameter(help="Images of each class.")],
    out: Path,
    seed: Annotated[int, Parameter(help="Another one gives other images; the same one the same.")] = 0,
    truncation_psi: float = 1.0,
    format: Literal["nifti", "png", "dicom"] = "nifti",
) -> None:
    """Write NUM images of each class LABEL from the generator that RUN's release section names into OUT.

    Images that lie there are never overwritten. Unless the audit releases it, their names say so, and NOT-RELEASED.txt
    beside them says why.
    """
    require_run(run_dir)
    make_folder(out)
    from flows.audit import NOT_RELEASED, mark_of
    from pipeline.config.loading import load_experiment
    from pipeline.synthesis.sample import refuse_wrong_labels, sample_run

    refuse_wrong_labels(run_dir, out, label)
    release = load_experiment(run_dir / CONFIG).release
    mark = mark_of(run_dir, out, truncation_psi)
    for one in label:
        sample_run(run_dir, one, num, out, truncation_psi, format, mark=mark, seed=seed)
    if mark:
        print(f"NOT RELEASED: these images may not leave the building. {out / NOT_RELEASED} says why.")
    named = f"fold {release.fold}, GAN seed {release.gan_seed}"
    print(f"{num * len(label)} images of the generator named for release ({named}): {out}")


def score(
    run_dir: Annotated[Path, Parameter(name="RUN")],
    given: Annotated[Path, Parameter(name="INPUT")],
    *,
    out: Path,
    detector: Annotated[str, Parameter(help="As the configuration names it; the first one unless given.")] = "",
    maps: Annotated[bool, Parameter(negative="", help="Also say where, as PNG and NIfTI.")] = False,
    rate: Annotated[
        float | None, Parameter(help="Share of normal patients who may raise an alarm; the run's unless given.")
    ] = None,
) -> None:
    """Score INPUT (an image, a series, a folder or a table with a column path) by a detector of RUN, into OUT."""
    require_run(run_dir)
    make_folder(out)
    from pipeline.anomaly.scoring import SCORES, score_run

    print("\n".join(score_run(run_dir, given, out, detector, maps=maps, rate=rate).sentences))
    print(f"Scores: {out / SCORES}")


def audit(run_dir: Annotated[Path, Parameter(name="RUN")]) -> None:
    """Say whether the generator that RUN's release section names may leave the building; exit code 3 unless it may.

    By the attacks that the run made, and the weights as they lie there now.
    """
    require_run(run_dir)
    from flows.audit import audit_run

    found = audit_run(run_dir)
    print(f"Release: {found['decision']}.")
    print("\n".join(found["reasons"]))
    if found["decision"] != "release":
        raise RefusedError("neither the generator nor its images may leave the building; the reasons stand above.")


def release(
    run_dir: Annotated[Path, Parameter(name="RUN")],
    *,
    out: Path,
    num_images: Annotated[int | None, Parameter(help="Of each class; all that were audited unless given.")] = None,
    format: Annotated[tuple[Literal["png", "nifti", "dicom"], ...], Parameter(consume_multiple=True, negative="")] = (),
    with_generator: Annotated[bool, Parameter(negative="", help="Its weights too: safetensors and JSON.")] = False,
    representation: Annotated[
        bool,
        Parameter(negative="", help="EfficientNet-Lite0's features; images only in a --format that is named."),
    ] = False,
) -> None:
    """Write the images that RUN's audit releases as a pack for sharing into OUT; else exit code 3, and nothing.

    In one format or several; PNG unless given, NIfTI where images are volumes or in HU.
    """
    require_run(run_dir)
    from flows.release import release_run

    made = release_run(
        run_dir,
        out,
        num_images=num_images,
        formats=format,
        with_generator=with_generator,
        representation=representation,
    )
    print(f"Pack: {out}, {made.images} synthetic images.")
    if made.left_out:
        print(f"{made.left_out} more were left out: they lie near to a training image, though not nearer than chance.")
    print(f"Its digest is {made.digest}. Tell it to the receiver by another way: `radaug verify` prints it.")


def verify(
    pack: Annotated[Path, Parameter(name="PACK")],
    *,
    register: Annotated[
        Path | None, Parameter(help="data.patient_register of its study; known for packs of your own.")
    ] = None,
) -> None:
    """Check that the release pack PACK is whole and unchanged; exit code 3 if it is not, 2 if there is none.

    Also 3 where a patient behind it has withdrawn since, which only the study's register can tell.
    """
    from flows.withdrawn import refuse_stale_pack
    from pipeline.release.verify import verify_pack

    found = verify_pack(pack)
    refuse_stale_pack(found.digest, register)
    print(f"{pack}: whole and unchanged, {found.images} synthetic images.")
    print(f"Its digest is {found.digest}: compare it with the sender's.")


def export(run_dir: Annotated[Path, Parameter(name="RUN")], to: Annotated[Path, Parameter(name="DIR")]) -> None:
    """Copy RUN into DIR with everything that it links to, so that it can be moved: as confidential as RUN itself."""
    require_run(run_dir)
    from flows.export import export_run

    print(f"Exported: {export_run(run_dir, to) / 2**20:,.0f} MiB into {to}. It is as confidential as the run.")


def report(
    run_dir: Annotated[Path, Parameter(name="RUN")],
    *,
    shareable: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Write the report of RUN again; --shareable leaves out every real image and id."""
    require_run(run_dir)
    make_folder(run_dir, "Give it back its permission to be written, or copy the run.")
    from pipeline.report.page import write_report

    print(f"Report: {write_report(run_dir, shareable=shareable)}")


def verdict(
    predictions: Path,
    *,
    plan: Annotated[
        Path | None,
        Parameter(help="A run directory, or a configuration: its verdict section, disease side and seed apply."),
    ] = None,
) -> None:
    """Print the utility verdict on PREDICTIONS, anyone's table in the form of predictions.csv, as JSON.

    With the run's own plan the bounds are those of the run's verdict.json. The generators are not looked at.
    """
    from pipeline.config.loading import load_experiment
    from pipeline.verdict.decide import read_predictions
    from pipeline.verdict.lone import judge_alone

    found = judge_alone(read_predictions(predictions), load_experiment(_config_of(plan)) if plan else None)
    print(json.dumps(found.as_json(), indent=2))


def compare(
    *runs: Path,
    as_json: Annotated[bool, Parameter(name="--json", negative="", help="Print JSON.")] = False,
    out: Annotated[Path | None, Parameter(help="Write a page too, such as compare.html: one file, no network.")] = None,
) -> None:
    """Print the arms of finished RUNS side by side, paired where they tested the same patients."""
    from pipeline.config.loading import load_experiment
    from pipeline.report.comparison_lines import comparison_lines
    from pipeline.verdict.compare import compare_runs, names_of

    if out is not None and (out.suffix != ".html" or out.is_dir()):
        raise UserError(f"--out {out}: is no name of a page. Give a file that ends in .html, such as compare.html.")
    found = compare_runs(runs)
    print(found.to_json(orient="records", indent=2) if as_json else "\n".join(comparison_lines(found)))
    if out is not None:
        make_folder(out.parent)
        from pipeline.report.comparison_page import write_comparison_page

        made = {name: load_experiment(run / CONFIG) for name, run in zip(names_of(runs), runs, strict=True)}
        print(f"Page: {write_comparison_page(found, made, out)}", file=sys.stderr if as_json else sys.stdout)


def families(*, as_json: Annotated[bool, Parameter(name="--json", negative="", help="Print JSON.")] = False) -> None:
    """List the GAN families: name, dimensions, conditions, source, and what each cannot do."""
    from flows.listing import print_families

    print_families(as_json=as_json)


def detectors(*, as_json: Annotated[bool, Parameter(name="--json", negative="", help="Print JSON.")] = False) -> None:
    """List the anomaly detectors: name, group, dimensions, whether each has maps and needs a GAN, source."""
    from flows.listing import print_detectors

    print_detectors(as_json=as_json)


def attacks(*, as_json: Annotated[bool, Parameter(name="--json", negative="", help="Print JSON.")] = False) -> None:
    """List the attacks of the audit: name, what the attacker holds, whether each has a say in the release, source."""
    from flows.listing import print_attacks

    print_attacks(as_json=as_json)


def require_run(run_dir: Path) -> None:
    """Refuse a folder that no run is in.

    Raises:
        UserError: as above.
    """
    if not os.path.exists(run_dir / LOCK):  # unlike Path.exists, it takes names that are too long
        raise UserError(f"{run_dir}: is not a run directory. Give what `radaug run` wrote, such as runs/demo.")


def _config_of(plan: Path) -> Path:
    """The configuration that `plan` is, or that a run left in the directory `plan`."""
    if not plan.is_dir():
        return plan
    if not (plan / CONFIG).is_file():
        raise UserError(
            f"--plan {plan}: holds no config.yaml. Give a run directory, such as runs/demo, or a YAML file."
        )
    return plan / CONFIG


COMMANDS = (sample, score, audit, release, verify, export, report, verdict, compare, families, detectors, attacks)

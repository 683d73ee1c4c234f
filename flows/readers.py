"""`radaug readers`: a blinded study of a run's images, and what its readers' answers say."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

readers = App(name="readers")


@readers.default
def make(
    run_dir: Annotated[Path, Parameter(name="RUN")],
    *,
    out: Annotated[Path, Parameter(help="A new folder, for the page and, apart from it, the key.")],
    images: Annotated[int, Parameter(help="Half are real, half synthetic.")] = 60,
    seed: Annotated[int, Parameter(help="Another one draws other images; the same one the same.")] = 0,
    pack: Annotated[
        Path | None,
        Parameter(help="Show synthetic images of this release pack of RUN alone, so that the page may leave."),
    ] = None,
) -> None:
    """Write a blinded reader study of RUN's images into OUT: one offline page for the readers, and the key beside it.

    Real images are of held-out patients: the page is as confidential as they are, and it is a look at them, which is
    put into the ledger.
    """
    from flows.ledger import LEDGER, note_readers
    from flows.result_commands import require_run
    from flows.run_directory import cache_of
    from pipeline.core.layout import STAGES
    from pipeline.reader_study.draw import draw_images
    from pipeline.reader_study.files import KEY, PAGE, REAL
    from pipeline.reader_study.page import make_study
    from pipeline.reader_study.words import expectation

    require_run(run_dir)
    drawn = draw_images(run_dir, images, seed, _released(pack))
    study = make_study(drawn, out, seed)
    size = (out / PAGE).stat().st_size / 2**20
    print(f"Page for the readers: {out / PAGE}, {size:.1f} MiB. Give them this file and nothing else.")
    print(f"Key with the truth: {out / KEY}. Keep it to yourself.")
    if pack is None:
        split = run_dir / STAGES / "split"
        cache = split.resolve().parent if split.is_symlink() else cache_of(run_dir)
        own = study.key.loc[study.key["origin"] == REAL, "image_id"]
        patients = note_readers(cache, split, drawn.experiment, study.name, own)
        print(f"It shows {patients} test patients and is a look at them, which is in the ledger now: {cache / LEDGER}.")
        print(expectation(images))


def _released(pack: Path | None) -> frozenset[str] | None:
    """Digests of the images of a pack, which must be whole."""
    if pack is None:
        return None
    from pipeline.data.batches.dataset import read_table
    from pipeline.release.material import PROVENANCE
    from pipeline.release.verify import PAYLOAD, verify_pack

    verify_pack(pack)
    return frozenset(read_table(pack / PAYLOAD / PROVENANCE)["pixel_digest"])


@readers.command
def score(
    study: Annotated[Path, Parameter(name="STUDY")],
    /,
    *answers: Annotated[Path, Parameter(name="ANSWERS", help="What the page saved, a file a reader.")],
    difference: Annotated[
        float, Parameter(help="For which it is said how many images and readers show it; 0.1 = 10 points.")
    ] = 0.1,
) -> None:
    """Say what the readers' files ANSWERS to STUDY show, and write STUDY/metrics.csv.

    How well they told synthetic images from real ones, whether the diagnosis is as often right on both, and how far
    readers agree: with intervals over readers and images.
    """
    from pipeline.core.errors import UserError
    from pipeline.core.layout import METRICS_FILE
    from pipeline.core.metrics import write_metrics
    from pipeline.reader_study.answers import read_answers
    from pipeline.reader_study.files import read_study
    from pipeline.reader_study.score import score as score_study
    from pipeline.reader_study.words import sentences

    if not 0 < difference < 1:
        raise UserError(f"--difference {difference:g}: must lie between 0 and 1, such as 0.1 for 10 points.")
    known = read_study(study)
    found = score_study(known, read_answers(answers, known))
    write_metrics(study, found.rows)
    print(f"Readers: {', '.join(found.readers)}. Images: {len(known.key)}.")
    print("\n".join(sentences(found, difference)))
    print(f"All figures: {study / METRICS_FILE}")

"""`radaug audit RUN`: the release verdict again, from the run's evidence and the weights as they lie there now."""

from __future__ import annotations

from pathlib import Path

from flows.withdrawn import told_stale
from pipeline.config.loading import load_experiment
from pipeline.core.decisions import Decision
from pipeline.core.errors import LeakageError
from pipeline.core.files import digest_file, write_text
from pipeline.core.layout import CONFIG, MANIFEST, RECORD, SPLITS_FILE, STAGES
from pipeline.core.records import Record, records_of
from pipeline.data.batches.dataset import read_table
from pipeline.data.cohort.leakage import assert_no_leakage
from pipeline.synthesis.sample import released_generator
from pipeline.verdict.release import REFUSE, RELEASE, release_verdict

_WEIGHTS = "generator.safetensors"
NOT_RELEASED, MARK = "NOT-RELEASED.txt", "not-released-"


def audit_run(run_dir: Path) -> Decision:
    """Judge the generator that the run's `release:` names, by the attacks that were made on it.

    Beside what the run itself decided by, it reads the split, the generator's record and the file of its weights: an
    audit of other weights, or one that counts a member as unseen, refuses; so does one whose patients have withdrawn.

    Raises:
        UserError: the run has no such generator.
    """
    experiment = load_experiment(run_dir / CONFIG)
    checkpoint, inputs = released_generator(run_dir)
    places = [one for one in sorted((run_dir / STAGES).iterdir()) if (one / RECORD).is_file()]
    records = [record for record, _ in records_of(places, "fit-gan", "privacy", "attack")]
    found = release_verdict(records, experiment.release, experiment.privacy)
    stale = told_stale(run_dir)
    refused = _changed(checkpoint, records) + _leaking(inputs["split"]) + ([stale] if stale else [])
    if not refused:
        return found
    kept = found["reasons"] if found["decision"] == REFUSE else []
    return {"decision": REFUSE, "reasons": [*refused, *kept], "evidence": found["evidence"]}


def mark_of(run_dir: Path, out: Path, truncation_psi: float) -> str:
    """What names of files in `out` begin with: nothing where the run's generator may leave the building.

    Else a file in `out` says why it may not. Images of another truncation than the run's were not audited.
    """
    found = audit_run(run_dir)
    reasons = list(found["reasons"])
    audited = load_experiment(run_dir / CONFIG).synthesis.truncation_psi
    if truncation_psi != audited:
        reasons.insert(0, f"The images of truncation {audited:g} were audited, and not those of {truncation_psi:g}.")
    elif found["decision"] == RELEASE:
        return ""
    said = "These images may not leave the building: the generator is not released."
    write_text(out / NOT_RELEASED, "\n".join([said, *reasons]) + "\n")
    return MARK


def _changed(checkpoint: Path, records: list[Record]) -> list[str]:
    """Whether the weights are not those that were attacked."""
    now = digest_file(checkpoint / _WEIGHTS)
    audited = {str(one.extra["weights"]) for one in records if one.kind == "attack"}
    if audited <= {now}:
        return []
    return ["The generator's weights are not those that were audited: they were changed since. Do `radaug run` again."]


def _leaking(split: Path) -> list[str]:
    try:
        assert_no_leakage(read_table(split / SPLITS_FILE), read_table(split / MANIFEST))
    except LeakageError as error:
        return [f"A member counts as unseen: {error}"]
    return []

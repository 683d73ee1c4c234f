"""Studies from a real Orthanc and released packs to it, by DICOMweb and DICOM's own protocol; and what goes wrong."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from dicom_making import write_slice
from ingesting import config
from orthanc import PASSWORD, USER, Orthanc, orthanc
from packs import material

from flows.cli import launch
from flows.deploy import build_deployment, read_cron
from flows.flow import bring_new_studies, experiment_flow
from flows.ledger import settings_of
from flows.pacs.archive import open_archive
from flows.pacs.fetch import fetch_studies
from flows.pacs.send import send_pack
from pipeline.config.loading import load_experiment
from pipeline.core.errors import ConfigError, UserError
from pipeline.core.files import digest_file
from pipeline.data import ingest
from pipeline.data.batches.dataset import read_table
from pipeline.data.exchanged import checked_uid
from pipeline.data.file_parts import dicom_marks
from pipeline.release.material import Wanted
from pipeline.release.pack import write_pack

WHERE = ["--where", "StudyDate=20260101-20261231"]
WAYS = ("web", "get", "move")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orthanc]:
    with orthanc(tmp_path_factory.mktemp("orthanc")) as found:
        yield found


@pytest.fixture
def pacs(server: Orthanc) -> Orthanc:
    server.empty()
    return server


def address(pacs: Orthanc, way: str) -> list[str]:
    return [pacs.web] if way == "web" else [pacs.dimse, *(["--move-port", str(pacs.our_port)] if way == "move" else [])]


def ct(folder: Path, study: int, numbers: Sequence[int], **tags: Any) -> list[Path]:
    """Slices of the study, whose patient is P0STUDY."""
    random = np.random.default_rng(study)
    files = []
    for number in numbers:
        ids = {"StudyInstanceUID": f"1.2.{study}", "SeriesInstanceUID": f"1.2.{study}.1", "PatientID": f"P0{study}"}
        ids["SOPInstanceUID"] = f"1.2.{study}.1.{number}"
        facts = {**ids, "StudyDate": "20260301", "InstanceNumber": number + 1, **tags}
        pixels = random.integers(-900, 900, (12, 12)).astype("<i2")
        files.append(write_slice(folder / f"{study}-{number}-{tags.get('Modality', 'CT')}.dcm", pixels, **facts))
    return files


def brought(folder: Path) -> dict[str, list[str]]:
    return {study.name: sorted(path.stem for path in study.rglob("*.dcm"))
            for study in sorted(folder.iterdir()) if not study.name.startswith(".")}  # fmt: skip


@pytest.mark.parametrize("way", WAYS)
def test_studies_come_whole_once_and_again_when_they_have_grown(
    pacs: Orthanc, tmp_path: Path, way: str, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [path for study in (1, 2) for path in ct(tmp_path, study, range(3))]
    other = ct(tmp_path, 1, [9], Modality="MR", SeriesInstanceUID="1.2.1.7")
    old = ct(tmp_path, 3, [0], StudyDate="20200101")
    pacs.upload([*files, *other, *old])
    into = tmp_path / "ward"
    command = ["fetch", *address(pacs, way), "--into", str(into), *WHERE]
    assert launch(command) == 0
    assert "2 studies are new, 0 grew, 0 were here; 6 images came." in capsys.readouterr().out
    assert brought(into) == {f"1.2.{study}": [f"1.2.{study}.1.{n}" for n in range(3)] for study in (1, 2)}
    for path in files:
        sent = pydicom.dcmread(path)
        (got,) = into.rglob(f"{sent.SOPInstanceUID}.dcm")
        assert pydicom.dcmread(got).pixel_array.tobytes() == sent.pixel_array.tobytes()
        assert pydicom.dcmread(got).PatientID == sent.PatientID
    assert launch(command) == 0 and "0 studies are new, 0 grew, 2 were here; 0 images" in capsys.readouterr().out

    pacs.upload(ct(tmp_path, 2, [3]))
    assert launch(command) == 0 and "0 studies are new, 1 grew, 1 were here; 4 images" in capsys.readouterr().out
    assert len(brought(into)["1.2.2"]) == 4
    pacs.empty()
    pacs.upload(files[:3])
    assert launch(command) == 0 and "1 in the folder are not found by this query" in capsys.readouterr().out
    assert len(brought(into)) == 2 and not [path for path in into.iterdir() if path.name.startswith(".1")]


def test_a_configuration_reads_the_folder(pacs: Orthanc, tmp_path: Path) -> None:
    pacs.upload([path for study in (1, 2, 3) for path in ct(tmp_path, study, range(2))])
    assert launch(["fetch", pacs.web, "--into", str(tmp_path / "ward"), *WHERE]) == 0
    (tmp_path / "labels.csv").write_text("patient_id,label\nP01,a\nP02,b\nP03,b\n")
    labels = str(tmp_path / "labels.csv")
    source = {"kind": "dicom", "path": str(tmp_path / "ward"), "labels": labels, "key": "patient"}
    (tmp_path / "out").mkdir()
    ingest.run(config(source), {}, tmp_path / "out")
    manifest = read_table(tmp_path / "out" / "manifest.csv")
    assert sorted(manifest["patient_id"]) == ["P01", "P01", "P02", "P02", "P03", "P03"]


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("pack")
    write_pack(material(place), place / "pack", Wanted(("dicom", "png"), generator=False))
    return place / "pack"


@pytest.mark.parametrize("way", ["web", "get"])
def test_a_released_pack_is_sent_marked_synthetic_and_asked_for(
    pacs: Orthanc, pack: Path, tmp_path: Path, way: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in range(2):  # the second time nothing is doubled
        assert launch(["send", str(pack), *address(pacs, way)]) == 0
        assert "4 synthetic images are in the PACS" in capsys.readouterr().out
        assert len(pacs.ask("/instances")) == 4  # type: ignore[arg-type]
    with open_archive(pacs.web) as archive:
        for study in archive.studies({}):
            for series in archive.series(study):
                archive.fetch(study, series, tmp_path)
    back = sorted(tmp_path.rglob("*.dcm"))
    assert len(back) == 4 and not [wrong for path in back for wrong in dicom_marks(path)]


def test_a_pack_that_is_not_whole_or_is_stale_is_not_sent(
    pacs: Orthanc, pack: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    changed = Path(shutil.copytree(pack, tmp_path / "changed"))
    next(changed.rglob("*.dcm")).write_bytes(b"swapped")
    assert launch(["send", str(changed), pacs.web]) == 3 and "was changed" in capsys.readouterr().err
    assert launch(["send", str(tmp_path), pacs.web]) == 2
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    note = tmp_path / "home" / "radaug" / "packs" / digest_file(pack / "tagmanifest-sha256.txt")
    note.parent.mkdir(parents=True)
    note.write_text(str(tmp_path / "register.json"))
    assert launch(["send", str(pack), pacs.web]) == 3 and "is not there. Bring it back" in capsys.readouterr().err
    assert pacs.ask("/instances") == []


@pytest.mark.parametrize("way", ["web", "get"])
def test_a_pacs_that_says_yes_and_keeps_nothing_is_found_out(
    tmp_path: Path, pack: Path, way: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with orthanc(tmp_path, forgetful=True) as pacs:
        assert launch(["send", str(pack), *address(pacs, way)]) == 2
    assert "it took 4 images, and 4 of them are not there" in capsys.readouterr().err


@pytest.fixture
def guarded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Orthanc]:
    """One that speaks TLS alone, and wants our name, password and certificate; we have all of them."""
    (tmp_path / "orthanc").mkdir()
    with orthanc(tmp_path / "orthanc", guarded=True) as found:
        for name, value in {"CA": found.certificate, "CERTIFICATE": found.certificate, "USER": USER}.items():
            monkeypatch.setenv(f"RADAUG_PACS_{name}", str(value))
        monkeypatch.setenv("RADAUG_PACS_PASSWORD", PASSWORD)
        yield found


def test_a_guarded_pacs_lets_in_whoever_has_password_and_certificates(
    guarded: Orthanc,
    pack: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Studies come and packs go by DICOMweb and by C-GET and C-STORE; what is lacking is told, and no secret ever."""
    caplog.set_level(logging.DEBUG)
    guarded.upload(ct(tmp_path, 1, range(2)))
    for number, address in enumerate((guarded.web, guarded.dimse)):
        fetch = ["fetch", address, "--into", str(tmp_path / f"ward{number}"), *WHERE]
        assert launch(fetch) == 0 and "1 studies are new" in capsys.readouterr().out
        assert launch(["send", str(pack), address]) == 0
        with monkeypatch.context() as lacking:
            lacking.delenv("RADAUG_PACS_CA")
            assert launch(fetch) == 2
            assert "RADAUG_PACS_CA" in capsys.readouterr().err
    assert len(guarded.ask("/instances")) == 6  # type: ignore[arg-type]
    monkeypatch.setenv("RADAUG_PACS_PASSWORD", f"{PASSWORD}!")
    fetch = ["fetch", guarded.web, "--into", str(tmp_path / "ward"), *WHERE]
    assert launch(["--debug", *fetch]) == 2
    said = capsys.readouterr()
    assert "answered 401" in said.err and "RADAUG_PACS_USER and RADAUG_PACS_PASSWORD" in said.err
    assert PASSWORD not in said.err + said.out + caplog.text
    monkeypatch.delenv("RADAUG_DEBUG")


def test_a_password_is_not_sent_unencrypted_nor_by_half(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("dicomweb_client")
    fetch = ["fetch", "http://pacs.invalid/dicom-web", "--into", str(tmp_path / "ward"), *WHERE]
    monkeypatch.setenv("RADAUG_PACS_USER", USER)
    assert launch(fetch) == 2 and "one of them is not set" in capsys.readouterr().err
    monkeypatch.setenv("RADAUG_PACS_PASSWORD", PASSWORD)
    assert launch(fetch) == 2 and "would go unencrypted. Use the https://" in capsys.readouterr().err
    monkeypatch.setenv("RADAUG_PACS_CA", str(tmp_path / "nowhere.pem"))
    fetch[1] = "https://pacs.invalid/dicom-web"
    assert launch(fetch) == 2 and "nowhere.pem is not there" in capsys.readouterr().err


def test_a_scheduled_run_fetches_before_it_reads(
    pacs: Orthanc, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The flow of a schedule brings the studies, and then the run finds them; a PACS that is away ends it before."""
    study = tmp_path / "study.yaml"
    study.write_text(
        "data: {source: {kind: dicom, path: ward, labels: labels.csv, key: patient}, classes: [a, b], positive: [b]}\n"
        f"fetch: {{pacs: '{pacs.web}', where: {{StudyDate: 20260101-20261231}}}}\n"
    )
    monkeypatch.setenv("RADAUG_DATA", str(tmp_path))
    experiment = load_experiment(study)
    deployment = build_deployment(experiment, tmp_path / "run", read_cron("0 2 * * *"))
    found: list[dict[str, list[str]]] = []
    monkeypatch.setattr("flows.flow.bring_new_studies", bring_new_studies.fn)  # a task would start a server
    monkeypatch.setattr("flows.flow._logged", nullcontext)
    monkeypatch.setattr("flows.flow.publish_artifacts", lambda *given: None)
    monkeypatch.setattr("flows.flow.run_experiment", lambda *_, **__: found.append(brought(tmp_path / "ward")) or {})
    (tmp_path / "run").mkdir()
    pacs.upload(ct(tmp_path, 1, range(2)))
    with caplog.at_level(logging.INFO):
        experiment_flow.fn(**deployment.parameters)
    assert found == [{"1.2.1": ["1.2.1.1.0", "1.2.1.1.1"]}] and "1 studies are new" in caplog.text
    away = deployment.parameters["experiment"] | {
        "fetch": {"pacs": "http://127.0.0.1:9/x", "where": {"StudyDate": "1"}}
    }
    with pytest.raises(UserError, match="cannot be reached or broke off") as caught:
        experiment_flow.fn(**deployment.parameters | {"experiment": away})
    assert caught.value.__suppress_context__ and len(found) == 1
    own = load_experiment(study, ["fetch={}"])
    assert not build_deployment(own, tmp_path / "run", read_cron("0 2 * * *")).parameters["fetches"]
    assert settings_of(own) == settings_of(experiment)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("fetch={pacs: 'https://me:secret@pacs/x', where: {StudyDate: '1'}}", "use RADAUG_PACS_USER"),
        ("fetch={pacs: ftp://pacs, where: {StudyDate: '1'}}", "is no address of a PACS"),
        ("fetch={pacs: 'https://pacs/x'}", "name at least one DICOM keyword"),
        ("fetch={pacs: 'https://pacs/x', where: {StudyDate: '1'}}", "whose kind must be dicom"),
    ],
)
def test_what_a_schedule_cannot_fetch_is_told_when_the_configuration_is_read(change: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told) as caught:
        load_experiment(Path(__file__).parents[1] / "configs" / "demo.yaml", [change])
    assert "secret" not in str(caught.value)


class Paper:
    """An archive on paper: study -> series -> instances, with a hand for what goes wrong."""

    def __init__(self, instances: set[str], *, comes: set[str] | None = None, grows: bool = False) -> None:
        self.held, self.comes, self.grows = instances, instances if comes is None else comes, grows

    def studies(self, where: Mapping[str, str]) -> list[str]:
        return ["1.2.3"]

    def series(self, study: str) -> dict[str, str]:
        return {"1.2.3.1": "CT", "1.2.3.2": "SR"}

    def instances(self, study: str, series: str) -> set[str]:
        return set(self.held)

    def fetch(self, study: str, series: str, folder: Path) -> None:
        folder.mkdir(parents=True)
        for one in self.comes:
            (folder / f"{one}.dcm").write_text("an image")
        if self.grows:
            self.held = {*self.held, "1.2.3.1.99"}

    def store(self, files: Sequence[Path]) -> None: ...


WHOLE = {"1.2.3.1.1", "1.2.3.1.2"}


@pytest.mark.parametrize(
    "archive", [Paper(WHOLE, comes={"1.2.3.1.1"}), Paper(WHOLE, comes={*WHOLE, "1.2.3.1.3"}), Paper(WHOLE, grows=True)]
)
def test_a_study_that_is_not_what_the_pacs_says_waits(tmp_path: Path, archive: Paper) -> None:
    done = fetch_studies(archive, tmp_path, {})
    assert (done.incomplete, done.new, done.images) == (1, 0, 0)
    assert "1 are not complete" in done.sentence()
    assert [path.name for path in tmp_path.iterdir()] == [".fetch.lock"]
    assert fetch_studies(Paper(WHOLE), tmp_path, {}).new == 1


def test_a_fetch_that_was_killed_leaves_nothing_half(tmp_path: Path) -> None:
    class Killed(Paper):
        def fetch(self, study: str, series: str, folder: Path) -> None:
            super().fetch(study, series, folder)
            raise KeyboardInterrupt

    fetch_studies(Paper(WHOLE), tmp_path, {})
    with pytest.raises(KeyboardInterrupt):
        fetch_studies(Killed({*WHOLE, "1.2.3.1.3"}), tmp_path, {})
    assert brought(tmp_path) == {"1.2.3": sorted(WHOLE)}
    (tmp_path / "1.2.3").rename(tmp_path / ".replaced-1.2.3")  # killed between the two renames
    (tmp_path / ".1.2.3.fetched").mkdir()
    done = fetch_studies(Paper(WHOLE), tmp_path, {})
    assert (done.there, done.new) == (1, 0) and brought(tmp_path) == {"1.2.3": sorted(WHOLE)}
    assert sorted(path.name for path in tmp_path.iterdir()) == [".fetch.lock", "1.2.3"]


def test_only_uids_name_files() -> None:
    for wrong in ("../../etc/passwd", "", "1.2/3", "1..2", "1" * 65, "."):
        with pytest.raises(UserError, match="missing or malformed"):
            checked_uid(wrong)
    assert checked_uid("1.2.840\0") == "1.2.840"


def test_a_pack_without_dicom_images_is_not_sent(tmp_path: Path) -> None:
    write_pack(material(tmp_path), tmp_path / "pack", Wanted(("png",), generator=False))
    with pytest.raises(UserError, match="--format dicom"):
        send_pack(Paper(set()), tmp_path / "pack")


def test_a_store_that_kept_nothing_is_told(pack: Path) -> None:
    with pytest.raises(UserError, match="it took 4 images, and 4 of them are not there"):
        send_pack(Paper(set()), pack)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # a socket that pynetdicom leaves
@pytest.mark.parametrize(
    ("where", "told"),
    [
        (["http://127.0.0.1:9/dicom-web"], "cannot be reached or broke off"),
        (["dicom://X@127.0.0.1:9"], "cannot be reached"),
        (["ftp://pacs"], "is no address of a PACS"),
        (["http://me:secret@pacs/x"], "Put them into RADAUG_PACS_USER"),
    ],
)
def test_a_wrong_address_is_told_with_its_mend(
    tmp_path: Path, where: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("dicomweb_client")
    pytest.importorskip("pynetdicom")
    assert launch(["fetch", *where, "--into", str(tmp_path / "ward"), *WHERE]) == 2
    said = capsys.readouterr().err
    assert told in said and "secret" not in said


def test_wrong_filters_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["fetch", "http://127.0.0.1:9/dicom-web", "--into", str(tmp_path), "--where"]
    assert launch([*command, "PatientIDs=1"]) == 2 and "did you mean PatientID" in capsys.readouterr().err
    assert launch([*command, "PatientID"]) == 2 and "KEYWORD=VALUE" in capsys.readouterr().err
    assert launch(command[:-1]) == 2

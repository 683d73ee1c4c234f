"""The command line. Heavy libraries are imported inside the commands, so that `--help` answers at once."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import App, Parameter
from rich.console import Console

from flows.environment import user_cache
from flows.faults import DEBUG, faults_kept_in
from flows.gone import leave, print_nowhere
from flows.obeying import NobodyReads, Terminated, ended_by_signals, obey
from flows.pacs.commands import COMMANDS as PACS_COMMANDS
from flows.readers import readers
from flows.result_commands import COMMANDS
from flows.server import start_server, wait_for_server
from pipeline.core.decisions import Verdicts
from pipeline.core.errors import RadaugError, UserError
from pipeline.core.files import make_folder
from pipeline.core.layout import CURVE, FAULT_LOG, REPORT, SUMMARY, VERDICT

if TYPE_CHECKING:
    from pipeline.config.experiment import Experiment

INTERRUPTED, CLOSED = 130, 141
app = App(
    name="radaug",
    version=lambda: version("radaug"),
    help="Does GAN augmentation help a small CT or X-ray data set? For research; nothing here is for diagnosis.",
    result_action="return_value",
    suppress_keyboard_interrupt=False,
)
for command in (*COMMANDS, *PACS_COMMANDS, readers):
    app.command(command)
Overrides = Annotated[
    list[str],
    Parameter(
        name="--set", negative="",
        help="A key with another value than in CONFIG, such as --set gan.family=wgan-gp; may be repeated. Lists as in "
        "YAML: --set 'data.positive=[cyst, metastasis]'.",
    ),
]  # fmt: skip
EngineName = Annotated[
    Literal["prefect", "direct"],
    Parameter(help="prefect: a flow with a local server's pages; direct: the same run without a server."),
]
Yes = Annotated[bool, Parameter(negative="", help="Start, though disk or memory will hardly be enough.")]
Out = Annotated[Path | None, Parameter(name="--out", help="The run directory; runs/NAME unless given.")]


def main() -> None:
    """Entry point of `radaug`."""
    leave(launch(sys.argv[1:]))


def launch(tokens: list[str]) -> int:
    """Run one command line and give its exit code.

    0 finished, whatever the verdicts; 1 a fault of radaug's; 2 wrong input or configuration; 3 refused; 130 Ctrl-C;
    143 SIGTERM; 129 SIGHUP. Where nobody reads on (`radaug families | head`) it ends without a word, with 141, as the
    shell has it; a run goes on.
    """
    if "--debug" in tokens:
        tokens = [token for token in tokens if token != "--debug"]
        os.environ[DEBUG] = "1"
    try:
        with faults_kept_in(user_cache() / FAULT_LOG, "radaug"):
            obey(app, tokens)
    except RadaugError as error:
        if os.environ.get(DEBUG):
            traceback.print_exc()
        print(f"radaug: {error}", file=sys.stderr)
        return error.exit_code
    except NobodyReads:
        print_nowhere()
        return CLOSED
    except Terminated as why:
        return _ended(f"ended by {why.name}", why.exit_code)
    except KeyboardInterrupt:
        return _ended("interrupted", INTERRUPTED)
    return 0


def _ended(what: str, code: int) -> int:
    with suppress(OSError):  # of a terminal that was closed
        print(f"radaug: {what}. Run the same command again to continue; finished stages are kept.", file=sys.stderr)
    return code


@app.command
def init(
    given: Annotated[Path, Parameter(name="FOLDER_OR_TABLE")],
    *,
    out: Annotated[Path, Parameter(help="The configuration to be written; never over one that is there.")] = Path(
        "study.yaml"
    ),
) -> None:
    """Write a first configuration for the images in FOLDER_OR_TABLE (or an npz file); say what was guessed and why."""
    from flows.init import init as write_first_config

    write_first_config(given, out, Console(highlight=False))


@app.command
def run(
    config: Path,
    *,
    out: Out = None,
    engine: EngineName = "prefect",
    yes: Yes = False,
    overrides: Overrides | None = None,
) -> None:
    """Run the experiment in CONFIG and say both verdicts and where the report is. (--debug prints tracebacks.)"""
    experiment = _load_with_data(config, overrides or [])
    place = _run_directory(experiment, out)
    make_folder(place)
    with _ready(engine, place, experiment.compute.engine) as chosen:
        if chosen == "direct":
            from flows.engines import direct_engine
            from flows.running import run_experiment

            verdicts = run_experiment(experiment, place, direct_engine, yes=yes)
        else:
            from flows.flow import run_by_prefect

            verdicts = run_by_prefect(experiment, place, yes=yes)
    print_verdicts(verdicts)
    print(f"Report: {place / REPORT}")
    print(f"On one page: {place / SUMMARY}")


@app.command
def validate(
    config: Path,
    *,
    details: Annotated[bool, Parameter(name="--all", negative="", help="Audit, split and plan, too.")] = False,
    overrides: Overrides | None = None,
) -> None:
    """Say whether CONFIG can run, what it takes, and what it can show on these patients. Trains nothing."""
    experiment = _load_with_data(config, overrides or [])
    from flows.run_directory import cache_of
    from flows.validate import validate as validate_experiment

    validate_experiment(experiment, cache_of(_run_directory(experiment, None)), Console(), details=details)


@app.command
def curve(
    config: Path,
    *,
    sizes: Annotated[tuple[int, ...], Parameter(consume_multiple=True, negative="")] = (10, 25, 50, 100, 200),
    draws: int = 5,
    arm: str = "real+classical+synthetic@1",
    out: Out = None,
    engine: EngineName = "prefect",
    yes: Annotated[
        bool, Parameter(negative="", help="Start, though it takes more than an hour or more room than there is.")
    ] = False,
    overrides: Overrides | None = None,
) -> None:
    """Draw the low-data curve of CONFIG: how many real images is a synthetic set worth?

    For every one of SIZES, the number of real training images a class, up to DRAWS training sets that share no patient,
    each with a GAN of its own. Into runs/NAME-curve unless --out is given. Says first what it takes.
    """
    # every size sets it anew; it is set here for keys that need it, such as data.surplus
    experiment = _load_with_data(config, [*(overrides or []), f"data.train_per_class={max(sizes, default=0)}"])
    place = out or Path("runs") / f"{experiment.name}-curve"
    make_folder(place)
    from flows.curve import curve_cost
    from pipeline.core.progress import in_words

    cost = curve_cost(experiment, sizes, draws, arm)
    most = f"at most {len(sizes) * draws * experiment.gan.gan_seeds} GANs of {experiment.gan.num_images:,} images"
    takes = f"{in_words(cost.minutes)} and {cost.mib / 1024:.1f} GiB of memory a process"
    print(f"{len(sizes)} sizes, up to {draws} draws each: {most}, {takes}, less what the cache holds.")
    if cost.minutes > 60 and not yes:
        raise UserError("This takes more than an hour. Give --yes to start it, or fewer --sizes or --draws.")
    with _ready(engine, place, experiment.compute.engine) as chosen:
        if chosen == "direct":
            from flows.curve import run_curve
            from flows.engines import direct_engine

            sentences = run_curve(experiment, place, direct_engine, sizes, draws, arm, yes=yes)
        else:
            from flows.flow import curve_by_prefect

            sentences = curve_by_prefect(experiment, place, sizes, draws, arm, yes=yes)
    print("\n".join(sentences))
    print(f"Curve: {place / CURVE}")


@app.command
def status(
    place: Annotated[Path, Parameter(name="RUNS")] = Path("runs"),
    *,
    as_json: Annotated[bool, Parameter(name="--json", negative="", help="Print JSON.")] = False,
) -> None:
    """List the runs in RUNS: running, killed, finished, failed or stopped; since when; both verdicts."""
    from flows.status import print_status

    print_status(place, as_json=as_json)


@app.command
def clean(
    place: Annotated[Path, Parameter(name="RUNS")] = Path("runs"),
    *,
    older_than: Annotated[float, Parameter(help="Days since a stage was last used.")] = 30.0,
    most_gib: Annotated[float | None, Parameter(help="Come down to this size, oldest stages first.")] = None,
    yes: Annotated[bool, Parameter(negative="", help="Remove; without it, only say what would be.")] = False,
) -> None:
    """Remove from the cache of RUNS, or from RADAUG_CACHE, what no run links to and nobody used for long."""
    from flows.clean import clean_cache
    from flows.run_directory import cache_of

    found = clean_cache(cache_of(place / "any"), older_than, most_gib, really=yes)
    for entry in found.removed:
        print(entry.place.name)
    print(f"{'Removed' if yes else 'To be removed (say --yes)'}: {found.sentence}")


@app.command
def schedule(
    config: Path,
    *,
    cron: Annotated[str, Parameter(help='In local time, such as "0 2 * * *" for every night at two.')],
    pool: Annotated[str, Parameter(help="Leave it to the workers of this process work pool, and end.")] = "",
    out: Out = None,
    yes: Yes = False,
    overrides: Overrides | None = None,
) -> None:
    """Run the experiment in CONFIG whenever CRON fires, for as long as this command runs; `fetch:` is done before.

    It needs a Prefect server: `prefect server start` in another terminal, or PREFECT_API_URL.
    """
    from flows.deploy import read_cron, register_schedule, serve_schedule

    when = read_cron(cron)
    experiment = _load_with_data(config, overrides or [], fetches=True)
    make_folder(_run_directory(experiment, out))
    if pool:
        register_schedule(experiment, _run_directory(experiment, out), when, pool, yes=yes)
        print(f'{experiment.name}: left to the workers of {pool} by cron "{cron}".')
        return
    print(f'{experiment.name}: served by cron "{cron}". Ctrl-C ends it.')
    serve_schedule(experiment, _run_directory(experiment, out), when, yes=yes)


def print_verdicts(verdict: Verdicts) -> None:
    """Print what earlier looks at the test patients decided, and each verdict's decision with its first reason."""
    for sentence in verdict["looks"]["sentences"] if "looks" in verdict else ():
        print(sentence)
    for name, part in (("Utility", verdict["utility"]), ("Release", verdict["release"])):
        print(f"{name}: {part['decision']}. {part['reasons'][0] if part['reasons'] else ''}".rstrip())


def _load_with_data(config: Path, overrides: list[str], *, fetches: bool = False) -> Experiment:
    """The experiment, after a look whether its data are there; the folder that `fetch:` fills may be made here."""
    from pipeline.config.loading import data_root, load_experiment, require_data

    experiment = load_experiment(config, overrides)
    source = experiment.data.source
    if fetches and experiment.fetch.pacs and source is not None and source.kind == "dicom":
        make_folder(data_root() / source.path, "Name another folder in data.source.path.")
    require_data(experiment, config)
    return experiment


def _run_directory(experiment: Experiment, out: Path | None) -> Path:
    return out or Path("runs") / experiment.name


@contextmanager
def _ready(engine: Literal["prefect", "direct"], place: Path, jobs: str) -> Iterator[Literal["prefect", "direct"]]:
    """Show progress, end on SIGTERM as on Ctrl-C, and give the engine to use: a server that does not start is done
    without, where no other engine has the `jobs`."""
    server = start_server() if engine == "prefect" else None
    if not (place / VERDICT).is_file():
        from flows.children import warm_up

        warm_up()
    from flows.progress import Terminal, progress_shown

    if engine == "prefect":
        import flows.flow  # noqa: F401  (takes as long as the server's start)

        if not wait_for_server(server):
            print("The local Prefect server did not start: without it this is a run with --engine direct.")
            engine = "direct"
    if engine == "direct" and jobs != "local":
        raise UserError(f"compute.engine: {jobs} needs a Prefect server, and there is none. Set it to local.")
    with ended_by_signals(), progress_shown(Terminal()):
        yield engine


if __name__ == "__main__":
    main()

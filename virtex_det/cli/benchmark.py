"""Compare what detectors reach from several starts, with few labels and with many.

python tools/benchmark.py run configs/benchmarks/scenes.yaml             do the missing runs
python tools/benchmark.py table configs/benchmarks/scenes.yaml           the records as a table
python tools/benchmark.py plot configs/benchmarks/scenes.yaml --output curves.svg
python tools/benchmark.py report configs/benchmarks/scenes.yaml --output page.html
"""

import argparse
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from virtex_det.benchmark.comparison import Comparison
from virtex_det.benchmark.conditions import costs
from virtex_det.benchmark.plots import plot_fractions, plot_time, save_figure
from virtex_det.benchmark.report import write_markdown_page
from virtex_det.benchmark.statistics import find_metrics, summarize
from virtex_det.benchmark.tables import FORMATS, render_markdown
from virtex_det.benchmark.wide_table import WIDE_FORMATS, wide_metrics
from virtex_det.cli.parsers import command_parser, natural, positive
from virtex_det.escaping import say
from virtex_det.experiments import Matrix, measured, read_matrix, recorded, report, run_matrix
from virtex_det.experiments.local import LocalLauncher
from virtex_det.experiments.runs import Launcher
from virtex_det.experiments.slurm import Resources, SlurmLauncher
from virtex_det.files import check_output
from virtex_det.pages.theme import line_colours
from virtex_det.protocols.page import PAGE, render
from virtex_det.utils import write_atomically
from virtex_det_commands import as_called


def main(arguments: Sequence[str] | None = None) -> None:
    """Execute a command line."""
    words = sys.argv[1:] if arguments is None else list(arguments)
    options = _parser().parse_args(words)
    options.command = as_called(f"python tools/benchmark.py {shlex.join(words)}")
    for name in ("output", "page", "write_records"):
        check_output(getattr(options, name, None), getattr(options, "matrix", None))
    if options.action is run:
        check_output(options.records, options.matrix)
    options.action(options)


def run(options: argparse.Namespace) -> None:
    """Do the missing runs, then print the table."""
    matrix = read_matrix(options.matrix)
    if options.slurm:
        resources = Resources(
            partition=options.slurm_partition,
            gpus=options.gpus_per_job,
            cpus=options.cpus_per_job,
            minutes=options.minutes,
            memory_gb=options.memory_gb,
            more=dict(options.slurm_option),
        )
        launcher: Launcher = SlurmLauncher(matrix.output / "slurm", resources, options.jobs)
    else:
        launcher = LocalLauncher(options.jobs, options.gpus_per_job)
    comparison = run_matrix(matrix, launcher, options.records)
    print(render_markdown(comparison, summarize(comparison, find_metrics(comparison))))


def table(options: argparse.Namespace) -> None:
    """Print the table, or write the page."""
    matrix = read_matrix(options.matrix)
    comparison = _comparison(matrix, options)
    metrics = find_metrics(comparison, options.metrics)
    if options.write_records:
        comparison.write_records(options.write_records)
    if options.wide:
        metrics = wide_metrics(comparison, options.metrics)
        print(WIDE_FORMATS[options.format](comparison, metrics))
    elif options.page:
        commands = [as_called(f"python tools/benchmark.py run {options.matrix}"), options.command]
        written = write_markdown_page(
            options.page, comparison, cards=matrix.cards(), commands=commands, metrics=metrics
        )
        say(f"written: {' '.join(map(str, written))}")
    else:
        print(FORMATS[options.format](comparison, summarize(comparison, metrics)))


def plot(options: argparse.Namespace) -> None:
    """Draw curves."""
    comparison = _comparison(read_matrix(options.matrix), options)
    summary = summarize(comparison, find_metrics(comparison, options.metrics))
    colours = line_colours(comparison.starts, comparison.baseline)
    if options.against == "fraction":
        figure = plot_fractions(comparison, summary, colours)
    else:
        pretraining = None
        if options.count_pretraining:
            spent = {start: cost.pretraining for start, cost in costs(comparison).items()}
            pretraining = {start: time for start, time in spent.items() if time is not None}
        figure = plot_time(comparison, summary, colours, pretraining)
    save_figure(figure, options.output)
    say(f"written: {options.output}")


def write_html(options: argparse.Namespace) -> None:
    """Write the HTML page."""
    matrix = read_matrix(options.matrix)
    report(matrix, _comparison(matrix, options), options.output)
    say(f"written: {options.output}")


def protocols(options: argparse.Namespace) -> None:
    """Write the page of the protocols."""
    write_atomically(PAGE, render())
    say(f"written: {PAGE}")


def _comparison(matrix: Matrix, options: argparse.Namespace) -> Comparison:
    if options.records:
        return recorded(matrix, options.records, mix=options.mix_protocols, partial=options.partial)
    return measured(matrix, mix=options.mix_protocols, partial=options.partial)


def _parser() -> argparse.ArgumentParser:
    parser = command_parser(__doc__)
    actions = parser.add_subparsers(
        dest="name", required=True, metavar="run | table | plot | report | protocols"
    )

    def add_command(name: str, action: Callable) -> argparse.ArgumentParser:
        command = actions.add_parser(name, help=action.__doc__, description=action.__doc__)
        command.set_defaults(action=action)
        return command

    _add_run(add_command("run", run))
    _add_table(add_command("table", table))
    _add_plot(add_command("plot", plot))
    html = add_command("report", write_html)
    _add_records(html)
    html.add_argument("--output", type=Path, required=True, metavar="PAGE.html")
    add_command("protocols", protocols)
    return parser


def _add_records(parser: argparse.ArgumentParser) -> None:
    mix = "put runs of several recipes into one protocol's table, which says so"
    add = parser.add_argument
    add("matrix", metavar="MATRIX.yaml")
    add("--mix-protocols", action="store_true", help=mix)
    add("--records", type=Path, metavar="FILE.jsonl", help="written records, instead of the runs")
    add("--partial", action="store_true", help="show the complete runs of an unfinished matrix")


def _add_metrics(parser: argparse.ArgumentParser) -> None:
    metrics = "such as bbox/AP50, segm/APs"
    parser.add_argument("--metrics", nargs="+", default=[], metavar="TASK/NAME", help=metrics)


def _add_run(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("matrix", metavar="MATRIX.yaml")
    jobs = "at once; default: one per GPU or core; Slurm: all"
    gpus = "processes of a run, at most the number of GPUs"
    kept = "runs with a record in it are not done again; new records are added as runs end"
    limit = "time limit, after which a job is queued again and resumes"
    add = parser.add_argument
    add("--jobs", type=natural, default=0, metavar="N", help=jobs)
    add("--gpus-per-job", type=natural, default=1, metavar="N", help=gpus)
    add("--records", type=Path, metavar="FILE.jsonl", help=kept)
    add = parser.add_argument_group("on a cluster").add_argument
    add("--slurm", action="store_true", help="each run is a Slurm job; needs submitit")
    add("--slurm-partition", default="", metavar="NAME")
    add("--cpus-per-job", type=positive, default=8, metavar="N")
    add("--memory-gb", type=natural, default=0, metavar="N")
    add("--minutes", type=positive, default=24 * 60, help=limit)
    sbatch = "of sbatch, such as account=me"
    add("--slurm-option", nargs="+", type=_pair, default=[], metavar="KEY=VALUE", help=sbatch)


def _pair(word: str) -> tuple[str, str]:
    key, equals, value = word.partition("=")
    if not (key and equals):
        raise argparse.ArgumentTypeError(f"{word!r} must have the form KEY=VALUE")
    return key, value


def _add_table(parser: argparse.ArgumentParser) -> None:
    _add_records(parser)
    _add_metrics(parser)
    add = parser.add_argument
    add("--format", choices=FORMATS, default="markdown")
    form = parser.add_mutually_exclusive_group().add_argument
    form("--wide", action="store_true", help="all protocols in one table, a row per start")
    form("--page", type=Path, metavar="FILE.md", help="write a page, with its curves beside it")
    records = "write the records of all runs to one file"
    add("--write-records", type=Path, metavar="FILE.jsonl", help=records)


def _add_plot(parser: argparse.ArgumentParser) -> None:
    _add_records(parser)
    _add_metrics(parser)
    add = parser.add_argument
    add("--output", type=Path, required=True, metavar="FILE.svg", help=".png, .svg or .pdf")
    add("--against", choices=["fraction", "time"], default="fraction")
    count = "add its time, where it is known"
    add("--count-pretraining", action="store_true", help=count)

"""The command line: ``selshare train | compare | report | predict | export | doctor``."""

from __future__ import annotations

import inspect
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import wraps
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
import typer
from rich.console import Console

from . import __version__
from .data import Problem, load
from .data import names as data_names
from .data.given_relations import read_relations
from .data.table import find_names, read_table
from .doctor import diagnose
from .doctor_tables import render
from .files import write_whole
from .model.onnx_file import export_onnx
from .report import comparison_table, groups_summary, write_regions, write_report
from .sharing import CRITERIA
from .training.compare import compare as compare_methods
from .training.history import write_json
from .training.method_names import BASELINES, OBJECTIVES
from .training.methods import Result
from .training.metrics import higher_is_better
from .training.saved import example_inputs, load_trained, predict_table, table_columns

app = typer.Typer(
    help="Train many tasks at once, learn which belong together, and merge their branches on the fly.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
console = Console()

Data = Annotated[str, typer.Argument(help=f"{', '.join(data_names())}, a table (my.csv), or my_module:build")]
Targets = Annotated[
    str | None, typer.Option(help="Table: the columns to learn, separated by commas; * stands for anything.")
]
Ignore = Annotated[str | None, typer.Option(help="Table: columns to leave out, such as an identifier.")]
Epochs = Annotated[int | None, typer.Option(min=1, help="Epochs; the data set's own number by default.")]
Output = Annotated[Path | None, typer.Option(help="Run folder; runs/DATA by default.")]
Tasks = Annotated[int | None, typer.Option(min=1, help="synthetic: number of tasks.")]
Groups = Annotated[int | None, typer.Option(min=1, help="synthetic: number of planted groups.")]
Samples = Annotated[int | None, typer.Option(min=1, help="synthetic: training samples; twelve: per task.")]
TrainSize = Annotated[int | None, typer.Option(min=1, help="Images, letters: how many to train on.")]
Trunk = Annotated[str | None, typer.Option(help="fashion-mnist: mlp or cnn.")]
Root = Annotated[Path | None, typer.Option(help="Folder that holds the images, or for letters the fonts.")]
Settings = Annotated[
    list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="Any other option of the data set; repeatable.")
]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress bars.")]
Run = Annotated[Path, typer.Argument(help="A run folder that train or compare wrote.")]
Method = Annotated[str | None, typer.Option(help="Whose weights; by default the sharing criterion's.")]
Seed = Annotated[int | None, typer.Option(help="Whose weights; by default the first seed's.")]
Merge = Annotated[str, typer.Option(help="Merge rule: best, mean, max or min.")]
Preset = Annotated[str, typer.Option(help="default, or paper: the published method to the letter.")]


def _data_options(
    tasks: Tasks = None,
    groups: Groups = None,
    samples: Samples = None,
    train_size: TrainSize = None,
    trunk: Trunk = None,
    root: Root = None,
    targets: Targets = None,
    ignore: Ignore = None,
    settings: Settings = None,
) -> dict[str, Any]:
    """The options of the data set that were given."""
    given: dict[str, Any] = {
        "tasks": tasks,
        "groups": groups,
        "samples": samples,
        "train_size": train_size,
        "trunk": trunk,
        "root": root,
        "targets": targets,
        "ignore": ignore,
    }
    return {name: value for name, value in given.items() if value is not None} | _parsed(settings or [])


def _takes_data_options(command: Callable[..., None]) -> Callable[..., None]:
    """``command`` with the options of :func:`_data_options` in place of its last argument, ``options``."""
    shared = inspect.signature(_data_options, eval_str=True).parameters
    own = inspect.signature(command, eval_str=True)

    @wraps(command)
    def with_options(**given: Any) -> None:
        options = _data_options(**{name: given.pop(name) for name in shared})
        command(**given, options=options)

    parameters = [parameter for name, parameter in own.parameters.items() if name != "options"]
    vars(with_options)["__signature__"] = own.replace(parameters=[*parameters, *shared.values()])
    return with_options


@app.command()
@_takes_data_options
def train(
    data: Data,
    criterion: Annotated[str, typer.Option(help=f"Sharing criterion: {', '.join(CRITERIA)}.")] = "similarity",
    merge: Merge = "best",
    preset: Preset = "default",
    epochs: Epochs = None,
    seed: Annotated[int, typer.Option(help="Of weights, sample order and dropout.")] = 0,
    output: Output = None,
    quiet: Quiet = False,
    *,
    options: dict[str, Any],
) -> None:
    """Train one network per task, all tasks unmerged, and selective sharing; print the table and write the report."""
    folder = output or Path("runs") / _folder_name(data)
    results, errors = _run(
        data,
        ["stl", "mtl", criterion],
        [seed],
        epochs,
        folder,
        options,
        progress=not quiet,
        sharing={"merge": merge, "preset": preset},
    )
    _show(results, errors)
    console.print(f"\nReport: {write_report(folder)}", soft_wrap=True)


@app.command()
@_takes_data_options
def compare(
    data: Data,
    methods: Annotated[
        str,
        typer.Option(
            help=f"Comma-separated: {', '.join((*BASELINES, *CRITERIA, *OBJECTIVES))}; or joined: srdml+similarity."
        ),
    ] = "stl,mtl,similarity,dissimilarity,variance,random",
    srdml_strength: Annotated[float, typer.Option(help="srdml: weight of the regulariser.")] = 0.1,
    relations: Annotated[
        Path | None,
        typer.Option(help="distribution-matching: JSON file of relation tables (docs/objectives.md)."),
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="How many seeds: 0 … N−1.")] = 1,
    merge: Merge = "best",
    preset: Preset = "default",
    epochs: Epochs = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write one row per method and seed here.")] = None,
    output: Output = None,
    quiet: Quiet = False,
    *,
    options: dict[str, Any],
) -> None:
    """Run several methods with several seeds on one data set and print them side by side."""
    folder = output or Path("runs") / f"compare-{_folder_name(data)}"
    names = [name.strip() for name in methods.split(",") if name.strip()]
    results, errors = _run(
        data,
        names,
        list(range(seeds)),
        epochs,
        folder,
        options,
        progress=not quiet,
        sharing={"merge": merge, "preset": preset},
        srdml_strength=srdml_strength,
        relations=relations,
    )
    _show(results, errors)
    if json_file is not None:
        write_json(json_file, [result.to_json() for result in results])
    console.print(f"\nRun folder: {folder} (selshare report {folder} draws it)", soft_wrap=True)


@app.command()
def report(
    run: Run,
) -> None:
    """Write one self-contained HTML page about a run."""
    console.print(f"Report: {write_report(run)}", soft_wrap=True)


@app.command()
def predict(
    run: Run,
    table: Annotated[Path, typer.Argument(help="A table with the columns of the one that was trained on.")],
    output: Annotated[Path, typer.Option(help="The CSV file to write.")] = Path("predictions.csv"),
    keep: Annotated[
        str | None, typer.Option(help="Columns of the table to copy to the output, such as a name.")
    ] = None,
    method: Method = None,
    seed: Seed = None,
) -> None:
    """Predict every task for the rows of a table, with a model that was trained on one."""
    columns = table_columns(run)
    model, weights = load_trained(run, method, seed)
    frame = read_table(table)
    kept = frame[find_names(frame, keep or "")]
    predictions = predict_table(model, columns, frame)
    write_whole(output, pd.concat([kept, predictions], axis=1).to_csv(index=False))
    console.print(f"{len(predictions)} rows by {weights.name}: {output}", soft_wrap=True, highlight=False)


@app.command()
def export(
    run: Run,
    output: Annotated[Path, typer.Option(help="The ONNX file to write.")] = Path("model.onnx"),
    method: Method = None,
    seed: Seed = None,
) -> None:
    """Write a trained model as ONNX, one named output per task; needs selshare[onnx]."""
    model, weights = load_trained(run, method, seed)
    export_onnx(model, example_inputs(run), output)
    console.print(f"{weights.name}, {model.bank.branches} branches: {output}", soft_wrap=True, highlight=False)


@app.command()
def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
) -> None:
    """Say which implementation each operation uses on this machine, and why."""
    found = diagnose()
    if as_json:
        console.print_json(data=found.to_json())
    else:
        console.print(render(found), soft_wrap=False)


@app.callback(invoke_without_command=True)
def options(
    version: Annotated[bool, typer.Option("--version", help="Print the version and stop.", is_eager=True)] = False,
) -> None:
    """Options before the command."""
    if version:
        console.print(__version__)
        raise typer.Exit


def main() -> None:
    """Run the command line; an error that the user can mend is one sentence, not a traceback."""
    try:
        app()
    except (ValueError, TypeError, OSError, ModuleNotFoundError) as error:
        Console(stderr=True).print(f"selshare: {error}", style="red", highlight=False, soft_wrap=True, markup=False)
        sys.exit(2)


def _run(
    data: str,
    methods: list[str],
    seeds: list[int],
    epochs: int | None,
    folder: Path,
    options: dict[str, Any],
    *,
    progress: bool,
    sharing: dict[str, Any],
    srdml_strength: float = 0.1,
    relations: Path | None = None,
) -> tuple[list[Result], set[str]]:
    """Load, train and test; say each result as it comes. The results, and the tasks whose metric is an error."""
    per_seed = data in ("synthetic", "twelve")
    errors: set[str] = set()

    def finished(result: Result) -> None:
        console.print(f"{result.method}, seed {result.seed}: mean metric {result.mean_metric:.4f}", highlight=False)

    def problem_for(seed: int) -> Problem:
        problem = load(data, **options, **({"seed": seed} if per_seed else {}))
        if problem.columns is not None and seed == seeds[0]:
            console.print("\n".join(problem.columns.describe()), highlight=False, soft_wrap=True, markup=False)
        errors.update(task.name for task in problem.tasks if not higher_is_better(task))
        return problem if relations is None else replace(problem, relations=read_relations(relations, problem))

    results = compare_methods(
        problem_for,
        methods,
        seeds=seeds,
        epochs=epochs,
        folder=folder,
        progress=progress,
        sharing_options=sharing,
        objective_options={"srdml": {"strength": srdml_strength}},
        source={"data": data, "options": {name: _plain(value) for name, value in options.items()}},
        finished=finished,
        also_write=write_regions,
    )
    return results, errors


def _show(results: list[Result], errors: set[str]) -> None:
    """The table, and the groups under it."""
    rows = [result.to_json() for result in results]
    console.print(comparison_table(rows, lower_is_better=errors))
    console.print(groups_summary(rows), soft_wrap=True)


def _parsed(settings: list[str]) -> dict[str, Any]:
    """``name=value`` pairs; values are read as JSON where they are, else as text."""
    parsed: dict[str, Any] = {}
    for setting in settings:
        name, equals, value = setting.partition("=")
        if not equals or not name:
            raise ValueError(f"--set takes name=value; it was given {setting!r}.")
        try:
            parsed[name.replace("-", "_")] = json.loads(value)
        except json.JSONDecodeError:
            parsed[name.replace("-", "_")] = value
    return parsed


def _folder_name(data: str) -> str:
    """A folder name for a data set: ``my_module:build`` has a colon, a table its folder and ending."""
    return Path(data).stem.replace(":", "-")


def _plain(value: Any) -> Any:
    """An option as JSON has it; a path is made absolute, so that it is found from elsewhere."""
    return str(value.absolute()) if isinstance(value, Path) else value

"""Several methods on one problem, with several seeds, into a run folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors.torch import save

from ..data import Problem
from ..files import write_whole
from .history import write_json
from .method_names import check_methods
from .methods import Result, Run, run_method
from .saved import describe_problem, weights_file


def compare(
    problem_for: Callable[[int], Problem],
    methods: Sequence[str],
    *,
    seeds: Sequence[int] = (0,),
    epochs: int | None = None,
    folder: Path | None = None,
    progress: bool = True,
    sharing_options: dict[str, Any] | None = None,
    objective_options: Mapping[str, Mapping[str, Any]] | None = None,
    source: Mapping[str, Any] | None = None,
    finished: Callable[[Result], None] = lambda result: None,
    also_write: Callable[[Path, Problem, Run], object] = lambda folder, problem, run: None,
) -> list[Result]:
    """Run every method with every seed.

    Parameters
    ----------
    problem_for
        Gives the problem for a seed; the planted one differs from seed to seed, data from disk does not.
    methods
        See :func:`selshare.training.methods.run_method`.
    seeds, epochs, progress, sharing_options, objective_options
        As there.
    folder
        Where to write, after each run, ``results.json`` (all rows so far), ``<method>-seed<k>.json`` (the history,
        and the relations that srdml has learned) and ``<method>-seed<k>.safetensors`` (the weights). Nothing is
        written when ``None``.
    source
        How to load the problem again, ``{"data": name, "options": {…}}``: written beside the results, so that
        :func:`selshare.training.saved.load_trained` finds it.
    finished
        Called with each row as it is ready.
    also_write
        Called with the folder, the problem and each run, to write more there.

    Raises
    ------
    ValueError
        If a method is unknown; before anything is trained.
    OSError
        If the folder cannot be written to; before anything is trained, where that is so from the start.
    """
    check_methods(list(methods))
    results: list[Result] = []
    for seed in seeds:
        problem = problem_for(seed)
        if folder is not None:  # before any training: a folder that cannot be written to is known now
            write_json(folder / "problem.json", describe_problem(problem, source or {}))
        for method in methods:
            run = run_method(
                problem,
                method,
                seed=seed,
                epochs=epochs,
                progress=progress,
                sharing_options=sharing_options,
                objective_options=objective_options,
            )
            results.append(run.result)
            if folder is not None:
                _write(folder, run, results)
                also_write(folder, problem, run)
            finished(run.result)
    return results


def _write(folder: Path, run: Run, results: list[Result]) -> None:
    """Everything known after one more run."""
    name = f"{run.result.method}-seed{run.result.seed}"
    if run.history is not None:
        learned = {} if run.relations is None else {"relations": run.relations.to_json()}
        write_json(folder / f"{name}.json", run.history.to_json() | learned)
    if run.model is not None:
        state = {key: tensor.contiguous() for key, tensor in run.model.state_dict().items()}
        write_whole(weights_file(folder, run.result.method, run.result.seed), save(state))
    write_json(folder / "results.json", [result.to_json() for result in results])

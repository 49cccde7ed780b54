"""Several methods, or several settings of one, in one table."""

from __future__ import annotations

import html
import itertools
import math
import statistics
from typing import Any, Iterable, Iterator, Mapping, Sequence

from . import _onward
from ._data import Data, Pair
from ._run import train

#: A method: `"architecture"`, `"architecture:preset"`, or a dictionary with `architecture` and settings.
Method = str | Mapping[str, Any]

#: What should stand beside every method.
BASELINES: dict[str, Method] = {
    "backprop": "backprop",
    "deep supervision": {"architecture": "backprop", "classifiers": "each"},
    "random layers": {"architecture": "progressive", "frozen": True},
}


#: What the tables show of a summary as it is, and its heading.
_COSTS = {
    "parameters": "parameters",
    "multiply_adds_per_example": "MACs",
    "seconds_per_epoch": "s/epoch",
    "joules_per_epoch": "J/epoch",
    "peak_memory_mb": "MB",
}
_HEADS = ["method", "rule", "seeds", "epochs", "validation", "test", *_COSTS.values()]


class Table(Sequence[dict[str, Any]]):
    """Rows as dictionaries, for `pandas.DataFrame(table)`, best validation error first.

    method, class of its rule, seeds, epochs, validation and test error (means over the seeds) with their
    deviations, parameters, multiply_adds_per_example (multiplications of training for one example, without
    tests), seconds_per_epoch, joules_per_epoch and peak_memory_mb (means, where the machine tells them),
    and the problem of a method without a result. The peak is that of the whole Python process so far.
    """

    def __init__(self, rows: Iterable[dict[str, Any]]):
        def place(row: dict[str, Any]) -> float:
            known = (row[part] for part in ("validation", "test") if row[part] is not None)
            return next(known, math.inf)

        self.rows = sorted(rows, key=place)

    def __getitem__(self, index: Any) -> Any:
        return self.rows[index]

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def best(self) -> dict[str, Any]:
        """The row with the lowest validation error."""
        if not self.rows or self.rows[0]["problem"] is not None:
            raise _onward.OnwardError("no method of the table has a result")
        return self.rows[0]

    def _cells(self) -> list[list[str]]:
        """The methods with a result."""
        return [
            [
                row["method"],
                row["rule"],
                str(row["seeds"]),
                str(row["epochs"]),
                _percent(row["validation"], row["validation_deviation"]),
                _percent(row["test"], row["test_deviation"]),
                *(_short(row[cost]) for cost in _COSTS),
            ]
            for row in self.rows
            if row["problem"] is None
        ]

    def _problems(self) -> list[tuple[str, str]]:
        return [(row["method"], row["problem"]) for row in self.rows if row["problem"] is not None]

    def __repr__(self) -> str:
        cells = [_HEADS, *self._cells()]
        widths = [max(map(len, column)) for column in zip(*cells)]
        padded = ((cell.ljust(width) for cell, width in zip(row, widths)) for row in cells)
        lines = ["  ".join(row).rstrip() for row in padded]
        return "\n".join(lines + [f"{method}: {problem}" for method, problem in self._problems()])

    def _repr_html_(self) -> str:
        def line(cells: Iterable[str], tag: str = "td") -> str:
            return "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells)

        rows = [line(_HEADS, "th"), *map(line, self._cells())]
        for method, problem in self._problems():
            rows.append(f'{line([method])}<td colspan="{len(_HEADS) - 1}">{html.escape(problem)}</td>')
        return f"<table>{''.join(f'<tr>{row}</tr>' for row in rows)}</table>"


def compare(
    methods: Sequence[str] | Mapping[str, Method],
    data: str | Data | Pair,
    *,
    seeds: Iterable[int] = (1,),
    baselines: bool = True,
    verbose: bool = True,
    **settings: Any,
) -> Table:
    """Trains several methods on the same data, with the same settings beside their own.

    methods: names like `"progressive:predsim"` (architecture and preset), or a dictionary of labels and
    methods. baselines: also train backpropagation with one classifier and with one for each layer, and
    random layers with a trained head. A method that
    fails is a row with its problem. The command `onward compare` keeps every run in a folder and can be
    interrupted.

    >>> import onward
    >>> table = onward.compare(["progressive:predsim"], "digits", hidden=[30], epochs=1,
    ...                        data__size=600, verbose=False)
    >>> sorted(row["method"] for row in table)
    ['backprop', 'deep supervision', 'progressive:predsim', 'random layers']
    """
    methods = [methods] if isinstance(methods, str) else methods
    named = dict(methods) if isinstance(methods, Mapping) else {method: method for method in methods}
    seeds = _seeds(seeds, settings)
    if baselines:
        named = {**named, **{label: method for label, method in BASELINES.items() if label not in named}}
    rows = (
        _row(label, data, {**settings, **_settings_of(method)}, seeds, verbose)
        for label, method in named.items()
    )
    return Table(rows)


def sweep(
    architecture: str,
    data: str | Data | Pair,
    grid: Mapping[str, Sequence[Any]],
    *,
    seeds: Iterable[int] = (1,),
    verbose: bool = True,
    **settings: Any,
) -> Table:
    """Trains with every combination of the values in a grid, and chooses by the validation error.

    The test error is shown for the best combination alone.

    >>> import onward
    >>> table = onward.sweep("progressive:predsim", "digits", {"lr": [0.0001, 0.003]}, hidden=[30],
    ...                      epochs=1, data__size=600, verbose=False)
    >>> table.best["method"], table[1]["test"]
    ('lr=0.003', None)
    """
    lists, seeds, rows = _lists(grid), _seeds(seeds, settings), []
    for values in itertools.product(*lists.values()):
        chosen = dict(zip(lists, values))
        label = ", ".join(f"{key.replace('__', '.')}={value}" for key, value in chosen.items())
        given = {**settings, **_settings_of(architecture), **chosen}
        rows.append(_row(label, data, given, seeds, verbose, "validation"))
    if any(row["problem"] is None and row["validation"] is None for row in rows):
        raise _onward.OnwardError("sweep: found no validation part to choose by; leave out validate=False")
    table = Table(rows)
    for row in table[1:]:
        row["test"] = row["test_deviation"] = None
    return table


def _lists(grid: Mapping[str, Iterable[Any]]) -> dict[str, list[Any]]:
    def is_list(values: Any) -> bool:
        return isinstance(values, Iterable) and not isinstance(values, str)

    if isinstance(grid, Mapping) and grid and all(map(is_list, grid.values())):
        lists = {key: [*values] for key, values in grid.items()}
        if all(lists.values()):
            return lists
    raise _onward.OnwardError(f"grid: expected settings with a list of values each, found {grid}")


def _seeds(seeds: Iterable[int], settings: Mapping[str, Any]) -> list[int]:
    found = [seeds] if isinstance(seeds, int) else [*seeds]
    if not found or "seed" in settings:
        raise _onward.OnwardError("seeds: expected one or more seeds, and no setting `seed`")
    return found


def _settings_of(method: Method) -> dict[str, Any]:
    """The arguments of `train` for a method."""
    if isinstance(method, Mapping):
        return dict(method)
    architecture, _, preset = method.partition(":")
    return {"architecture": architecture, **({"preset": preset} if preset else {})}


def _row(
    label: str,
    data: str | Data | Pair,
    settings: dict[str, Any],
    seeds: list[int],
    verbose: bool,
    part: str = "test",
) -> dict[str, Any]:
    """Trains with every seed. part: the part of the data whose error is printed."""
    parts = ["method", "rule", "seeds", "epochs", "validation", "validation_deviation", "test", "test_deviation"]
    row: dict[str, Any] = dict.fromkeys([*parts, *_COSTS, "problem"])
    row.update(method=label, seeds=0)
    summaries = []
    for seed in seeds:
        try:
            run = train(data=data, seed=seed, verbose=False, **settings)
        except (_onward.OnwardError, OSError, TypeError) as error:
            if verbose:
                print(f"{label}: {error}", flush=True)
            return {**row, "problem": str(error)}
        summaries.append(run.summary)
        if verbose and run.summary[part]:
            print(f"{label}, seed {seed}: {part} error {_percent(run.summary[part]['error'])}", flush=True)
    # With `patience` they may differ.
    row.update(seeds=len(seeds), epochs=max(summary["epochs"] for summary in summaries), rule=summaries[0]["rule"]["class"])
    for cost in _COSTS:
        known = [summary[cost] for summary in summaries if summary.get(cost) is not None]
        if known:
            row[cost] = statistics.fmean(known)
    for name in ("validation", "test"):
        errors = [summary[name]["error"] for summary in summaries if summary[name]]
        if errors:
            row[name] = statistics.fmean(errors)
        if len(errors) > 1:
            row[f"{name}_deviation"] = statistics.stdev(errors)
    return row


def _short(number: float | None) -> str:
    """Three digits: `6.23M`; a dash for a number that is not known."""
    if number is None:
        return "–"
    for unit, name in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= 0.9995 * unit:
            return f"{number / unit:.3g}{name}"
    return f"{number:.3g}"


def _percent(error: float | None, deviation: float | None = None) -> str:
    if error is None:
        return "–"
    if deviation is None:
        return f"{100 * error:.2f}%"
    return f"{100 * error:.2f} ± {100 * deviation:.2f}%"

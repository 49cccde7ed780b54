"""Several methods, or several settings of one, in one table."""

from __future__ import annotations

import html
import itertools
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
    "random layers": {"architecture": "progressive", "frozen": True},
}


class Table(Sequence[dict[str, Any]]):
    """Rows as dictionaries, for `pandas.DataFrame(table)`, best validation error first.

    method, seeds, validation and test error (means over the seeds) with their deviations, seconds of
    training, parameters, and the problem of a method without a result.
    """

    def __init__(self, rows: Iterable[dict[str, Any]]):
        def place(row: dict[str, Any]) -> tuple[bool, float]:
            error = row["validation"] if row["validation"] is not None else row["test"]
            return error is None, error if error is not None else 0.0

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

    def _cells(self) -> Iterator[list[str]]:
        yield ["method", "seeds", "validation", "test", "seconds", "parameters"]
        for row in self.rows:
            if row["problem"] is not None:
                yield [row["method"], "", row["problem"], "", "", ""]
                continue
            yield [
                row["method"],
                str(row["seeds"]),
                _percent(row["validation"], row["validation_deviation"]),
                _percent(row["test"], row["test_deviation"]),
                f"{row['seconds']:.1f}",
                f"{row['parameters']:,}",
            ]

    def __repr__(self) -> str:
        cells = [*self._cells()]
        # A problem may be long; it is not in a column.
        widths = [max(len(row[i]) for row in cells if row[-1] or not i) for i in range(len(cells[0]))]
        lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths)) for row in cells)
        return "\n".join(line.rstrip() for line in lines)

    def _repr_html_(self) -> str:
        head, *rows = self._cells()
        cells = ("".join(f"<td>{html.escape(cell)}</td>" for cell in row) for row in rows)
        names = "".join(f"<th>{name}</th>" for name in head)
        return f"<table><tr>{names}</tr>{''.join(f'<tr>{row}</tr>' for row in cells)}</table>"


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
    methods. baselines: also train backpropagation and random layers with a trained head. A method that
    fails is a row with its problem. The command `onward compare` keeps every run in a folder and can be
    interrupted.

    >>> import onward
    >>> table = onward.compare(["progressive:predsim"], "digits", hidden=[30], epochs=1,
    ...                        data__size=600, verbose=False)
    >>> sorted(row["method"] for row in table)
    ['backprop', 'progressive:predsim', 'random layers']
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
    lists = isinstance(grid, Mapping) and {
        key: [*values]
        for key, values in grid.items()
        if isinstance(values, Iterable) and not isinstance(values, str)
    }
    if not lists or len(lists) < len(grid) or not all(lists.values()):
        raise _onward.OnwardError(f"grid: expected settings with a list of values each, found {grid}")
    grid, seeds, rows = lists, _seeds(seeds, settings), []
    for values in itertools.product(*grid.values()):
        chosen = dict(zip(grid, values))
        label = ", ".join(f"{key.replace('__', '.')}={value}" for key, value in chosen.items())
        given = {**settings, **_settings_of(architecture), **chosen}
        rows.append(_row(label, data, given, seeds, verbose, with_test=False))
    table = Table(rows)
    for row in table[1:]:
        row["test"] = row["test_deviation"] = None
    return table


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
    seeds: Iterable[int],
    verbose: bool,
    with_test: bool = True,
) -> dict[str, Any]:
    summaries, problem = [], None
    for seed in seeds:
        try:
            run = train(data=data, seed=seed, verbose=False, **settings)
        except (_onward.OnwardError, OSError, TypeError) as error:
            problem = str(error)
            break
        summary = run.summary or {}
        summaries.append(summary)
        if verbose:
            shown = summary["test"] if with_test else summary["validation"]
            part = "test" if with_test else "validation"
            error = _percent(shown["error"] if shown else None, None)
            print(f"{label}, seed {seed}: {part} error {error}", flush=True)
    if verbose and problem is not None:
        print(f"{label}: {problem}", flush=True)
    done = summaries if problem is None else []
    validation = _spread([s["validation"]["error"] for s in done if s["validation"] is not None])
    test = _spread([s["test"]["error"] for s in done])
    return {
        "method": label,
        "seeds": len(done),
        "validation": validation[0],
        "validation_deviation": validation[1],
        "test": test[0],
        "test_deviation": test[1],
        "seconds": statistics.fmean(s["seconds"] for s in done) if done else None,
        "parameters": done[0]["parameters"] if done else None,
        "problem": problem,
    }


def _spread(errors: list[float]) -> tuple[float | None, float | None]:
    """The mean, and of several numbers the standard deviation."""
    mean = statistics.fmean(errors) if errors else None
    return mean, statistics.stdev(errors) if len(errors) > 1 else None


def _percent(error: float | None, deviation: float | None) -> str:
    if error is None:
        return "–"
    return f"{100 * error:.2f}" + (f" ± {100 * deviation:.2f}%" if deviation is not None else "%")

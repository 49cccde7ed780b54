"""Runs: trained networks with their settings, data and results."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any, Callable, Iterable, Iterator, Mapping

import numpy as np

from . import _onward
from ._data import Data, Pair, array, as_examples, as_floats, codes_of, native, shared

if TYPE_CHECKING:
    import torch

#: A path of the file system.
Path = str | os.PathLike[str]


def train(
    architecture: str,
    data: str | Data | Pair | None = None,
    *,
    preset: str | None = None,
    seed: int | None = None,
    out: Path | None = None,
    data_dir: Path | None = None,
    device: str = "cpu",
    callback: Callable[[dict[str, Any]], None] | None = None,
    verbose: bool = True,
    **settings: Any,
) -> Run:
    """Trains an architecture, and evaluates it.

    data: a name (`"mnist"`), `"folder:DIR"`, `"text:FILE"`, a `Data`, or a pair of examples and
    labels. out: a new folder for the run; by default nothing is written. callback: called with a
    dictionary after every epoch, evaluation, and at the end; an exception in it ends the training.
    verbose: whether a line is printed after every evaluation. Other settings are those of the
    program, with two underscores for a dot.

    The same settings and seed give the same bits as the program. Ctrl-C ends the training; with
    `out` it can be resumed.

    >>> x = np.random.default_rng(1).normal(size=(300, 8))
    >>> run = train("progressive", (x, x[:, 0] > 0), goodness="projection", hidden=[20],
    ...             sampler="plain", epochs=20, lr=0.01, verbose=False)
    >>> run.error < 0.3
    True
    """
    if seed is not None:
        settings["seed"] = seed
    if isinstance(data, str):
        settings["data"] = data
    arrays = None if isinstance(data, str) else shared(data)
    given = _settings(settings)
    record = _Record(callback, verbose)
    run, summary = _onward.train(
        architecture, given, native(arrays), preset, out, data_dir, device, record
    )
    place = {"folder": out, "data": arrays, "data_dir": data_dir, "device": device}
    return Run(run, json.loads(summary), record.events, place)


def resume(
    folder: Path,
    data: Data | Pair | None = None,
    *,
    data_dir: Path | None = None,
    device: str = "cpu",
    callback: Callable[[dict[str, Any]], None] | None = None,
    verbose: bool = True,
    **settings: Any,
) -> Run:
    """Continues a run in its folder, exactly where it stopped.

    Settings that are given are changed on purpose, such as `epochs=40`. A run on arrays needs its
    `data` again.
    """
    record, data = _Record(callback, verbose), shared(data)
    run, summary = _onward.resume(
        folder, _settings(settings), native(data), data_dir, device, record
    )
    place = {"folder": folder, "data": data, "data_dir": data_dir, "device": device}
    return Run(run, json.loads(summary), [*_lines(folder)] or record.events, place)


def open_run(
    folder: Path,
    data: Data | Pair | None = None,
    *,
    with_data: bool = False,
    data_dir: Path | None = None,
    device: str = "cpu",
) -> Run:
    """Opens a run to predict, or `with_data` to evaluate it too."""
    data = shared(data)
    run = _onward.open(folder, with_data, native(data), data_dir, device)
    summary = None
    path = os.path.join(folder, "summary.json")
    if os.path.exists(path):
        with open(path, encoding="utf-8") as file:
            summary = json.load(file)
    place = {"folder": folder, "data": data, "data_dir": data_dir, "device": device}
    return Run(run, summary, [*_lines(folder)], {**place, "with_data": with_data})


class Run:
    """A trained network."""

    def __init__(
        self,
        native: _onward.Run,
        summary: dict[str, Any] | None,
        events: list[dict[str, Any]],
        place: dict[str, Any],
    ):
        self._native = native
        # What it is opened with again if a training of it fails.
        self._place = {"with_data": True, **place}
        #: What `summary.json` says; None for a run that is not finished.
        self.summary = summary
        #: Every epoch and evaluation as a dictionary.
        self.events = events

    @staticmethod
    def open(folder: Path, data: Data | Pair | None = None, **options: Any) -> Run:
        """As `onward.open`."""
        return open_run(folder, data, **options)

    def resume(self, data: Data | Pair | None = None, **settings: Any) -> Run:
        """Continues this run in its folder, as `onward.resume` does.

        Data and device are those that the run has, unless others are given.
        """
        folder = self.facts["folder"] or self._place["folder"]
        if folder is None:
            raise _onward.OnwardError("the run has no folder: train it with `out`, or write it with `save`")
        own = {key: self._place[key] for key in ("data_dir", "device")}
        if data is None:
            data = self._place["data"]
        del self._native  # it holds the folder
        try:
            self._become(resume(folder, data, **{**own, **settings}))
        except BaseException:
            self._become(_open_again({**self._place, "folder": folder}))
            raise
        return self

    def _become(self, other: Run) -> None:
        self._native, self._place = other._native, other._place
        self.summary, self.events = other.summary, other.events

    @property
    def settings(self) -> dict[str, Any]:
        """All settings in force, with their defaults."""
        return self._native.settings()

    @property
    def facts(self) -> dict[str, Any]:
        """Architecture, epochs, classes, shape of an example, readouts, folder, device."""
        return json.loads(self._native.facts())

    @property
    def classes(self) -> list[str]:
        """The names of the classes."""
        return self.facts["classes"]

    @property
    def error(self) -> float:
        """The fraction of wrong predictions on the test part."""
        if self.summary is None:
            raise _onward.OnwardError("the run is not finished: it has no test error")
        return self.summary["test"]["error"]

    @property
    def metrics(self) -> dict[str, list[Any]]:
        """One list per column, for `pandas.DataFrame(run.metrics)`: the epoch, its seconds, the loss
        of each block, and the error of each readout on the validation part where it was evaluated.
        """
        rows: dict[int, dict[str, Any]] = {}
        for event in self.events:
            if "epoch" not in event:
                continue
            row = rows.setdefault(event["epoch"], {"epoch": event["epoch"]})
            if event["event"] == "epoch":
                row["seconds"] = event["seconds"]
                for block in event["blocks"]:
                    row[f"loss_{block['block']}"] = block["loss"]
            elif event["event"] == "evaluation" and event.get("split", "validation") == "validation":
                for name, score in event["result"]["readouts"].items():
                    row[f"error_{name}"] = score["error"]
        names = list(dict.fromkeys(name for row in rows.values() for name in row))
        return {name: [row.get(name) for row in rows.values()] for name in names}

    def scores(self, x: Any, readout: str | None = None) -> np.ndarray:
        """The score of every class for each example, `(N, C)`; higher is better.

        x: examples on the scale of the training: images as uint8 of 0 to 255, or as floats of 0 to 1.
        readout: `"search"`, `"head"`, `"goodness"`, …; by default the best one on the validation part.
        """
        readout = readout or self.facts["readout"]
        scores = [self._native.scores(part, readout) for part in self._batches(x)]
        return np.concatenate([array(part) for part in scores])

    def predict(self, x: Any, readout: str | None = None) -> np.ndarray:
        """The number of the predicted class of each example, `(N,)`."""
        return self.scores(x, readout).argmax(axis=-1)

    def activities(self, x: Any) -> dict[str, np.ndarray]:
        """The activities of each layer, without a label in the input, `(N, …)`."""
        return _joined(self._native.activities(part) for part in self._batches(x))

    def goodness(self, x: Any, labels: Any = None) -> dict[str, np.ndarray]:
        """The goodness of each layer, `(N,)`, or `(N, C)` for a goodness with classes.

        labels: the class of each example that is put into its input; without them there is no label in
        the input.
        """
        codes = None if labels is None else codes_of(np.asarray(labels), self.classes)[1]
        if codes is not None and codes.shape != (len(x),):
            raise _onward.OnwardError(
                f"labels: expected one for each of {len(x)} examples, found shape {codes.shape}"
            )
        parts, start = [], 0
        for part in self._batches(x):
            own = None if codes is None else codes[start : start + len(part)].tolist()
            parts.append(self._native.goodness(part, own))
            start += len(part)
        return _joined(parts)

    @property
    def weights(self) -> dict[str, np.ndarray]:
        """A copy of every variable of the model, by name."""
        return {name: array(values) for name, values in self._native.weights()}

    def set_weights(self, weights: Mapping[str, Any]) -> None:
        """Replaces variables of the model; others stay."""
        arrays, dtype = [], np.float64 if self.settings["precision"] == "f64" else np.float32
        for name, value in weights.items():
            values = np.asarray(value)
            is_known = values.dtype.kind in "buif"
            with np.errstate(over="ignore"):
                values = np.asarray(values, dtype=dtype, order="C") if is_known else values
            if not is_known or not np.isfinite(values).all():
                raise _onward.OnwardError(f"variable `{name}`: expected finite numbers")
            arrays.append((name, values))
        self._native.set_weights(arrays)

    def to_torch(self, readout: str | None = None) -> torch.nn.Module:
        """The network as a PyTorch module: `module(x)` are the scores of a readout, `(N, C)`.

        x: examples as `scores` takes them, as a tensor of 32-bit numbers or bytes. The module's
        parameters have the names of the run's weights, with `_` for `.`; `from_torch` puts them back.
        Networks of the architecture `progressive` with layers `dense` and `conv` can be modules.
        """
        from ._torch import module

        return module(self._native, readout or self.facts["readout"])

    def from_torch(self, module: torch.nn.Module) -> None:
        """Takes the weights of a module that `to_torch` made, such as after training it on."""
        from ._torch import weights

        self.set_weights(weights(module))

    def to_onnx(self, file: Path, readout: str | None = None) -> None:
        """Writes the network as an ONNX file, with the input `examples` and the output `scores`.

        examples: `(N, *shape)` as `facts["shape"]` has it, in 32 bits, pixels from 0 to 1.
        """
        model = self._native.onnx(readout or self.facts["readout"])
        with open(file, "xb") as out:
            out.write(model)

    def evaluate(self, part: str = "test") -> dict[str, Any]:
        """The errors of all readouts on a part of the data: train, validation, test, or all."""
        return json.loads(self._native.evaluate(part))

    def classify(self, *files: Path) -> list[dict[str, Any]]:
        """The class of each picture in a file, with the scores of all classes."""
        return json.loads(self._native.classify([*files]))

    def save(self, folder: Path) -> None:
        """Writes the run to a new folder."""
        self._native.save(folder)

    def __reduce__(self) -> Any:
        raise _onward.OnwardError(
            "a run cannot be pickled or copied: write it with `save`, and read it with `onward.open`"
        )

    def _batches(self, x: Any) -> Iterator[np.ndarray]:
        x, shape = as_examples(x), self.facts["shape"]
        if not len(x):
            raise _onward.OnwardError("x: expected one or more examples, found none")
        size = int(np.prod(shape))
        if int(np.prod(x.shape[1:])) != size:
            raise _onward.OnwardError(f"x: expected examples of shape {shape}, found {list(x.shape[1:])}")
        for start in range(0, len(x), 500):
            part = x[start : start + 500]
            yield as_floats(part.reshape(len(part), *shape))

    def __repr__(self) -> str:
        facts = self.facts
        error = f", test error {100 * self.error:.2f}%" if self.summary else ""
        return f"Run({facts['architecture']}, {facts['epoch']} of {facts['epochs']} epochs{error})"

    def _repr_html_(self) -> str:
        return f"<pre>{self!r}</pre>{_curves(self.metrics)}"


def _open_again(place: dict[str, Any]) -> Run:
    try:
        return open_run(**place)
    except _onward.OnwardError:
        # The data may be gone by now. The error that is raised then says more.
        return open_run(place["folder"])


class _Record:
    """Keeps the events of a training, prints a line for each evaluation, and passes them on."""

    def __init__(self, callback: Callable[[dict[str, Any]], None] | None, verbose: bool):
        self.callback, self.verbose = callback, verbose
        self.events: list[dict[str, Any]] = []
        self.epochs = 0

    def __call__(self, text: str) -> None:
        event = json.loads(text)
        if event["event"] == "epoch":
            self.epochs = event["epochs"]
        if event["event"] != "finished":
            self.events.append(event)
        if self.verbose:
            self.say(event)
        if self.callback is not None:
            self.callback(event)

    def say(self, event: dict[str, Any]) -> None:
        if event["event"] == "evaluation" and event["split"] == "validation":
            scores = event["result"]["readouts"].items()
            errors = ", ".join(f"{100 * score['error']:.2f}% ({name})" for name, score in scores)
            print(f"epoch {event['epoch']}/{self.epochs or '?'}: validation error {errors}", flush=True)
        elif event["event"] == "finished":
            test = event["summary"]["test"]
            print(f"test error {100 * test['error']:.2f}% ({test['readout']})", flush=True)


def _settings(given: Mapping[str, Any]) -> dict[str, Any]:
    # None leaves a setting as it is; a number may be an array of no dimension.
    named = {
        key.replace("__", "."): value.item() if getattr(value, "ndim", None) == 0 else value
        for key, value in given.items()
        if value is not None
    }
    # Choosing a plugin resets its settings, so it comes before them.
    return dict(sorted(named.items(), key=lambda item: item[0].count(".")))


def _joined(parts: Iterable[Any]) -> dict[str, np.ndarray]:
    """The parts of each layer, joined."""
    found: dict[str, list[np.ndarray]] = {}
    for part in parts:
        for name, values in part:
            found.setdefault(name, []).append(array(values))
    return {name: np.concatenate(parts) for name, parts in found.items()}


def _lines(folder: Path) -> Iterator[dict[str, Any]]:
    path = os.path.join(folder, "metrics.jsonl")
    if os.path.exists(path):
        with open(path, encoding="utf-8") as file:
            yield from (json.loads(line) for line in file if line.strip())


def _curves(metrics: Mapping[str, Iterable[Any]]) -> str:
    """The errors over the epochs as an SVG."""
    width, height = 360, 120
    epochs, lines = list(metrics.get("epoch", [])), []
    curves = {name: values for name, values in metrics.items() if name.startswith("error_")}
    top = max((value for values in curves.values() for value in values if value is not None), default=0)
    if not top or len(epochs) < 2:
        return ""
    for index, (name, values) in enumerate(curves.items()):
        colour = ("#1f77b4", "#d62728", "#2ca02c", "#9467bd")[index % 4]
        points = [
            f"{width * (epoch - epochs[0]) / (epochs[-1] - epochs[0]):.1f},"
            f"{height * (1 - value / top):.1f}"
            for epoch, value in zip(epochs, values)
            if value is not None
        ]
        lines.append(
            f'<polyline fill="none" stroke="{colour}" points="{" ".join(points)}"/>'
            f'<text x="{width + 8}" y="{14 + 16 * index}" fill="{colour}" font-size="12">'
            f"{name.removeprefix('error_')}</text>"
        )
    return (
        f'<svg width="{width + 90}" height="{height + 20}" viewBox="-4 -8 {width + 90} {height + 24}" '
        f'role="img" aria-label="validation error of each readout"><path d="M0 0V{height}H{width}" '
        f'fill="none" stroke="#888"/><text x="4" y="4" font-size="11" fill="#888">{100 * top:.1f}%</text>'
        f"{''.join(lines)}</svg>"
    )

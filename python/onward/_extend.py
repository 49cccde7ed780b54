"""Goodness functions, layers, samplers and data sets written in Python.

A plugin is a class, or for a goodness or a data set a function. A decorator registers it; then it is
used by its name like any other. Its settings are the parameters of `__init__` (of the function: those
that have a default), with their defaults. The first line of its docstring describes it in lists.

Arrays are NumPy's. Where a plugin has no method for a gradient, PyTorch finds the gradient: the plugin
then gets and returns tensors of PyTorch.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import inspect
import re
import types
import typing
from typing import Any, Callable, Iterator, Mapping, TypeVar

import numpy as np

from . import _onward
from ._data import Data, Native, array, native

_Plugin = TypeVar("_Plugin", bound=Callable[..., Any])


def goodness(
    plugin: Any = None, *, name: str | None = None, gradient: Callable[..., Any] | None = None
) -> Any:
    """Registers a goodness: high for what a layer should accept, low for what it should reject.

    A function `goodness(activity)` takes the activity of a layer as rows, `(R, D)`, and returns the
    goodness of every row, `(R,)`. `gradient(activity, upstream)` returns the gradient of `(upstream *
    goodness).sum()` with respect to the activity, of its shape; without it PyTorch finds the gradient.

    A class has these as methods, and may have

    - `threshold(units)`: the goodness above which an activity counts as positive, 0 by default;
    - `per_class = True`: the goodness is `(R, C)`, one column for each of `self.classes`, which is set;
    - `flat = False`: activities keep their shape `(R, …)`, such as that of the maps of a convolution.

    name: by default that of the function or class, in snake_case.

    >>> import onward
    >>> def slope(activity, upstream, power=1.0):
    ...     away = power * abs(activity) ** (power - 1) * np.sign(activity)
    ...     return upstream[:, None] * away
    >>> @onward.goodness(gradient=slope)
    ... def sum_absolute(activity, power=1.0):
    ...     '''The sum of powers of the activities (an example).'''
    ...     return (abs(activity) ** power).sum(1)
    >>> run = onward.train("progressive", "digits", goodness="sum_absolute", goodness__power=2.0,
    ...                    theta=25.0, hidden=[50], epochs=1, verbose=False)
    >>> run.settings["goodness"]
    {'name': 'sum_absolute', 'power': 2.0}
    """

    def decorate(plugin: _Plugin) -> _Plugin:
        def make(settings: dict[str, Any], context: _Context) -> _Goodness:
            made = plugin if inspect.isclass(plugin) else _Function(plugin, gradient)
            return _Goodness(made(**settings), context)

        methods = ["goodness"] if inspect.isclass(plugin) else []
        derivative = "" if gradient else "gradient"
        return _register("goodness", plugin, name, methods, make, derivative)

    return _applied(decorate, plugin)


def layer(plugin: Any = None, *, name: str | None = None) -> Any:
    """Registers a layer: what the activity of an input is.

    A class with the methods

    - `variables(shape, units, rng)`: a dictionary of arrays with the initial values of the variables,
      for an input of this shape. units: the width that is asked for, or None. rng: NumPy's generator,
      seeded from the run's seed and the layer's place.
    - `forward(x, variables)`: the activity `(R, …)` of an input `(R, *shape)`.
    - `gradients(x, activity, gradient, variables)`: a dictionary with the gradient of each variable,
      for the gradient of the loss with respect to the activity. Without it PyTorch finds them.
    - `input_gradient(x, activity, gradient, variables)`, for the few rules in which a gradient crosses
      a layer.

    The optimiser of the run follows the gradients, and the run saves the variables.

    >>> import onward
    >>> @onward.layer
    ... class TanhLayer:
    ...     '''tanh(x·W) (an example).'''
    ...     def variables(self, shape, units, rng):
    ...         inputs = int(np.prod(shape))
    ...         return {"weight": rng.normal(size=(inputs, units)) / inputs**0.5}
    ...     def forward(self, x, variables):
    ...         return np.tanh(x.reshape(len(x), -1) @ variables["weight"])
    ...     def gradients(self, x, activity, gradient, variables):
    ...         return {"weight": x.reshape(len(x), -1).T @ (gradient * (1 - activity**2))}
    >>> run = onward.train("progressive", "digits", layer="tanh_layer", hidden=[50], epochs=1,
    ...                    verbose=False)
    >>> run.weights["blocks.0.layer.weight"].shape
    (784, 50)
    """

    def decorate(plugin: _Plugin) -> _Plugin:
        def make(settings: dict[str, Any], context: _Context) -> _Layer:
            return _Layer(plugin(**settings), context)

        return _register("layer", plugin, name, ["variables", "forward"], make, "gradients")

    return _applied(decorate, plugin)


def sampler(plugin: Any = None, *, name: str | None = None) -> Any:
    """Registers a sampler: the positive and negative views that a network learns from.

    A class with the method `views(x, labels, rng)`. x: examples `(B, …)`. labels: their classes `(B,)`.
    It returns two arrays of the shape of x, the positive and the negative views, or lists of such
    arrays; for a rule without negatives an empty list. It may have

    - a further parameter `prediction` of `views`: the network's own log-probabilities, `(B, C)`;
    - `hypotheses(x, labels)`: the examples with these labels in the input, for a search over labels;
    - `neutral(x)`: the examples without a label in the input, by default as they are;
    - `uses_labels = False`: `labels` is then None;
    - `smallest_batch`: the least number of examples that it takes, 1 by default.

    >>> import onward
    >>> @onward.sampler
    ... class Shuffled:
    ...     '''The example itself, and its pixels in another order (an example).'''
    ...     uses_labels = False
    ...     def views(self, x, labels, rng):
    ...         flat = x.reshape(len(x), -1)
    ...         return x, rng.permuted(flat, axis=1).reshape(x.shape)
    >>> run = onward.train("progressive", "digits", preset="unsupervised", sampler="shuffled",
    ...                    hidden=[50], epochs=1, verbose=False)
    >>> run.error < 0.9
    True
    """

    def decorate(plugin: _Plugin) -> _Plugin:
        def make(settings: dict[str, Any], context: _Context) -> _Sampler:
            return _Sampler(plugin(**settings))

        return _register("sampler", plugin, name, ["views"], make)

    return _applied(decorate, plugin)


def data_set(plugin: Any = None, *, name: str | None = None) -> Any:
    """Registers a data set: a function that returns a `Data`, or a pair of examples and labels.

    >>> import onward
    >>> @onward.data_set
    ... def rings(examples=300, noise=0.1):
    ...     '''Points on two rings (an example).'''
    ...     rng = np.random.default_rng(1)
    ...     labels = rng.integers(0, 2, examples)
    ...     angle, radius = rng.uniform(0, 2 * np.pi, examples), 1 + labels + rng.normal(0, noise, examples)
    ...     return np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1), labels
    >>> run = onward.train("progressive", "rings", goodness="projection", sampler="plain", hidden=[50],
    ...                    epochs=1, data__examples=200, verbose=False)
    >>> run.settings["data"]
    {'examples': 200, 'name': 'rings', 'noise': 0.1}
    """

    def decorate(plugin: _Plugin) -> _Plugin:
        def make(settings: dict[str, Any], context: _Context) -> _DataSet:
            return _DataSet(functools.partial(plugin, **settings))

        return _register("data", plugin, name, [], make)

    return _applied(decorate, plugin)


def conformance(kind: str, name: str, verbose: bool = True) -> None:
    """Runs the trials that every plugin of a kind has to pass, and raises if one fails.

    kind: goodness, layer, sampler or data. The trials check shapes, that rows do not depend on each
    other, gradients against finite differences, that a seed gives the same bits, that labels are used
    only where that is declared, that a run with the plugin learns, repeats and can be resumed.
    """
    kinds = ("goodness", "layer", "sampler", "data")
    if kind not in kinds:
        raise _onward.OnwardError(f"kind `{kind}`: expected one of {', '.join(kinds)}")
    report, failed = _onward.conformance_of(kind, name)
    if verbose:
        print(report, end="")
    if failed:
        raise _onward.OnwardError(f"{len(failed)} trials failed:\n" + "\n".join(failed))
    if not report:
        raise _onward.OnwardError(f"there is no {kind} `{name}`")


def _applied(decorate: Callable[[Any], Any], plugin: Any) -> Any:
    """A decorator that was called, `@name(…)`, or applied at once, `@name`."""
    if plugin is None:
        return decorate
    return decorate(plugin)


class _Context(typing.NamedTuple):
    """The place in a network that a plugin is made for."""

    #: The shape of the input.
    shape: tuple[int, ...]
    #: The width that is asked for.
    units: int | None
    #: The number of classes of the data.
    classes: int


class _Goodness:
    """What the native part calls; arrays are `(bytes, shape, type)`."""

    def __init__(self, plugin: Any, context: _Context):
        self.plugin = plugin
        self.per_class = getattr(plugin, "per_class", False)
        if self.per_class:
            plugin.classes = context.classes
        self.by_torch = not hasattr(plugin, "gradient")
        self.flat = getattr(plugin, "flat", True)

    def facts(self) -> int | None:
        return self.plugin.classes if self.per_class else None

    def threshold(self, units: int) -> float:
        threshold = getattr(self.plugin, "threshold", 0.0)
        return float(threshold(units) if callable(threshold) else threshold)

    def goodness(self, activity: Native) -> np.ndarray:
        x = self.rows(activity)
        found = _without_gradient(self.plugin.goodness, x) if self.by_torch else self.plugin.goodness(x)
        return _like(found, x, "goodness")

    def gradient(self, activity: Native, upstream: Native) -> np.ndarray:
        x, upstream = self.rows(activity), array(upstream)
        if self.by_torch:
            found = _gradients(self.plugin.goodness, [x], upstream)[0]
        else:
            found = _like(self.plugin.gradient(x, upstream), x, "gradient")
        # Another shape than that of the rows is reported with its plugin.
        return found.reshape(activity[1]) if found.shape == x.shape else found

    def rows(self, activity: Native) -> np.ndarray:
        x = array(activity)
        return x.reshape(len(x), -1) if self.flat else x


class _Layer:
    def __init__(self, plugin: Any, context: _Context):
        self.plugin, self.context, self.names = plugin, context, []
        self.by_torch = not hasattr(plugin, "gradients")

    def facts(self) -> bool:
        return self.by_torch or hasattr(self.plugin, "input_gradient")

    def variables(self, seed: int) -> list[tuple[str, np.ndarray]]:
        rng = np.random.default_rng(seed)
        found = self.plugin.variables(self.context.shape, self.context.units, rng)
        if not isinstance(found, Mapping):
            raise TypeError(f"`variables` returned {_named(found)}, expected a dictionary of arrays")
        self.names = [*found]
        for name, value in found.items():
            if np.ndim(value) == 0:
                raise ValueError(f"`variables` returned a number for `{name}`, expected an array: [{value}]")
        return [(name, _like(value, np.float64(0), "variables")) for name, value in found.items()]

    def forward(self, x: Native, *variables: Native) -> np.ndarray:
        x, values = array(x), [array(value) for value in variables]
        forward = self.bound(self.plugin.forward)
        found = _without_gradient(forward, x, *values) if self.by_torch else forward(x, *values)
        return _like(found, x, "forward")

    def gradients(
        self, x: Native, activity: Native, gradient: Native, *variables: Native
    ) -> list[np.ndarray]:
        x, values = array(x), [array(value) for value in variables]
        if self.by_torch:
            return _gradients(self.bound(self.plugin.forward), [x, *values], array(gradient))[1:]
        given = self.plugin.gradients(x, array(activity), array(gradient), self.named(values))
        if not isinstance(given, Mapping) or set(given) != set(self.names):
            found = [*given] if isinstance(given, Mapping) else _named(given)
            raise ValueError(f"`gradients` returned {found}, expected a dictionary of {self.names}")
        return [_like(given[name], x, "gradients") for name in self.names]

    def input_gradient(
        self, x: Native, activity: Native, gradient: Native, *variables: Native
    ) -> np.ndarray:
        x, values = array(x), [array(value) for value in variables]
        if self.by_torch:
            return _gradients(self.bound(self.plugin.forward), [x, *values], array(gradient))[0]
        given = self.plugin.input_gradient(x, array(activity), array(gradient), self.named(values))
        return _like(given, x, "input_gradient")

    def named(self, values: Any) -> dict[str, Any]:
        return dict(zip(self.names, values))

    def bound(self, method: Callable[..., Any]) -> Callable[..., Any]:
        """The method with its variables one by one."""
        return lambda x, *values: method(x, self.named(values))


class _Sampler:
    def __init__(self, plugin: Any):
        self.plugin = plugin
        self.uses_prediction = "prediction" in inspect.signature(plugin.views).parameters

    def facts(self) -> tuple[bool, bool, int, bool, bool]:
        return (
            bool(getattr(self.plugin, "uses_labels", True)),
            self.uses_prediction,
            int(getattr(self.plugin, "smallest_batch", 1)),
            hasattr(self.plugin, "neutral"),
            hasattr(self.plugin, "hypotheses"),
        )

    def views(
        self, x: Native, labels: list[int] | None, prediction: Native | None, seed: int
    ) -> tuple[np.ndarray, int]:
        x = array(x)
        more = {"prediction": array(prediction)} if prediction is not None else {}
        known = None if labels is None else np.array(labels)
        found = self.plugin.views(x, known, np.random.default_rng(seed), **more)
        if not isinstance(found, tuple) or len(found) != 2:
            raise TypeError(f"`views` returned {_named(found)}, expected (positives, negatives)")
        positive, negative = (self.each(views, x) for views in found)
        if not positive:
            raise ValueError("`views` returned no positive view")
        shapes = {view.shape for view in (*positive, *negative)}
        if len(shapes) > 1 or len(positive[0]) != len(x):
            expected = f"views of one shape ({len(x)}, …)"
            raise ValueError(f"`views` returned shapes {sorted(shapes)}, expected {expected}")
        return np.concatenate([*positive, *negative]), len(positive)

    def each(self, views: Any, x: np.ndarray) -> list[np.ndarray]:
        views = views if isinstance(views, (list, tuple)) else [views]
        return [_like(view, x, "views") for view in views]

    def neutral(self, x: Native) -> np.ndarray:
        x = array(x)
        return _like(self.plugin.neutral(x), x, "neutral")

    def hypotheses(self, x: Native, candidates: Native) -> np.ndarray:
        x = array(x)
        labels = array(candidates).astype(np.int64)
        views = [_like(self.plugin.hypotheses(x, row), x, "hypotheses") for row in labels]
        return np.concatenate(views)


class _DataSet:
    def __init__(self, make: Callable[[], Any]):
        self.make = make

    def data(self) -> _onward.Data:
        found = self.make()
        if not isinstance(found, (Data, tuple)):
            raise TypeError(f"returned {_named(found)}, expected a Data or a pair (examples, labels)")
        return native(found)


def _like(found: Any, x: Any, method: str) -> np.ndarray:
    """What a plugin returned, as a contiguous array of the type of x."""
    if type(found).__module__.split(".")[0] == "torch":
        found = found.detach().cpu().numpy()
    values = np.asarray(found)
    if values.dtype.kind not in "buif":
        raise TypeError(f"`{method}` returned {_named(found)}, expected numbers")
    return np.ascontiguousarray(values, dtype=x.dtype)


def _named(found: Any) -> str:
    if isinstance(found, np.ndarray):
        return f"an array of {found.dtype}"
    return "None" if found is None else f"a {type(found).__name__}"


def _without_gradient(function: Callable[..., Any], *arrays: np.ndarray) -> Any:
    import torch

    with torch.no_grad(), _on_tensors():
        return function(*(torch.from_dlpack(x) for x in arrays))


def _gradients(
    function: Callable[..., Any], arrays: list[np.ndarray], upstream: np.ndarray
) -> list[np.ndarray]:
    """The gradients of `(upstream * function(*arrays)).sum()` by PyTorch."""
    import torch

    tensors = [torch.from_dlpack(x).requires_grad_() for x in arrays]
    with _on_tensors():
        found = torch.autograd.grad(
            function(*tensors), tensors, torch.from_dlpack(upstream), allow_unused=True
        )
    pairs = zip(tensors, found)
    whole = [torch.zeros_like(x) if gradient is None else gradient for x, gradient in pairs]
    return [_like(gradient, x, "gradient") for gradient, x in zip(whole, arrays)]


@contextlib.contextmanager
def _on_tensors() -> Iterator[None]:
    """Says what an exception may come from."""
    try:
        yield
    except Exception as error:
        error.add_note(
            "without a method for the gradient a plugin gets tensors of PyTorch: use PyTorch's operations, "
            "or write the gradient"
        )
        raise


class _Function:
    """A goodness that is a function, and its gradient, as a class."""

    def __init__(self, goodness: Callable[..., Any], gradient: Callable[..., Any] | None):
        self.functions = {"goodness": goodness, "gradient": gradient}

    def __call__(self, **settings: Any) -> Any:
        methods = {
            name: functools.partial(function, **settings)
            for name, function in self.functions.items()
            if function is not None
        }
        return types.SimpleNamespace(**methods)


def _register(
    kind: str,
    plugin: _Plugin,
    name: str | None,
    methods: list[str],
    make: Callable[[dict[str, Any], _Context], Any],
    derivative: str = "",
) -> _Plugin:
    """Registers a plugin with these methods. PyTorch stands in for its method `derivative`."""
    if not (inspect.isclass(plugin) or inspect.isfunction(plugin)):
        raise _onward.OnwardError(f"{kind}: expected a class or a function, found a {type(plugin).__name__}")
    name = name or re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", plugin.__name__).lower()
    missing = [method for method in methods if not hasattr(plugin, method)]
    if missing:
        raise _onward.OnwardError(f"{kind} `{name}`: the class has no method `{missing[0]}`")
    about = (inspect.getdoc(plugin) or "").split("\n")[0].strip()
    if not about:
        raise _onward.OnwardError(
            f"{kind} `{name}`: expected a docstring; its first line describes the plugin"
        )
    by_torch = derivative and not hasattr(plugin, derivative)
    if by_torch and importlib.util.find_spec("torch") is None:
        raise _onward.OnwardError(
            f"{kind} `{name}`: expected a `{derivative}`, since PyTorch, which would find it, is not installed"
        )

    def made(settings: dict[str, Any], shape: list[int], units: int | None, classes: int) -> Any:
        return make(settings, _Context(tuple(shape), units, classes))

    _onward.register(kind, name, about, plugin.__module__, _settings(kind, plugin), made)
    return plugin


def _settings(kind: str, plugin: Any) -> list[tuple[str, Any, str]]:
    """Name, default and help of each setting: of a parameter `Annotated[float, "its help"]`."""
    of = plugin.__init__ if inspect.isclass(plugin) else plugin
    if of is object.__init__:
        return []
    try:
        hints = typing.get_type_hints(of, include_extras=True)
    except NameError:
        hints = {}  # of a type that is imported for checks alone
    parameters = list(inspect.signature(of).parameters.values())
    # `self`, or the activity of a goodness.
    parameters = parameters[1:] if inspect.isclass(plugin) or kind == "goodness" else parameters
    found = []
    for parameter in parameters:
        if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            raise _onward.OnwardError(
                f"{plugin.__name__}: expected settings with names of their own, found `{parameter}`"
            )
        if parameter.default is parameter.empty:
            raise _onward.OnwardError(
                f"{plugin.__name__}: expected a default for its setting `{parameter.name}`"
            )
        notes = getattr(hints.get(parameter.name), "__metadata__", ())
        help_text = next((note for note in notes if isinstance(note, str)), f"A setting of {plugin.__name__}")
        found.append((parameter.name, parameter.default, help_text.rstrip(".") + "."))
    return found

"""Plugins in Python: they learn like built-in ones, and their faults are named."""

import importlib.util
import subprocess
import sys
from typing import Annotated

import numpy as np
import pytest

import onward

SMALL = dict(data="digits", hidden=[40, 30], epochs=2, data__size=600, batch=50, seed=3, verbose=False)


def train(architecture="progressive", **settings):
    return onward.train(architecture, **{**SMALL, **settings})


@onward.goodness
class PlainSquares:
    """The sum of the squares, as the built-in goodness has it."""

    def goodness(self, activity):
        return (activity**2).sum(1)

    def gradient(self, activity, upstream):
        return 2 * activity * upstream[:, None]

    def threshold(self, units):
        return units


@onward.layer
class PlainDense:
    """max(0, x·W + b), as the built-in layer has it."""

    def __init__(self, scale: Annotated[float, "factor of the initial weights"] = 1.0):
        self.scale = scale

    def variables(self, shape, units, rng):
        inputs = int(np.prod(shape))
        weight = self.scale * rng.normal(size=(inputs, units)) / inputs**0.5
        return {"weight": weight, "bias": np.zeros(units)}

    def forward(self, x, variables):
        return np.maximum(0, x.reshape(len(x), -1) @ variables["weight"] + variables["bias"])

    def gradients(self, x, activity, gradient, variables):
        before = gradient * (activity > 0)
        return {"weight": x.reshape(len(x), -1).T @ before, "bias": before.sum(0)}

    def input_gradient(self, x, activity, gradient, variables):
        return ((gradient * (activity > 0)) @ variables["weight"].T).reshape(x.shape)


@onward.sampler
class PlainLabel:
    """The label over the first pixels, and a wrong label in negative views."""

    def views(self, x, labels, rng):
        wrong = (labels + rng.integers(1, 4, len(labels))) % 4
        return self.hypotheses(x, labels), self.hypotheses(x, wrong)

    def hypotheses(self, x, labels):
        flat = x.reshape(len(x), -1).copy()
        flat[:, :4] = np.eye(4)[labels % 4]
        return flat.reshape(x.shape)


@onward.data_set
def stripes(examples=120, noise: Annotated[float, "deviation of the noise."] = 0.1):
    """Images with one bright stripe of four."""
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 4, examples)
    x = rng.normal(0.2, noise, (examples, 8, 8))
    for image, label in zip(x, labels):
        image[2 * label : 2 * label + 2] += 0.8
    return x, labels


@pytest.mark.parametrize(
    "kind, name",
    [("goodness", "plain_squares"), ("layer", "plain_dense"), ("sampler", "plain_label"), ("data", "stripes")],
)
def test_they_pass_the_trials_of_their_kind(kind, name, capsys):
    onward.conformance(kind, name)
    assert "passed" in capsys.readouterr().out


def test_a_goodness_gives_what_the_built_in_one_gives():
    ours, theirs = train(goodness="plain_squares"), train(goodness="sum_squares")
    assert abs(ours.error - theirs.error) < 0.03
    assert ours.weights.keys() == theirs.weights.keys()
    for name, value in theirs.weights.items():
        assert np.allclose(value, ours.weights[name], atol=0.02)
    assert (train(goodness="plain_squares").weights["blocks.1.layer.weight"]
            == ours.weights["blocks.1.layer.weight"]).all()


def test_a_layer_a_sampler_and_data_learn_together():
    settings = dict(layer="plain_dense", sampler="plain_label", data="stripes", hidden=[50], epochs=30)
    run = onward.train("progressive", batch=10, verbose=False, **settings)
    assert run.error < 0.3
    assert {"plain_dense", "stripes"} <= {plugin["name"] for plugin in onward.list()}
    assert run.settings["layer"]["scale"] == 1.0
    goodness = run.goodness(stripes()[0][:6], stripes()[1][:6])["1"]
    assert goodness.shape == (6,) and not (goodness == run.goodness(stripes()[0][:6])["1"]).all()


def test_a_run_with_a_layer_is_saved_opened_and_resumed(tmp_path):
    settings = dict(layer="plain_dense", layer__scale=0.5)
    whole = train(**settings)
    train(out=tmp_path / "run", **{**settings, "epochs": 1})
    resumed = onward.resume(tmp_path / "run", epochs=2, verbose=False)
    assert resumed.settings["layer"]["scale"] == 0.5 and resumed.error < 0.9
    opened = onward.open(tmp_path / "run")
    assert all((opened.weights[name] == value).all() for name, value in resumed.weights.items())
    assert whole.weights.keys() == opened.weights.keys()


def test_settings_are_checked_and_described(capsys):
    onward.show("plain_dense")
    assert "factor of the initial weights." in " ".join(capsys.readouterr().out.split())
    with pytest.raises(onward.OnwardError, match="layer.scale.*expected a number"):
        train(layer="plain_dense", layer__scale="big")
    with pytest.raises(onward.OnwardError, match="unknown setting `layer.scal`"):
        train(layer="plain_dense", layer__scal=1.0)


def test_classes_may_have_a_column_each():
    @onward.goodness
    class Groups:
        """The mean of the squares of each class's units."""

        per_class = True

        def goodness(self, activity):
            return (activity.reshape(len(activity), self.classes, -1) ** 2).mean(2)

        def gradient(self, activity, upstream):
            groups = activity.reshape(len(activity), self.classes, -1)
            return (2 * groups * upstream[:, :, None] / groups.shape[2]).reshape(activity.shape)

    run = train(goodness="groups", loss="cross_entropy", sampler="plain", hidden=[40], epochs=5)
    assert run.error < 0.6
    assert run.goodness(np.zeros((3, 784)))["1"].shape == (3, 10)


def test_activities_may_keep_their_shape(tmp_path):
    shapes = set()

    @onward.goodness
    class Maps:
        """The sum of the activities of the first channel."""

        flat = False

        def goodness(self, activity):
            shapes.add(activity.shape[1:])
            return activity[:, 0].reshape(len(activity), -1).sum(1)

        def gradient(self, activity, upstream):
            gradient = np.zeros_like(activity)
            gradient[:, 0] = upstream.reshape(-1, *[1] * (activity.ndim - 2))
            return gradient

    train(goodness="maps", layer="conv", hidden=[4], epochs=1, theta=1.0)
    assert shapes == {(4, 14, 14)}
    onward.conformance("goodness", "maps", verbose=False)


def goodness(name, function, gradient=None):
    function.__doc__ = "A goodness that is wrong."
    onward.goodness(name=name, gradient=gradient or (lambda activity, upstream: activity))(function)
    return name


def test_what_a_plugin_raises_is_the_cause_with_its_place():
    def raises(activity):
        raise KeyError("lost")

    with pytest.raises(onward.OnwardError, match=r"goodness raises \(package .*raised KeyError.*line \d+") as found:
        train(goodness=goodness("raises", raises))
    assert isinstance(found.value.__cause__, KeyError)
    # An error after it has another cause.
    with pytest.raises(onward.OnwardError) as found:
        train(goodness="no_such_goodness")
    assert found.value.__cause__ is None


@pytest.mark.parametrize(
    "function, said",
    [
        (lambda activity: None, "`goodness` returned None, expected numbers"),
        (lambda activity: activity, "block 1: .*one value per example"),
        (lambda activity: activity[:, 0] * np.nan, "not finite"),
        (lambda activity: np.array(["a"] * len(activity)), "an array of <U1, expected numbers"),
    ],
)
def test_a_wrong_result_is_named(function, said):
    with pytest.raises(onward.OnwardError, match=said):
        train(goodness=goodness("wrong", function))


def test_a_wrong_gradient_fails_the_trials():
    name = goodness("wrong_gradient", lambda activity: (activity**2).sum(1))
    with pytest.raises(onward.OnwardError, match="finite differences"):
        onward.conformance("goodness", name, verbose=False)
    with pytest.raises(onward.OnwardError, match="there is no goodness `nothing`"):
        onward.conformance("goodness", "nothing")


def test_wrong_views_are_named():
    def sampler_of(views):
        plugin = type("Views", (), {"__doc__": "Views that are wrong.", "views": lambda self, *of: views(*of)})
        onward.sampler(plugin, name="wrong_views")
        return "wrong_views"

    for views, said in [
        (lambda x, labels, rng: x, r"expected \(positives, negatives\)"),
        (lambda x, labels, rng: ([], x), "no positive view"),
        (lambda x, labels, rng: (x, x[:3]), "expected views of one shape"),
    ]:
        with pytest.raises(onward.OnwardError, match=said):
            train(sampler=sampler_of(views))


def test_what_cannot_be_registered_is_refused(monkeypatch):
    class Empty:
        """It has no method."""

    def undocumented(activity):
        return activity

    def untitled(activity):
        """A goodness without a gradient."""

    def needs(activity, power):
        """A goodness with a setting without a default."""

    with pytest.raises(onward.OnwardError, match="no method `views`"):
        onward.sampler(Empty)
    with pytest.raises(onward.OnwardError, match="expected a docstring"):
        onward.goodness(gradient=len)(undocumented)
    with pytest.raises(onward.OnwardError, match="expected a default for its setting `power`"):
        onward.goodness(gradient=len)(needs)
    with pytest.raises(onward.OnwardError, match="a-z, 0-9, _ and -"):
        onward.goodness(name="Two Words", gradient=len)(untitled)
    with pytest.raises(onward.OnwardError, match="one in package onward, one in package"):
        onward.goodness(name="sum_squares", gradient=len)(untitled)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(onward.OnwardError, match="expected a `gradient`, since PyTorch"):
        onward.goodness(untitled)


def test_a_plugin_that_is_defined_again_takes_the_place_of_the_first():
    for count in (1, 2):
        def again(activity, settings=count):
            """A goodness of an interactive session."""

        onward.goodness(again, name="again", gradient=len)
    shown = [plugin for plugin in onward.list("goodness") if plugin["name"] == "again"]
    assert len(shown) == 1 and shown[0]["settings"][0]["default"] == 2


def test_pytorch_finds_gradients():
    torch = pytest.importorskip("torch")

    @onward.goodness
    def squares_by_torch(activity):
        """The sum of the squares."""
        assert isinstance(activity, torch.Tensor)
        return activity.pow(2).sum(1)

    @onward.layer
    class TorchDense:
        """A layer whose gradients PyTorch finds."""

        def variables(self, shape, units, rng):
            return {"weight": rng.normal(size=(int(np.prod(shape)), units)) / np.prod(shape) ** 0.5}

        def forward(self, x, variables):
            return torch.relu(x.flatten(1) @ variables["weight"])

    @onward.goodness
    def written_for_numpy(activity):
        """The mean of the squares, with an operation of NumPy."""
        return np.add.reduce(activity, axis=1)

    class Odd(Exception):
        def __init__(self, one, two):
            super().__init__(f"{one} {two}")

    @onward.goodness
    def raises_oddly(activity):
        """It raises an exception that cannot be made from one text."""
        raise Odd("this", "that")

    for name in ("written_for_numpy", "raises_oddly"):
        with pytest.raises(onward.OnwardError, match="gets tensors of PyTorch") as found:
            train(goodness=name)
    assert isinstance(found.value.__cause__, Odd)
    onward.conformance("goodness", "squares_by_torch", verbose=False)
    onward.conformance("layer", "torch_dense", verbose=False)
    ours, theirs = train(goodness="squares_by_torch"), train(goodness="sum_squares", theta=0.0)
    assert abs(ours.error - theirs.error) < 0.05


def test_a_file_of_plugins_is_a_program(tmp_path):
    file = tmp_path / "my_rules.py"
    file.write_text(
        '''
import numpy as np
import onward

@onward.goodness(gradient=lambda activity, upstream: upstream[:, None] * np.sign(activity))
def total(activity):
    """The sum of the activities."""
    return abs(activity).sum(1)

if __name__ == "__main__":
    onward.main()
'''
    )
    small = ["--data", "digits", "--set", "hidden=[20]", "--set", "data.size=600", "--epochs", "1"]

    def program(*words):
        command = [sys.executable, file, *words]
        return subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)

    listed = program("list", "goodness")
    assert "total" in listed.stdout and "The sum of the activities." in listed.stdout
    compared = program("compare", "progressive,goodness=total,theta=5", *small, "--out", "table")
    assert compared.returncode == 0, compared.stderr
    assert "no result" not in compared.stdout + compared.stderr
    assert "backprop" in compared.stdout


def test_methods_are_compared_and_settings_swept():
    settings = dict(hidden=[30], epochs=1, data__size=600, verbose=False)
    methods = {"mine": {"architecture": "progressive", "goodness": "plain_squares"}, "wrong": "progresive"}
    table = onward.compare(methods, "digits", seeds=(1, 2), **settings)
    rows = {row["method"]: row for row in table}
    assert rows.keys() == {"mine", "wrong", "backprop", "deep supervision", "random layers"}
    assert rows["mine"]["rule"] == "contrast" and rows["backprop"]["rule"] == "backpropagation"
    assert rows["mine"]["epochs"] == 1 and rows["mine"]["multiply_adds_per_example"] > 1e4
    assert rows["mine"]["seeds"] == 2 and rows["mine"]["test_deviation"] is not None
    assert table[-1]["method"] == "wrong" and "unknown architecture" in table[-1]["problem"]
    assert "±" in repr(table) and "<td>mine</td>" in table._repr_html_()
    swept = onward.sweep("progressive:predsim", "digits", {"lr": [1e-9, 0.003], "layer__dropout": [0.0]}, **settings)
    assert swept.best["method"].startswith("lr=0.003") and swept[1]["test"] is None
    with pytest.raises(onward.OnwardError, match="grid: expected settings"):
        onward.sweep("progressive", "digits", {"lr": []}, **settings)


def test_settings_keep_their_values_and_types():
    seen = []

    @onward.goodness(gradient=lambda activity, upstream, **_: 2 * activity * upstream[:, None])
    def limited(activity, cap=float("inf"), flag=np.bool_(True), word="a", sizes=(1, 2)):
        """The sum of the squares, with settings of every type."""
        seen.append((cap, flag, word, sizes))
        return (activity**2).sum(1)

    train(goodness="limited", goodness__word="b")
    assert seen[0] == (float("inf"), True, "b", [1, 2])


def test_a_threshold_may_be_a_number_and_what_it_raises_is_named():
    @onward.goodness
    class Fixed:
        """The sum of the squares, with a fixed threshold."""

        threshold = 3.0

        def goodness(self, activity):
            return (activity**2).sum(1)

        def gradient(self, activity, upstream):
            return 2 * activity * upstream[:, None]

    @onward.goodness
    class Broken(Fixed):
        """A threshold that raises."""

        def threshold(self, units):
            raise RuntimeError("no threshold")

    train(goodness="fixed")
    with pytest.raises(onward.OnwardError, match="raised RuntimeError: no threshold"):
        train(goodness="broken")


def test_a_variable_is_an_array():
    @onward.layer
    class Scaled:
        """A layer with a number as its variable."""

        def variables(self, shape, units, rng):
            return {"s": 1.0}

        def forward(self, x, variables):
            return x

        def gradients(self, x, activity, gradient, variables):
            return {"s": [0.0]}

    with pytest.raises(onward.OnwardError, match=r"a number for `s`, expected an array: \[1.0\]"):
        train(layer="scaled")


def test_wrong_requests_are_named():
    run = train()
    x = np.zeros((3, 28, 28))
    for call, said in [
        (lambda: run.goodness(x, [1, 2, 3, 4]), "one for each of 3 examples"),
        (lambda: run.scores(x[:0]), "found none"),
        (lambda: run.set_weights({"head.weight": [[np.nan]]}), "`head.weight`: expected finite"),
        (lambda: onward.Data((x, [0, 10**9, 2])), "found 1000000000 among 3 examples"),
        (lambda: onward.conformance("layers", "dense"), "expected one of goodness"),
        (lambda: onward.goodness(len), "expected a class or a function"),
        (lambda: train(goodness="never_defined"), "import its file"),
        (lambda: onward.compare(["progressive"], "digits", seeds=[]), "one or more seeds"),
        (lambda: onward.sweep("progressive", "digits", {"goodness": "ab"}), "a list of values"),
    ]:
        with pytest.raises(onward.OnwardError, match=said):
            call()
    run.set_weights({"head.weight": np.full(run.weights["head.weight"].shape, 255, np.uint8)})
    assert run.weights["head.weight"].max() == 255
    assert onward.OnwardError("made here").key is None


def test_seeds_may_be_a_generator():
    settings = dict(hidden=[20], epochs=1, data__size=300, verbose=False, baselines=False)
    table = onward.compare(["progressive", "backprop"], "digits", seeds=(s for s in (1, 2)), **settings)
    assert [row["seeds"] for row in table] == [2, 2]

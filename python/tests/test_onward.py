"""The Python package: what it gives, the program's bits, and what it says of wrong input."""

import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import threading

import numpy as np
import pytest

import onward

SMALL = dict(data="digits", hidden=[40, 30], epochs=2, data__size=600, batch=50, seed=3)


@pytest.fixture(scope="module")
def run():
    return onward.train("progressive", verbose=False, **SMALL)


def digits(count, seed=0):
    """Images in which the class can be read off."""
    random = np.random.default_rng(seed)
    y = random.integers(0, 3, count)
    x = random.integers(0, 40, (count, 12, 12)).astype(np.uint8)
    for image, label in zip(x, y):
        image[4 * label : 4 * label + 4] += 200
    return x, y


def test_a_run_has_its_results(run):
    assert run.summary["seed"] == 3 and 0 < run.error < 0.9
    assert run.metrics["epoch"] == [1, 2]
    assert len(run.metrics["loss_1"]) == 2 and "error_head" in run.metrics
    assert run.settings["hidden"] == [40, 30] and run.settings["data"]["size"] == 600
    assert run.classes[7] == "7" and "progressive" in repr(run)
    assert "<svg" in run._repr_html_()


def test_the_program_gives_the_same_bits(run, tmp_path):
    settings = [f"--set={key.replace('__', '.')}={value}" for key, value in SMALL.items()]
    out = tmp_path / "program"
    command = [sys.executable, "-c", "import onward; onward.main()"]
    arguments = ["train", "progressive", "--quiet", "--out", out, *settings]
    subprocess.run([*command, *arguments], check=True, capture_output=True)
    model = onward.open(out).weights
    assert model.keys() == run.weights.keys()
    assert all((model[name] == value).all() for name, value in run.weights.items())


def test_scores_activities_and_predictions(run):
    x = np.random.default_rng(1).random((7, 28, 28))
    scores = run.scores(x, "search")
    assert scores.shape == (7, 10) and scores.dtype == np.float32
    assert (run.predict(x, "search") == scores.argmax(1)).all()
    assert (run.scores(x.reshape(7, -1), "search") == scores).all()
    assert [a.shape for a in run.activities(x).values()] == [(7, 40), (7, 30)]
    bytes_ = (x * 255).astype(np.uint8)
    assert np.allclose(run.scores(bytes_), run.scores(bytes_ / 255), atol=1e-4)


def test_settings_may_be_dictionaries_and_numbers_of_numpy():
    settings = dict(hidden=np.array([30]), layer={"name": "dense", "dropout": 0.1}, epochs=np.int64(1))
    run = onward.train("progressive", digits(60), verbose=False, **settings)
    assert run.settings["hidden"] == [30] and run.settings["layer"]["dropout"] == 0.1


def test_settings_of_data_count_for_data_that_are_not_the_default(tmp_path):
    (tmp_path / "fables.txt").write_text("The fox and the grapes. " * 60)
    data = f"text:{tmp_path / 'fables.txt'}"
    run = onward.train("nlp", data, data__window=5, hidden=[20], epochs=1, verbose=False)
    assert run.settings["data"]["window"] == 5


def test_text_is_read_as_tokens():
    run = onward.train("nlp", data="fables", hidden=[20], epochs=1, verbose=False)
    assert run.scores(np.zeros((2, 10), int), "head").shape == (2, len(run.classes))


def test_weights_go_out_and_in(run):
    name = "blocks.0.layer.weight"
    before = run.weights[name]
    x = np.random.default_rng(1).random((5, 784))
    scores = run.scores(x)
    run.set_weights({name: before * 0})
    assert np.ptp(run.activities(x)["1"], axis=0).max() == 0  # the biases alone
    run.set_weights({name: before})
    assert (run.scores(x) == scores).all()
    with pytest.raises(onward.OnwardError, match="expected shape"):
        run.set_weights({name: before[:3]})
    with pytest.raises(onward.OnwardError, match="there is no variable `x`; known: blocks.0"):
        run.set_weights({"x": before})


def test_weights_in_64_bits_stay_so(tmp_path):
    settings = dict(hidden=[5], data__size=100, epochs=1, precision="f64", verbose=False)
    run = onward.train("progressive", "digits", **settings)
    before = run.weights
    run.set_weights(before)
    assert all((value == before[name]).all() for name, value in run.weights.items())
    name = "blocks.0.layer.weight"
    single = onward.train("progressive", "digits", **{**settings, "precision": "f32"})
    with pytest.raises(onward.OnwardError, match="expected finite numbers"):
        single.set_weights({name: before[name] * 0 + 1e300})


def test_a_sweep_chooses_by_the_validation_part():
    settings = dict(hidden=[5], data__size=100, epochs=1, validate=False, verbose=False)
    with pytest.raises(onward.OnwardError, match="found no validation part"):
        onward.sweep("progressive", "digits", {"lr": [0.01, 0.02]}, **settings)


def test_metrics_have_the_names_of_blocks(tmp_path):
    settings = dict(hidden=[5], data__size=100, epochs=1, verbose=False, out=tmp_path / "run")
    run = onward.train("backprop", "digits", **settings)
    assert set(run.metrics) == set(onward.open(tmp_path / "run").metrics)


def test_the_only_example_of_a_class_is_learned():
    x = np.random.default_rng(1).random((30, 1, 6, 6))
    data = onward.Data((x, [0] * 14 + [1] * 14 + [2, 3]))
    run = onward.train("progressive", data, hidden=[5], epochs=1, verbose=False)
    assert len(run.classes) == 4


def test_the_module_compares_methods(tmp_path):
    small = ["--data", "digits", "--set", "data.size=100", "--set", "hidden=[5]", "--epochs", "1"]
    out = ["--no-baselines", "--json", "--out", tmp_path / "compared"]
    command = [sys.executable, "-m", "onward", "compare", "progressive", *small, *out]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)[0]["problems"] == []


@pytest.mark.parametrize("kind", ["bytes", "numbers", "names"])
def test_arrays_are_learned(kind):
    x, y = digits(600)
    if kind == "numbers":
        x = x.reshape(600, -1).astype(np.float64) / 255
    if kind == "names":
        y = np.array(["a", "b", "c"])[y]
    settings = dict(hidden=[40], epochs=8, standardise=kind != "numbers", verbose=False)
    run = onward.train("progressive", (x, y), **settings)
    assert run.error < 0.1
    assert run.classes == (["a", "b", "c"] if kind == "names" else ["0", "1", "2"])
    assert (run.predict(x) == digits(600)[1]).mean() > 0.9
    assert run.evaluate("all")["examples"] == 600


def test_a_run_is_saved_opened_and_resumed(tmp_path):
    data = onward.Data(digits(300))
    settings = dict(hidden=[20], standardise=True, verbose=False, seed=5)
    whole = onward.train("progressive", data, epochs=4, **settings)
    out = tmp_path / "run"
    half = onward.train("progressive", data, epochs=2, out=out, **settings)
    resumed = half.resume(data, epochs=4, verbose=False)
    assert resumed is half
    with pytest.raises(onward.OnwardError, match="unknown setting `epoch`"):
        half.resume(data, epoch=5, verbose=False)
    assert half.facts["epoch"] == 4
    assert half.evaluate("test")["error"] == half.error  # it has its data
    with pytest.raises(onward.OnwardError, match="examples"):
        half.resume(onward.Data(digits(200)), epochs=5, verbose=False)
    with pytest.raises(onward.OnwardError):
        half.resume(data, device="nothing", epochs=5, verbose=False)
    assert half.evaluate("test")["error"] == half.error
    half.resume(epochs=5, verbose=False)  # with its own data
    with pytest.raises(onward.OnwardError, match="no folder"):
        whole.resume()
    assert resumed.facts["epoch"] == 5 and resumed.metrics["epoch"] == [1, 2, 3, 4, 5]
    opened = onward.Run.open(out)
    assert opened.error == resumed.error
    x = digits(9, seed=1)[0]
    assert (opened.scores(x) == resumed.scores(x)).all()
    # A schedule depends on the number of epochs, so only a copy has the bits of the whole.
    whole.save(tmp_path / "copy")
    assert (onward.open(tmp_path / "copy").scores(x) == whole.scores(x)).all()


def test_the_callback_is_told_and_can_end_the_training():
    events = []
    onward.train("progressive", callback=events.append, verbose=False, **SMALL)
    assert [event["event"] for event in events].count("epoch") == 2
    assert events[-1]["event"] == "finished"

    class Enough(Exception):
        pass

    def stop(event):
        raise Enough(event["event"])

    with pytest.raises(Enough, match="epoch"):
        onward.train("progressive", callback=stop, verbose=False, **SMALL)


def test_ctrl_c_ends_the_training_and_other_threads_go_on(tmp_path):
    # A program in the background may be started without it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    seen = []
    timer = threading.Timer(1.5, lambda: (seen.append(1), os.kill(os.getpid(), signal.SIGINT)))
    timer.start()
    long = dict(SMALL, epochs=1000, evaluate_every=1000)
    with pytest.raises(KeyboardInterrupt):
        onward.train("progressive", out=tmp_path / "run", verbose=False, **long)
    assert seen == [1]
    assert (tmp_path / "run" / "state.safetensors").exists()


def test_wrong_settings_are_exceptions_with_their_parts():
    with pytest.raises(onward.OnwardError) as raised:
        onward.train("progressive", data="digits", lr=-1.0)
    assert (raised.value.key, raised.value.found) == ("lr", "-1.0")
    assert "greater than 0" in raised.value.expected
    with pytest.raises(onward.OnwardError, match="known: .*progressive"):
        onward.train("progresive", data="digits")
    with pytest.raises(onward.OnwardError, match="unknown setting `lrr`"):
        onward.train("progressive", data="digits", lrr=0.1)
    with pytest.raises(TypeError, match="setting `lr`: .*found object"):
        onward.train("progressive", data="digits", lr=object())
    with pytest.raises(onward.OnwardError, match="setting `epochs`: .* is too large"):
        onward.train("progressive", data="digits", epochs=10**30)
    with pytest.raises((OSError, onward.OnwardError), match="missing"):
        onward.open("missing")


@pytest.mark.parametrize(
    "x, y, said",
    [
        (np.zeros((4, 3)), [0, 1, 0], "one label for each of 4 examples"),
        (np.zeros(4), [0, 1, 0, 1], "expected examples"),
        (np.array([[1.0], [np.nan]]), [0, 1], "not finite"),
        (np.array([["a"], ["b"]]), [0, 1], "expected numbers"),
        (np.zeros((2, 3)), [0.5, 1.0], "whole numbers or names"),
        (np.zeros((2, 3)), [0, -1], "0 or more"),
        (np.zeros((2, 9, 9, 3)), [0, 1], "if the channels are last"),
    ],
)
def test_wrong_arrays_are_exceptions(x, y, said):
    with pytest.raises(onward.OnwardError, match=said):
        onward.train("progressive", (x, np.array(y)), verbose=False)


def test_wrong_examples_are_exceptions(run):
    with pytest.raises(onward.OnwardError, match=r"expected examples of shape \[1, 28, 28\]"):
        run.scores(np.zeros((3, 5)))
    with pytest.raises(onward.OnwardError, match="search, head"):
        run.scores(np.zeros((3, 784)), "crystal")
    with pytest.raises(onward.OnwardError, match="expected train, validation, test or all"):
        run.evaluate("exam")


def test_plugins_are_listed_and_shown(capsys):
    names = {plugin["name"] for plugin in onward.list("goodness")}
    assert {"sum_squares", "predsim"} <= names
    onward.show("progressive")
    shown = capsys.readouterr().out
    assert "hidden = [1000, 1000, 1000]" in shown and "preset hinton" in shown
    with pytest.raises(onward.OnwardError, match="unknown plugin"):
        onward.show("nothing")


def test_the_code_of_the_readme_runs():
    readme = (pathlib.Path(__file__).parents[1] / "README.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", readme, re.S)
    assert len(blocks) == 2
    names = {"__name__": "readme"}
    for block in blocks:
        exec(block, names)
    assert names["run"].error < 0.9


def test_the_installed_command_works():
    command = os.path.join(os.path.dirname(sys.executable), "onward")
    listed = subprocess.run([command, "list", "--json"], check=True, capture_output=True)
    assert "progressive" in json.dumps(json.loads(listed.stdout))
    wrong = subprocess.run([command, "train", "nothing"], capture_output=True, text=True)
    assert wrong.returncode == 2 and "unknown architecture" in wrong.stderr

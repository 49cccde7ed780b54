"""Networks as PyTorch modules and ONNX files give the scores of the run."""

import subprocess
import sys

import numpy as np
import pytest

import onward


def images(count=300, size=12):
    random = np.random.default_rng(1)
    y = random.integers(0, 4, count)
    x = random.random((count, 3, size, size)).astype(np.float32) / 4
    for image, label in zip(x, y):
        image[:, 3 * label : 3 * label + 3] += 0.6
    return x, y


NETS = {
    "search": dict(data="digits", hidden=[40, 30], data__size=600),
    "head": dict(data="digits", hidden=[40, 30], data__size=600),
    "label after the pixels": dict(preset="nebuly", data="digits", hidden=[30, 30], data__size=600, batch=50),
    "predsim": dict(preset="predsim", data="digits", hidden=[40, 40], data__size=600),
    "class groups": dict(
        data=images(), preset="class_groups", hidden=[8, 12], layer={"name": "conv", "norm": "batch"}
    ),
    "convolutional": dict(
        data=images(), preset="predsim_convolutional", hidden=[8, 12], goodness__inputs=64, batch=30
    ),
    "local classifiers": dict(
        data="digits", goodness="projection", loss="cross_entropy", sampler="plain", hidden=[30], data__size=600
    ),
}


@pytest.fixture(scope="module", params=NETS)
def run_and_readout(request):
    run = onward.train("progressive", epochs=2, verbose=False, seed=2, **NETS[request.param])
    return run, "head" if request.param == "head" else None


def close(found, expected):
    assert found.shape == expected.shape
    scale = max(1, np.abs(expected).max())
    assert np.abs(found - expected).max() < 1e-5 * scale


def examples(run):
    return np.random.default_rng(3).random((7, *run.facts["shape"])).astype(np.float32)


def test_a_module_gives_the_scores_of_the_run(run_and_readout):
    torch = pytest.importorskip("torch")
    run, readout = run_and_readout
    module = run.to_torch(readout)
    x = examples(run)
    close(module(torch.from_numpy(x)).detach().numpy(), run.scores(x, readout))
    assert {name.replace(".", "_") for name in run.weights} >= {name for name, _ in module.named_parameters()}


def test_weights_come_back_from_a_module(run_and_readout):
    torch = pytest.importorskip("torch")
    run, readout = run_and_readout
    module, x, before = run.to_torch(readout), examples(run), run.weights
    with torch.no_grad():
        for parameter in module.parameters():
            parameter *= 1.01
    run.from_torch(module)
    try:
        assert any((value != before[name]).any() for name, value in run.weights.items())
        close(module(torch.from_numpy(x)).detach().numpy(), run.scores(x, readout))
    finally:
        run.set_weights(before)
    with pytest.raises(onward.OnwardError, match="expected a module that `to_torch` made, found a Linear"):
        run.from_torch(torch.nn.Linear(2, 3))


def test_an_onnx_file_gives_the_scores_of_the_run(run_and_readout, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    run, readout = run_and_readout
    run.to_onnx(tmp_path / "net.onnx", readout)
    session = onnxruntime.InferenceSession(str(tmp_path / "net.onnx"), providers=["CPUExecutionProvider"])
    x = examples(run)
    (found,) = session.run(["scores"], {"examples": x})
    close(found, run.scores(x, readout))
    with pytest.raises(FileExistsError):
        run.to_onnx(tmp_path / "net.onnx")


def test_what_cannot_be_exported_says_why(tmp_path):
    run = onward.train("nlp", data="fables", hidden=[20], epochs=1, verbose=False)
    with pytest.raises(onward.OnwardError, match="text cannot be exported"):
        run.to_onnx(tmp_path / "net.onnx")
    run = onward.train("recurrent", data="digits", hidden=[20, 20], data__size=200, epochs=1, verbose=False)
    with pytest.raises(onward.OnwardError, match="no method `graph`"):
        run.to_onnx(tmp_path / "net.onnx")
    assert not (tmp_path / "net.onnx").exists()


def test_the_program_writes_onnx_files(tmp_path):
    run = onward.train("progressive", out=tmp_path / "run", verbose=False, epochs=1, **NETS["search"])
    command = [sys.executable, "-m", "onward", "export", tmp_path / "run", "--out", tmp_path / "net.onnx"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "input examples (N, 1, 28, 28), output scores (N, 10)" in done.stdout
    assert (tmp_path / "net.onnx").read_bytes() == bytes(run._native.onnx(run.facts["readout"]))
    again = subprocess.run(command, capture_output=True, text=True)
    assert again.returncode == 1 and "never overwritten" in again.stderr

"""What a run writes for other tools, read by these tools."""

import csv

import pytest

import onward

SMALL = dict(data="digits", data__size=200, hidden=[20], epochs=3, verbose=False)


def test_tensorboard_reads_the_events(tmp_path):
    reader = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator",
        reason="tensorboard is not installed",
    )
    run = onward.train("progressive", log=["tensorboard"], out=tmp_path / "run", **SMALL)
    events = reader.EventAccumulator(str(tmp_path / "run"))
    events.Reload()
    losses = events.Scalars("loss/1")
    assert [event.step for event in losses] == [1, 2, 3]
    expected = [line["blocks"][0]["loss"] for line in metrics(tmp_path / "run")]
    assert [event.value for event in losses] == pytest.approx(expected)
    test = events.Scalars(f"test error/{run.summary['test']['readout']}")
    assert [event.value for event in test] == pytest.approx([run.error])


def metrics(folder):
    import json

    lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [line for line in lines if line["event"] == "epoch"]


def test_the_csv_is_read_by_name(tmp_path):
    onward.train("progressive", log=["csv"], out=tmp_path / "run", **SMALL)
    with open(tmp_path / "run" / "metrics.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", "2", "3"]
    losses = [line["blocks"][0]["loss"] for line in metrics(tmp_path / "run")]
    assert [float(row["loss 1"]) for row in rows] == losses

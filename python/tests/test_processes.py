"""Threads, processes and the end of Python."""

import concurrent.futures
import copy
import multiprocessing
import subprocess
import sys

import numpy as np
import pytest

import onward

SMALL = dict(data="digits", hidden=[20], data__size=300, epochs=1, verbose=False)


def python(script, **options):
    command = [sys.executable, "-c", "import numpy as np, onward\n" + script]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, **options)


def test_a_process_that_was_forked_says_so():
    script = f"""
import os
SMALL = {SMALL}
onward.train("progressive", **SMALL)
child = os.fork()
if child == 0:
    try:
        onward.train("progressive", **SMALL)
    except onward.OnwardError as error:
        os._exit(7 if "spawn" in str(error) else 8)
    os._exit(9)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
"""
    done = python(script)
    assert done.returncode == 0, done.stderr


def trained(seed):
    return onward.train("progressive", seed=seed, **SMALL).error


def test_a_process_that_was_forked_while_a_thread_trains_ends_at_once():
    script = """
import os, threading, time
target = lambda: onward.train("progressive", data="digits", hidden=[30], epochs=100000, data__size=300, verbose=False)
threading.Thread(target=target, daemon=True).start()
time.sleep(1)
start, child = time.time(), os.fork()
if child:
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert time.time() - start < 5
"""
    done = python(script)
    assert done.returncode == 0, done.stderr


def test_processes_that_are_spawned_train():
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as pool:
        assert [*pool.map(trained, [3])] == [trained(3)]


def test_python_ends_while_a_thread_trains():
    script = """
import threading, time
target = lambda: onward.train("progressive", data="digits", hidden=[30], epochs=100000, data__size=300, verbose=False)
threading.Thread(target=target, daemon=True).start()
time.sleep(1)
"""
    done = python(script)
    assert done.returncode == 0, done.stderr
    assert "FATAL" not in done.stderr and "terminate" not in done.stderr


def test_a_plugin_may_use_its_own_run():
    kept = {}

    @onward.goodness(gradient=lambda activity, upstream: 2 * activity * upstream[:, None])
    def looks_at_its_run(activity):
        """The sum of the squares; it looks at its run."""
        if "run" in kept:
            assert kept["run"].facts["architecture"] == "progressive"
            assert kept["run"].settings["goodness"]["name"] == "looks_at_its_run"
        return (activity**2).sum(1)

    kept["run"] = onward.train("progressive", goodness="looks_at_its_run", **SMALL)
    kept["run"].scores(np.zeros((2, 28, 28)))


def test_each_thread_gets_the_cause_of_its_own_error():
    for word, kind in (("a", KeyError), ("b", ValueError)):
        def raises(activity, kind=word):
            """It raises."""
            raise {"a": KeyError, "b": ValueError}[kind](kind)

        onward.goodness(raises, name=f"raises_{word}", gradient=lambda activity, upstream, kind: activity)

    def cause(word):
        with pytest.raises(onward.OnwardError) as found:
            onward.train("progressive", goodness=f"raises_{word}", **SMALL)
        return type(found.value.__cause__)

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        found = [*pool.map(cause, "ab" * 12)]
    assert found == [KeyError, ValueError] * 12


def test_scores_from_several_threads_are_the_same():
    run = onward.train("progressive", **SMALL)
    x = np.random.default_rng(1).random((50, 28, 28))
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        for scores in pool.map(lambda _: run.scores(x, "search"), range(8)):
            assert (scores == run.scores(x, "search")).all()


def test_a_run_is_not_copied():
    run = onward.train("progressive", **SMALL)
    with pytest.raises(onward.OnwardError, match="`save`"):
        copy.deepcopy(run)

"""Forward-only learning: train, compare and inspect Forward-Forward networks and other local rules.

>>> import onward
>>> run = onward.train("progressive", data="digits", hidden=[50, 50], epochs=1, verbose=False)
>>> run.error < 0.6
True
>>> import numpy as np
>>> run.predict(np.zeros((3, 28, 28))).shape
(3,)
>>> run.weights["blocks.0.layer.weight"].shape
(784, 50)

Settings are those of the program: `onward.show("progressive")` describes them. Those of a layer, a
goodness and so on are given with two underscores, or as a dictionary: `layer__dropout=0.1`,
`layer={"name": "dense", "dropout": 0.1}`.
"""

import atexit as _atexit
import os as _os

# candle's own threads wait busily, and would take the cores from those of this module.
_os.environ.setdefault("CANDLE_NUM_THREADS", "1")

from . import _onward
from ._compare import compare, sweep
from ._data import Data
from ._extend import conformance, data_set, goodness, layer, sampler
from ._onward import OnwardError
from ._plugins import list_plugins as list
from ._plugins import show
from ._program import main
from ._run import Run, open_run as open, resume, train

#: Of an error that is not about a setting.
OnwardError.key = OnwardError.found = OnwardError.expected = None
# Threads that compute would abort the process while Python ends.
_atexit.register(_onward.finish)

__all__ = [
    "Data",
    "OnwardError",
    "Run",
    "compare",
    "conformance",
    "data_set",
    "goodness",
    "layer",
    "list",
    "main",
    "open",
    "resume",
    "sampler",
    "show",
    "sweep",
    "train",
]

"""The command `onward`."""

from __future__ import annotations

import os
import signal
import sys
from typing import NoReturn, Sequence

from . import _onward


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """The command line of onward, by default with the arguments of this process. It ends the process.

    At the end of a file of plugins it makes a program of the file, which knows them by name:

        if __name__ == "__main__":
            onward.main()                 # python my_rules.py train progressive --set goodness=mine
    """
    # The program handles Ctrl-C itself.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    words = sys.argv[1:] if arguments is None else arguments
    sys.exit(_onward.program(["onward", *words], [sys.executable, *_started()]))


def _started() -> list[str]:
    """What Python is told to start this program again."""
    main = sys.modules["__main__"]
    spec, script = getattr(main, "__spec__", None), getattr(main, "__file__", None)
    if spec is not None and spec.name != "__main__":  # python -m package
        return ["-m", spec.name.removesuffix(".__main__")]
    # An installed command starts as `onward`, which need not be a file that Python can read.
    return [os.path.abspath(script)] if script and script.endswith(".py") else ["-m", "onward"]

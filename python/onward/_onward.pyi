from typing import Any, Callable, Sequence

import numpy as np

from ._data import Native
from ._run import Path

_Part = tuple[np.ndarray, np.ndarray]

class OnwardError(ValueError):
    key: str | None
    found: str | None
    expected: str | None

class Data:
    def __init__(
        self,
        shape: Sequence[int],
        classes: Sequence[str],
        are_bytes: bool,
        train: _Part,
        validation: _Part,
        test: _Part,
    ) -> None: ...

class Run:
    def settings(self) -> dict[str, Any]: ...
    def facts(self) -> str: ...
    def scores(self, examples: np.ndarray, readout: str) -> Native: ...
    def activities(self, examples: np.ndarray) -> list[tuple[str, Native]]: ...
    def goodness(
        self, examples: np.ndarray, labels: list[int] | None
    ) -> list[tuple[str, Native]]: ...
    def graph(self, readout: str) -> tuple[str, list[tuple[str, Native]]]: ...
    def onnx(self, readout: str) -> bytes: ...
    def weights(self) -> list[tuple[str, Native]]: ...
    def set_weights(self, weights: Sequence[tuple[str, np.ndarray]]) -> None: ...
    def evaluate(self, split: str) -> str: ...
    def classify(self, files: Sequence[Path]) -> str: ...
    def save(self, folder: Path) -> None: ...

def train(
    architecture: str,
    settings: dict[str, Any],
    data: Data | None,
    preset: str | None,
    out: Path | None,
    data_dir: Path | None,
    device: str,
    callback: Callable[[str], None],
) -> tuple[Run, str]: ...
def resume(
    folder: Path,
    settings: dict[str, Any],
    data: Data | None,
    data_dir: Path | None,
    device: str,
    callback: Callable[[str], None],
) -> tuple[Run, str]: ...
def open(
    folder: Path, with_data: bool, data: Data | None, data_dir: Path | None, device: str
) -> Run: ...
def list() -> str: ...
def program(arguments: Sequence[str], again: Sequence[str]) -> int: ...
def register(
    kind: str,
    name: str,
    about: str,
    package: str,
    settings: Sequence[tuple[str, Any, str]],
    make: Callable[[dict[str, Any], list[int], int | None, int], Any],
) -> None: ...
def finish() -> None: ...
def conformance_of(kind: str, name: str) -> tuple[str, Sequence[str]]: ...

from typing import Any, Callable, Sequence

import numpy as np

from ._run import Path

_Array = tuple[bytes, list[int]]
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
    def settings(self) -> str: ...
    def facts(self) -> str: ...
    def scores(self, examples: np.ndarray, shape: Sequence[int], readout: str) -> _Array: ...
    def activities(self, examples: np.ndarray, shape: Sequence[int]) -> list[tuple[str, _Array]]: ...
    def weights(self) -> list[tuple[str, _Array]]: ...
    def set_weights(self, weights: Sequence[tuple[str, np.ndarray, Sequence[int]]]) -> None: ...
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
def plugins() -> str: ...
def program(arguments: Sequence[str]) -> int: ...

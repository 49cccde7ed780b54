"""Data sets from arrays."""

from __future__ import annotations

from typing import Any, Sequence

import numpy as np

from . import _onward

#: Examples and their labels.
Pair = tuple[Any, Any]


class Data:
    """A data set of arrays in memory.

    train, validation, test: pairs of examples and labels. Without a test part a sixth of the
    training examples of each class is one, always the same; likewise for the validation part.

    Examples are images `(N, H, W)` or `(N, C, H, W)`, or rows `(N, D)`. Bytes (`uint8`) are read as
    0 to 1; other numbers are taken as they are, in 32 bits. Labels are whole numbers from 0 on, or
    names.

    >>> import numpy as np
    >>> x = np.random.default_rng(1).normal(size=(60, 8))
    >>> Data((x, x[:, 0] > 0))
    Data(shape=(8,), classes=['False', 'True'], train=42, validation=8, test=10)
    """

    def __init__(
        self,
        train: Pair,
        *,
        validation: Pair | None = None,
        test: Pair | None = None,
        classes: Sequence[str] | None = None,
    ):
        parts = {"train": _pair(train, "train")}
        for name, part in (("validation", validation), ("test", test)):
            if part is not None:
                parts[name] = _pair(part, name)
        labels = np.concatenate([y for _, y in parts.values()])
        self.classes, codes = codes_of(labels, classes)
        start = 0
        for name, (x, y) in parts.items():
            parts[name] = (x, codes[start : start + len(y)])
            start += len(y)
        for name in ("test", "validation"):
            if name not in parts:
                parts["train"], parts[name] = _sixth(*parts["train"])
        shapes = {name: x.shape[1:] for name, (x, _) in parts.items()}
        if len(set(shapes.values())) > 1:
            raise _onward.OnwardError(f"expected examples of one shape in all parts, found {shapes}")
        self.shape = shapes["train"]
        self.sizes = {name: len(parts[name][1]) for name in ("train", "validation", "test")}
        are_bytes = (
            all(x.dtype == np.uint8 for x, _ in parts.values())
            and len(self.shape) == 3
            and len(self.classes) <= 256
        )
        arrays = [
            (_as_bytes(x) if are_bytes else as_floats(x, name), y)
            for name, (x, y) in ((name, parts[name]) for name in self.sizes)
        ]
        self._native = _onward.Data([*self.shape], [*self.classes], are_bytes, *arrays)

    def __repr__(self) -> str:
        sizes = ", ".join(f"{name}={size}" for name, size in self.sizes.items())
        return f"Data(shape={self.shape}, classes={self.classes}, {sizes})"


#: An array of the native part: its bytes, shape and type.
Native = tuple[bytearray, list[int], str]


def array(values: Native) -> np.ndarray:
    """An array of the native part as one of NumPy, without a copy."""
    data, shape, kind = values
    return np.frombuffer(data, dtype=kind).reshape(shape)


def shared(data: Data | Pair | None) -> Data | None:
    """Data that several runs can share."""
    if data is None or isinstance(data, Data):
        return data
    return Data(data)


def native(data: Data | Pair | None) -> _onward.Data | None:
    """What the native part takes."""
    data = shared(data)
    if data is None:
        return None
    return data._native


def as_examples(x: Any, what: str = "x") -> np.ndarray:
    """Examples as an array; grey images `(N, H, W)` get their channel."""
    x = np.asarray(x)
    if x.dtype == object or x.dtype.kind not in "buif":
        raise _onward.OnwardError(f"{what}: expected numbers, found an array of {x.dtype}")
    if x.ndim < 2:
        raise _onward.OnwardError(
            f"{what}: expected examples (N, …), found shape {x.shape}; one example is x[None]"
        )
    if x.ndim == 4 and x.shape[3] in (3, 4) and x.shape[1] not in (1, 3, 4):
        raise _onward.OnwardError(
            f"{what}: expected images (N, C, H, W), found shape {x.shape}; if the channels are last: "
            "x.transpose(0, 3, 1, 2)"
        )
    return x[:, None] if x.ndim == 3 else x


def _as_bytes(x: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(x)


def as_floats(x: np.ndarray, what: str = "x") -> np.ndarray:
    values = np.ascontiguousarray(x, dtype=np.float32)
    if x.dtype == np.uint8:
        values /= 255
    if not np.isfinite(values).all():
        at = int(np.argwhere(~np.isfinite(values))[0][0])
        raise _onward.OnwardError(f"{what}: example {at} has a value that is not finite")
    return values


def _pair(part: Pair, what: str) -> tuple[np.ndarray, np.ndarray]:
    try:
        x, y = part
    except (TypeError, ValueError):
        raise _onward.OnwardError(
            f"{what}: expected a pair (examples, labels), found {type(part).__name__}"
        ) from None
    x, y = as_examples(x, what), np.asarray(y)
    if y.ndim != 1 or len(y) != len(x):
        raise _onward.OnwardError(
            f"{what}: expected one label for each of {len(x)} examples, found shape {y.shape}"
        )
    return x, y


def codes_of(labels: np.ndarray, classes: Sequence[str] | None) -> tuple[list[str], np.ndarray]:
    """The names of the classes, and the number of each label."""
    if labels.dtype.kind in "iu":
        if len(labels) and labels.min() < 0:
            raise _onward.OnwardError(f"labels: expected 0 or more, found {labels.min()}")
        count = int(labels.max()) + 1 if len(labels) else 0
        if not classes and count > len(labels) + 1000:
            raise _onward.OnwardError(
                f"labels: found {count - 1} among {len(labels)} examples; number the classes from 0 on, as "
                "np.unique(labels, return_inverse=True)[1] does"
            )
        names = [str(name) for name in classes] if classes else [str(i) for i in range(count)]
        if count > len(names):
            raise _onward.OnwardError(
                f"labels: found {count - 1}, expected numbers below {len(names)}, the number of classes"
            )
        return names, np.ascontiguousarray(labels, dtype=np.uint32)
    if labels.dtype.kind == "f":
        raise _onward.OnwardError("labels: expected whole numbers or names, found fractions")
    words = labels.astype(str)
    known = [str(name) for name in classes] if classes else sorted(set(words.tolist()))
    numbers = {name: number for number, name in enumerate(known)}
    unknown = sorted(set(words.tolist()) - set(known))
    if unknown:
        raise _onward.OnwardError(f"labels: found {unknown[:3]}, expected one of {known}")
    return known, np.array([numbers[word] for word in words.tolist()], dtype=np.uint32)


def _sixth(x: np.ndarray, y: np.ndarray) -> tuple[tuple, tuple]:
    """All but a sixth of the examples of each class, and that sixth. The only one of a class stays."""
    order = np.random.default_rng(0).permutation(len(y))
    by_class = order[np.argsort(y[order], kind="stable")]
    by_class = by_class[np.bincount(y)[y[by_class]] > 1]
    chosen = np.zeros(len(y), dtype=bool)
    chosen[by_class[5::6]] = True
    return (x[~chosen], y[~chosen]), (x[chosen], y[chosen])

"""Networks as PyTorch modules."""

from __future__ import annotations

import json
from typing import Any, Callable

import numpy as np
import torch
from torch.nn import functional

from . import _onward
from ._data import array

#: What each operation of a graph does with its arguments and its settings.
_OPERATIONS: dict[str, Callable[..., torch.Tensor]] = {
    "matmul": lambda a, b: a @ b,
    "add": lambda a, b: a + b,
    "multiply": lambda a, b: a * b,
    "divide": lambda a, b: a / b,
    "maximum": torch.maximum,
    "leaky_relu": lambda a, slope: functional.leaky_relu(a, slope),
    "sqrt": torch.sqrt,
    "log_softmax": lambda a: functional.log_softmax(a, 1),
    "sum_last": lambda a: a.sum(-1),
    "conv": lambda x, kernels, padding: functional.conv2d(x, kernels, padding=padding),
    "max_pool": lambda a, size: functional.max_pool2d(a, size),
    "mean_pool": lambda a, size: functional.avg_pool2d(a, size),
    "shape": lambda a, dims: a.reshape(len(a), *dims),
    "reshape": lambda a, dims: a.reshape(dims),
    "pad_columns": lambda a, count: functional.pad(a, (0, count)),
    "concat_columns": lambda *of: torch.cat(of, 1),
    "concat_rows": lambda *of: torch.cat(of, 0),
    "views": lambda a, count: a.reshape(count, -1),
    "transpose": lambda a: a.T,
}


class Network(torch.nn.Module):
    """The operations of a readout. Variables of the run are parameters, other numbers are buffers."""

    def __init__(self, entries: list[dict[str, Any]], constants: dict[str, np.ndarray]):
        super().__init__()
        self.entries = entries
        for name, values in constants.items():
            tensor = torch.from_numpy(values.copy())
            if name.startswith("constant."):
                self.register_buffer(_attribute(name), tensor)
            else:
                self.register_parameter(_attribute(name), torch.nn.Parameter(tensor))
        #: The name of each parameter in the run.
        self.variables = {
            _attribute(name): name for name in constants if not name.startswith("constant.")
        }

    def extra_repr(self) -> str:
        parts = (f"{name}: {tuple(value.shape)}" for name, value in self.named_parameters())
        return ", ".join(parts)

    def forward(self, examples: torch.Tensor) -> torch.Tensor:
        values: list[torch.Tensor] = []
        for entry in self.entries:
            operation = entry["op"]
            if operation == "input":
                values.append(_examples(examples, entry["shape"]))
            elif operation == "constant":
                values.append(getattr(self, _attribute(entry["name"])))
            else:
                settings = {key: value for key, value in entry.items() if key not in ("op", "of", "shape")}
                of = [values[index] for index in entry["of"]]
                values.append(_OPERATIONS[operation](*of, **settings))
        return values[-1]


def _examples(x: torch.Tensor, shape: list[int]) -> torch.Tensor:
    """Examples of this shape; bytes are read as 0 to 1."""
    x = torch.as_tensor(x)
    if x.ndim < 2 or x.numel() != len(x) * int(np.prod(shape)):
        raise _onward.OnwardError(f"x: expected examples of shape {shape}, found {[*x.shape]}")
    x = x.float() / 255 if x.dtype == torch.uint8 else x
    return x.reshape(len(x), *shape)


def module(native: _onward.Run, readout: str) -> Network:
    entries, constants = native.graph(readout)
    return Network(json.loads(entries), {name: array(values) for name, values in constants})


def weights(network: torch.nn.Module) -> dict[str, np.ndarray]:
    """The parameters by their names in the run."""
    if not isinstance(network, Network):
        found = type(network).__name__
        raise _onward.OnwardError(f"expected a module that `to_torch` made, found a {found}")
    values = dict(network.named_parameters())
    return {name: values[key].detach().cpu().double().numpy() for key, name in network.variables.items()}


def _attribute(name: str) -> str:
    """A name without dots, which PyTorch does not allow."""
    return name.replace(".", "_")

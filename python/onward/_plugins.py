"""What can be named in a training."""

from __future__ import annotations

import json
import textwrap
from typing import Any

from . import _onward


def list_plugins(kind: str | None = None) -> list[dict[str, Any]]:
    """All architectures, layers, goodness functions, samplers and data sets, or those of one kind.

    >>> [plugin["name"] for plugin in list_plugins("architecture")]
    ['backprop', 'layer_collaboration', 'nlp', 'progressive', 'recurrent', 'sigprop', 'trifecta']
    """
    found = json.loads(_onward.list())
    kinds = list(dict.fromkeys(plugin["kind"] for plugin in found))
    if kind is not None and kind not in kinds:
        raise _onward.OnwardError(f"kind `{kind}`: expected one of {', '.join(kinds)}")
    return [plugin for plugin in found if kind in (None, plugin["kind"])]


def show(name: str) -> None:
    """Prints the settings and presets of a plugin.

    >>> show("class_groups")  # doctest: +ELLIPSIS
    goodness class_groups: the mean over the units of each class ...
      of = 'squares'
          The mean of the squared or of the plain activities.
          Allowed: one of squares, values.
    ...
    """
    named = [plugin for plugin in list_plugins() if plugin["name"] == name]
    if not named:
        known = ", ".join(plugin["name"] for plugin in list_plugins())
        raise _onward.OnwardError(f"unknown plugin `{name}`; known: {known}")
    for plugin in named:
        print(f"{plugin['kind']} {plugin['name']}: {' '.join(plugin['about'].split())}")
        for setting in plugin["settings"]:
            default = "not set" if setting["default"] is None else repr(setting["default"])
            print(f"  {setting['key']} = {default}")
            help_text = " ".join(setting["help"].split())
            for text in (help_text, f"Allowed: {setting['allowed']}."):
                print(textwrap.fill(text, 96, initial_indent=" " * 6, subsequent_indent=" " * 6))
        for preset in plugin["presets"]:
            print(f"  preset {preset['name']}: {' '.join(preset['about'].split())}")

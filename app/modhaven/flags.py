"""Flags of the command line: one for every key of the configuration, made from the keys.

``hedge.min_seconds`` is ``--hedge-min-seconds``. A value is written as in the file, without its
quotes; what is a list there is a flag that may be given several times, each value an element:
a text, or a mapping or list in YAML, of which JSON is a part. A flag outranks the file.
"""

from __future__ import annotations

import dataclasses
import re
import types
import typing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from modhaven import config, options
from modhaven.checks import ConfigError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping

# Beside the name that follows from the key.
_SHORT = {"store.path": "--store"}


def name_of(key: str) -> str:
    """Return the flag of a key: ``--store-path`` of ``store.path``."""
    return "--" + re.sub(r"[._]", "-", key)


def keys() -> list[str]:
    """Return the keys that have a flag: all but those of the mappings in a list."""
    return [key for group in options.MEANINGS.values() for key in group if "[]" not in key]


def add(parser: argparse.ArgumentParser) -> None:
    """Add ``--config``, and the flag of every key under the heading of its group."""
    parser.add_argument("--config", type=Path, metavar="FILE", help="configuration file in YAML")
    for heading, group in options.MEANINGS.items():
        section = parser.add_argument_group(heading)
        for key in filter(lambda key: "[]" not in key, group):
            kind = _type_of(key)
            names = [_SHORT[key]] if key in _SHORT else []
            section.add_argument(
                *names,
                name_of(key),
                dest=key,
                metavar=options.METAVARS.get(key) or _metavar(key, kind),
                help=_help(key, kind, group),
                # --require-verified alone is true.
                nargs="?" if kind == "bool" else None,
                const="true" if kind == "bool" else None,
                action="append" if kind.startswith("tuple") else "store",
            )


def load(given: argparse.Namespace) -> config.Config:
    """Return the configuration of the file, if one is named, and the flags; ConfigError."""
    data = config.read(given.config) if given.config else {}
    flags = _values(given)
    if not isinstance(data, dict):
        return config.from_mapping(data)
    merged = dict(data)
    for key, value in flags.items():
        below = merged.get(key, {})
        if isinstance(value, dict) and isinstance(below, dict):
            merged[key] = {**below, **value}
        elif not isinstance(value, dict):
            merged[key] = value
    return config.from_mapping(merged)


def name_the_flag(message: str, given: argparse.Namespace) -> str:
    """Return a sentence that begins with a key so that it begins with the flag that was given."""
    key, _, rest = message.partition(" ")
    if key in keys() and vars(given).get(key) is not None:
        return f"{name_of(key)} {rest}"
    return message


def default_of(key: str) -> str:
    """Return the default of a key as the documents have it, in Markdown."""
    if key in options.DEFAULTS:
        return options.DEFAULTS[key]
    value: object = config.Config()
    for name in key.split("."):
        value = getattr(value, name, None)
    if value in (None, "", ()):
        return "none"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f"`{value:g}`" if isinstance(value, float) else f"`{value}`"


def _values(given: argparse.Namespace) -> dict[str, object]:
    """Return the flags that were given as the file would have them."""
    values: dict[str, Any] = {}
    for key in keys():
        text = vars(given).get(key)
        if text is None:
            continue
        section, _, name = key.rpartition(".")
        into = values.setdefault(section, {}) if section else values
        into[name] = _value(key, _type_of(key), text)
    return values


def _value(key: str, kind: str, text: str | list[str]) -> object:
    if isinstance(text, list):
        return _elements(key, text)
    if kind == "bool":
        return {"true": True, "false": False}.get(text, text)
    if kind.startswith(("int", "float")):
        for number in (int, float):
            try:
                return number(text)
            except ValueError:
                continue
    if kind.startswith("Path") and text:
        # Of the folder the command is run in, as people expect; the server may leave it.
        return str(Path(text).absolute())
    return text


def _elements(key: str, texts: list[str]) -> object:
    elements: list[object] = []
    for text in texts:
        element: object = text
        if text.startswith(("{", "[")):
            try:
                element = yaml.safe_load(text)
            except yaml.YAMLError:
                raise ConfigError(f"{key} has {text!r}, which is not YAML") from None
        elements += element if isinstance(element, list) else [element]
    # One text is a text: a whole chain, a single key, the word off.
    return elements[0] if len(elements) == 1 and isinstance(elements[0], str) else elements


def _type_of(key: str) -> str:
    """Return the declared type of a key's value: ``int``, ``Path | None``, ``tuple[Peer, ...]``."""
    section, _, name = key.rpartition(".")
    holder: Any = config.Config
    if section:
        holder = typing.get_type_hints(config.Config)[section]
        choices = [one for one in typing.get_args(holder) if one is not types.NoneType]
        holder = choices[0] if choices else holder
    fields = {field.name: str(field.type) for field in dataclasses.fields(holder)}
    return fields[name]


def _metavar(key: str, kind: str) -> str:
    if kind == "bool":
        return "true|false"
    for unit in ("seconds", "bytes"):
        if key.endswith(f"_{unit}"):
            return unit.upper()
    if kind.startswith("Path"):
        return "PATH"
    return "NUMBER" if kind.startswith(("int", "float")) else "VALUE"


def _help(key: str, kind: str, group: Mapping[str, str]) -> str:
    text = group[key]
    inner = [name.removeprefix(f"{key}[].") for name in group if name.startswith(f"{key}[].")]
    if inner:
        text += f" A mapping, in YAML, has the keys {', '.join(inner)}."
    if kind.startswith("tuple"):
        text += " May be given several times."
    return f"{text} Default: {default_of(key)}.".replace("`", "").replace("%", "%%")

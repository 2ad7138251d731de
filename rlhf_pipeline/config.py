"""Strict settings: dataclass defaults <- YAML file <- command line, flat, every value with the place it came from.

A setting is obeyed or refused, never ignored and never replaced: an unknown name, a wrong type, a missing value or a
name given twice is a `ConfigError` that says where. Defaults live in dataclass fields and nowhere else.
Left out: nesting, interpolation, includes, environment variables.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import re
import textwrap
import types
import typing
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast

import yaml
from pydantic import ConfigDict, TypeAdapter, ValidationError

from rlhf_pipeline.errors import ConfigError, RlhfError

T = TypeVar("T")

_NULL_WORDS = {"null", "~"}


@dataclasses.dataclass(frozen=True)
class Setting:
    """One value somebody gave, and where: `recipes/x.yaml:12` or `--kl_coef`."""

    name: str
    value: Any
    where: str


def read_settings(argv: Sequence[str]) -> dict[str, Setting]:
    """Read `--config file.yaml` and then flat `--name value` overrides; dashes in names equal underscores.

    `--name=value`, `--name` alone (True) and `--name a b c` (a list) are understood. Raises ConfigError on a file that
    cannot be read, a word that belongs to no setting, and a name given twice in the same place.
    """
    typed = _from_command_line(argv)
    config = typed.pop("config", None)
    if config is None:
        return typed
    if not isinstance(config.value, str):
        raise ConfigError("--config: needs exactly one file, e.g. --config recipes/demo/sft.yaml")
    return {**flat_yaml(config.value), **typed}


def _from_command_line(argv: Sequence[str]) -> dict[str, Setting]:
    settings: dict[str, Setting] = {}
    for flag, words in _flags(argv):
        bare, equals, first = flag.partition("=")
        values: list[str] = ([first] if equals else []) + words
        value: Any = True if not values else values[0] if len(values) == 1 else values
        name = _canonical(bare.removeprefix("--"))
        if name in settings:
            raise ConfigError(f"{bare}: given twice on the command line; keep one")
        settings[name] = Setting(name, value, bare)
    return settings


def _flags(argv: Sequence[str]) -> list[tuple[str, list[str]]]:
    """Group the words by the `--flag` before them."""
    grouped: list[tuple[str, list[str]]] = []
    for word in argv:
        if word.startswith("--") and len(word) > 2:
            grouped.append((word, []))
        elif grouped and not re.match(r"-[A-Za-z-]", word):
            grouped[-1][1].append(word)
        else:
            raise ConfigError(f"`{word}` belongs to no setting; settings are written --name value (--help lists them)")
    return grouped


def flat_yaml(file: str) -> dict[str, Setting]:
    """Read one YAML mapping, with the line of every key; raises ConfigError naming the line that cannot be read."""
    try:
        text = Path(file).read_text(encoding="utf-8")
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        raise ConfigError(f"--config: no file {file}; recipes/<name>/<stage>.yaml holds examples") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{file}: not UTF-8 text ({error.reason})") from None
    try:
        return _from_node(file, yaml.compose(text, Loader=yaml.SafeLoader))
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ConfigError(f"{file}:{line}: not YAML: {error.problem}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{file}: not YAML: {str(error).splitlines()[0]}") from None


def _from_node(file: str, root: yaml.Node | None) -> dict[str, Setting]:
    if root is None:
        return {}
    if not isinstance(root, yaml.MappingNode):
        raise ConfigError(f"{file}:{root.start_mark.line + 1}: expected `name: value` lines")
    constructor = yaml.constructor.SafeConstructor()
    settings: dict[str, Setting] = {}
    for key, node in root.value:
        where = f"{file}:{key.start_mark.line + 1}"
        if not isinstance(key, yaml.ScalarNode):
            raise ConfigError(f"{where}: a setting's name must be a word")
        name = _canonical(key.value)
        if name in settings:
            raise ConfigError(f"{where}: `{key.value}` was already given at {settings[name].where}; keep one")
        settings[name] = Setting(name, constructor.construct_object(node, deep=True), where)
    return settings


def _canonical(name: str) -> str:
    return name.replace("-", "_")


def names(cls: type) -> set[str]:
    """Return the settings a dataclass takes."""
    return {field.name for field in _fields(cls)}


def _fields(cls: type) -> list[dataclasses.Field[Any]]:
    return [field for field in dataclasses.fields(cast(Any, cls)) if field.init]


def take(cls: type[T], settings: Mapping[str, Setting], **fixed: Any) -> T:
    """Build one dataclass from the settings it knows, each turned into the field's type (`"1e-5"` to a float).

    `fixed` values are the caller's own and may not also be given as settings. Raises ConfigError naming the place of
    the value that does not fit, also where the class itself refuses a combination.
    """
    hints = typing.get_type_hints(cls)
    values = dict(fixed)
    for field in _fields(cls):
        setting = settings.get(field.name)
        if setting is None:
            continue
        if field.name in fixed:
            raise ConfigError(f"{setting.where}: `{field.name}` is decided by the command itself; remove it")
        values[field.name] = _typed(setting, hints[field.name])
    try:
        return cls(**values)
    except ConfigError as error:
        raise ConfigError(_with_place(str(error), settings)) from None
    except RlhfError:
        raise
    except (ValueError, TypeError) as error:
        raise ConfigError(_with_place(" ".join(str(error).split()), settings)) from error


def _with_place(message: str, settings: Mapping[str, Setting]) -> str:
    """Put the place of the first setting that the message names, or whose value it quotes, in front of it."""
    by_value = {value: setting for setting in settings.values() if isinstance(value := setting.value, str)}
    for word in [*re.findall(r"`(\w+)`", message), *re.findall(r"\w+", message)]:
        setting = settings.get(word) or by_value.get(word)
        if setting:
            return message if message.startswith(setting.where) else f"{setting.where}: {message}"
    return message


def _typed(setting: Setting, hint: Any) -> Any:
    """Turn one value into the type of its field, or refuse it."""
    kinds = _kinds(hint)
    value = setting.value
    if isinstance(value, bool) and bool not in kinds and Any not in kinds:
        raise ConfigError(_refusal(setting, hint))
    if isinstance(value, str) and value in _NULL_WORDS and type(None) in kinds:
        return None
    adapter = TypeAdapter(hint, config=ConfigDict(arbitrary_types_allowed=True, coerce_numbers_to_str=True))
    for candidate in _readings(setting, kinds):
        try:
            return adapter.validate_python(candidate)
        except ValidationError:
            continue
    raise ConfigError(_refusal(setting, hint))


def _readings(setting: Setting, kinds: set[Any]) -> list[Any]:
    """Return the value, and what one word of a command line may also stand for: JSON, or a list of one."""
    value = setting.value
    if not isinstance(value, str):
        return [value]
    readings: list[Any] = [value]
    if value[:1] in ("{", "[") and kinds & {dict, list}:
        try:
            readings.append(json.loads(value))
        except json.JSONDecodeError as error:
            raise ConfigError(f"{setting.where}: `{setting.name}` is not JSON: {error}") from None
    return [*readings, [value]] if list in kinds else readings


def _kinds(hint: Any) -> set[Any]:
    """Return the plain classes inside a type: `list[str] | None` gives {list, NoneType}."""
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        return set().union(*(_kinds(part) for part in typing.get_args(hint)))
    if origin is typing.Annotated:
        return _kinds(typing.get_args(hint)[0])
    if origin is typing.Literal:
        return {type(choice) for choice in typing.get_args(hint)}
    return {origin or hint}


def _refusal(setting: Setting, hint: Any) -> str:
    kinds, value, place = _kinds(hint), setting.value, f"{setting.where}: `{setting.name}`"
    if value is True and setting.where.startswith("--"):
        return f"{place} needs a value ({type_text(hint)})"
    if isinstance(value, bool) and str in kinds:
        return f"{place} is {value!r} to YAML (as are yes, no, on, off); write it in quotes"
    if typing.get_origin(hint) is typing.Literal:
        choices = [str(choice) for choice in typing.get_args(hint)]
        return f"{place} must be one of {', '.join(choices)}, not {value!r}{_did_you_mean(str(value), choices)}"
    return f"{place} must be {type_text(hint)}, not {value!r}"


def refuse_unknown(settings: Mapping[str, Setting], *classes: type, extra_names: Collection[str] = ()) -> None:
    """Raise ConfigError for the first setting that none of the dataclasses knows, with the nearest name."""
    known = set(extra_names).union(*(names(cls) for cls in classes))
    for setting in settings.values():
        if setting.name not in known:
            hint = _did_you_mean(setting.name, known) or "; --help lists the settings"
            raise ConfigError(f"{setting.where}: `{setting.name}` is not a setting{hint}")


def _did_you_mean(word: str, known: Collection[str]) -> str:
    near = difflib.get_close_matches(word, sorted(known), n=1, cutoff=0.6)
    return f"; did you mean `{near[0]}`?" if near else ""


def given(settings: Mapping[str, Setting], *, without: Collection[str] = ()) -> dict[str, Any]:
    """Return what was given explicitly as JSON-able values, sorted, so that `"1e-5"` and `1e-5` are the same.

    Meant for input keys: two ways of writing one value give one key.
    """
    return {name: _plain(settings[name].value) for name in sorted(settings) if name not in without}


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in sorted(value.items(), key=lambda pair: str(pair[0]))}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, str):
        return _plain_word(value)
    if isinstance(value, float) and value.is_integer():  # False for nan and the infinities
        return int(value)
    return value if isinstance(value, bool | int | float | None) else str(value)


def _plain_word(word: str) -> Any:
    """Read `true`, `null` and plain decimal numbers; digits that may be a name (`007`) stay a word."""
    if word.lower() in ("true", "false"):
        return word.lower() == "true"
    if word in _NULL_WORDS:
        return None
    if re.fullmatch(r"-?(0|[1-9]\d*)", word):
        return int(word)
    if re.fullmatch(r"-?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?", word, re.IGNORECASE) and not word.isdigit():
        return _plain(float(word))
    return word


def help_text(prog: str, summary: str, *classes: type, also: str = "") -> str:
    """Return the `--help` page of a command: one entry for each field, from its type, default and metadata["help"]."""
    lines = [f"usage: {prog} [--config file.yaml] [--name value ...]", "", summary, "", "settings:"]
    for cls in classes:
        lines += _help_lines(cls)
    return "\n".join([*lines, "", also]).rstrip() + "\n"


def command_settings(
    argv: Sequence[str], prog: str, summary: str, cls: type[T], *, first: str = "", also: str = ""
) -> T | None:
    """Read the settings of a command from `argv`; where that asks for help, print the page and return None.

    A first word that is no flag is the setting `first`, where the command has one. Raises ConfigError for what `cls`
    does not know or take.
    """
    if {"--help", "-h"} & set(argv):
        print(help_text(prog, summary, cls, also=also), end="")
        return None
    words = [f"--{first}", *argv] if first and argv and not argv[0].startswith("-") else argv
    asked = read_settings(words)
    refuse_unknown(asked, cls)
    return take(cls, asked)


def _help_lines(cls: type) -> list[str]:
    hints = typing.get_type_hints(cls)
    lines = []
    for field in _fields(cls):
        lines.append(f"  --{field.name}  {type_text(hints[field.name])}{_default_text(field)}")
        lines += textwrap.wrap(field.metadata.get("help", ""), 110, initial_indent=" " * 6, subsequent_indent=" " * 6)
    return lines


def _default_text(field: dataclasses.Field[Any]) -> str:
    if field.default is not dataclasses.MISSING:
        return f"  (default: {field.default})"
    if field.default_factory is not dataclasses.MISSING:
        return f"  (default: {field.default_factory()})"
    return "  (required)"


def type_text(hint: Any) -> str:
    """Write a type the way a person would: `float`, `int or null`, `a list of str`, `fixed|adaptive`."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(type_text(part) for part in arguments)
    if origin is typing.Literal:
        return "|".join(str(choice) for choice in arguments)
    if origin is typing.Annotated:
        return type_text(arguments[0])
    if origin in (list, tuple):
        return f"a list of {type_text(arguments[0])}"
    if hint is type(None):
        return "null"
    return getattr(origin or hint, "__name__", str(hint))

"""Where the configuration comes from: four sources, of which the later wins.

Defaults < `gateway.toml` < environment (`GATEWAY_RTMP__PORT=1936`) < command line (`--set rtmp.port=1936`). Kept true: a key that nobody
knows is an error that names the nearest known one and the source it stands in; all problems are told at once; a secret is never printed.
"""

import difflib
import json
import os
import tomllib
from collections import ChainMap
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import wrap
from typing import Any, get_args

from pydantic import BaseModel, SecretStr, ValidationError
from pydantic_settings import EnvSettingsSource, TomlConfigSettingsSource

from gateway.config import PREFIX, Config


@dataclass(frozen=True, slots=True)
class ConfigProblem:
    """One thing wrong: where it stands, its value as written (`***` for a secret) and what is allowed."""

    key: str
    source: str
    value: str
    allowed: str

    def __str__(self) -> str:
        shown = f"{self.key} = {self.value}" if self.value else self.key
        return f"{shown} (from {self.source}): {self.allowed}"


class ConfigError(Exception):
    """The configuration cannot be used; `problems` holds everything that is wrong with it."""

    def __init__(self, problems: Sequence[ConfigProblem]) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = tuple(problems)


@dataclass(frozen=True, slots=True)
class ConfigLayer:
    """One source: its values by dotted key, and how its author wrote that key."""

    values: Mapping[str, object]
    wrote: Callable[[str], str]


def load(file: Path | None = None, sets: Sequence[str] = ()) -> Config:
    """Reads all sources: `file` (must exist), the environment, and `key=value` texts of the command line.

    Raises:
        ConfigError: with every problem of every source.
    """
    layers = [_from_command_line(sets), _from_environment()]
    if file is not None:
        layers.append(_from_file(file))
    if problems := [problem for layer in layers for problem in _unknown(layer)]:
        raise ConfigError(problems)
    merged = ChainMap(*(dict(layer.values) for layer in layers))
    try:
        return Config(**_nested(merged))
    except ValidationError as error:
        raise ConfigError([_invalid(details, layers) for details in error.errors(include_url=False)]) from None


def check(files: Mapping[str, str]) -> list[ConfigProblem]:
    """What only this machine can tell: which of the files, by the key that names each, are not there. One without a name is not wanted."""
    return [
        ConfigProblem(key, "the configuration", _shown(path), "no such file, or it may not be read")
        for key, path in files.items()
        if path and not (Path(path).is_file() and os.access(path, os.R_OK))
    ]


def render(config: Config) -> str:
    """`config` as a commented `gateway.toml`, secrets as `***`."""
    lines = [
        "# The gateway's configuration: every key with its default. The environment (GATEWAY_RTMP__PORT=1936) and the",
        "# command line (--set rtmp.port=1936) win over this file. Paths are relative to the working directory.",
    ]
    for name, section in config:
        lines += ["", f"# {type(section).__doc__}", f"[{name}]"]
        for key, field in type(section).model_fields.items():
            lines += wrap(field.description or "", 120, initial_indent="# ", subsequent_indent="#   ")
            lines.append(f"{key} = {_shown(getattr(section, key))}")
    return "\n".join(lines) + "\n"


def known_keys() -> tuple[str, ...]:
    """Every dotted key there is."""
    return tuple(key for key, _ in _defaults())


def _defaults() -> Iterator[tuple[str, object]]:
    for name, section in Config():
        for key in type(section).model_fields:
            yield f"{name}.{key}", getattr(section, key)


def _from_command_line(sets: Sequence[str]) -> ConfigLayer:
    problems = [ConfigProblem(text, "--set", "", "write key=value, e.g. rtmp.port=1936") for text in sets if "=" not in text]
    if problems:
        raise ConfigError(problems)
    pairs = (text.split("=", 1) for text in sets)
    return ConfigLayer({key.strip(): value for key, value in pairs}, lambda key: f"--set {key}")


def _from_environment() -> ConfigLayer:
    # pydantic-settings passes over a variable with our prefix that is no key; `stray` brings it back so that it is told.
    stray = {_dotted(name): value for name, value in os.environ.items() if name.upper().startswith(PREFIX)}
    tables = tuple(f"{key}." for key, value in _defaults() if isinstance(value, Mapping))
    stray = {
        key: value for key, value in stray.items() if not key.startswith(tables)
    }  # an entry of a table comes with the table
    return ConfigLayer(stray | _flat(EnvSettingsSource(Config)()), lambda key: PREFIX + key.upper().replace(".", "__"))


def _dotted(variable: str) -> str:
    return variable[len(PREFIX) :].lower().replace("__", ".")


def _from_file(file: Path) -> ConfigLayer:
    if not file.is_file():
        raise ConfigError([ConfigProblem(str(file), "--config", "", "no such file")])
    try:
        return ConfigLayer(_flat(TomlConfigSettingsSource(Config, file)()), lambda key: file.name)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise ConfigError([ConfigProblem(str(file), "--config", "", f"cannot be read: {error}")]) from None


def _flat(values: Mapping[str, Any]) -> dict[str, object]:
    """`{"rtmp": {"port": 1}}` as `{"rtmp.port": 1}`; what stands outside a section keeps its name and is unknown for it."""
    flat: dict[str, object] = {}
    for name, value in values.items():
        flat |= {f"{name}.{key}": inner for key, inner in value.items()} if isinstance(value, dict) else {name: value}
    return flat


def _nested(flat: Mapping[str, object]) -> dict[str, Any]:
    nested: dict[str, dict[str, object]] = {}
    for dotted, value in flat.items():
        section, key = dotted.split(".", 1)
        nested.setdefault(section, {})[key] = value
    return nested


def _unknown(layer: ConfigLayer) -> Iterator[ConfigProblem]:
    known = known_keys()
    for key in layer.values:
        if key not in known:
            nearest = difflib.get_close_matches(key, known, 1, 0.4)
            hint = f"; did you mean {nearest[0]}?" if nearest else ""
            yield ConfigProblem(key, layer.wrote(key), "", f"unknown key{hint}")


def _invalid(details: Mapping[str, Any], layers: Sequence[ConfigLayer]) -> ConfigProblem:
    section, *rest = (str(part) for part in details["loc"])
    model = Config.model_fields[section].annotation
    key = f"{section}.{rest[0]}" if rest else section
    sources = (layer.wrote(name) for layer in layers for name in layer.values if name == key or name.startswith(f"{key}."))
    values = (layer.values[key] for layer in layers if key in layer.values)
    field = model.model_fields.get(rest[0]) if rest and isinstance(model, type) and issubclass(model, BaseModel) else None
    secret = field is not None and _holds_secret(field.annotation)
    # An entry of a table of tables is named; that of a table of secrets may be one of them, misplaced.
    shown = f"{key}.{rest[1]}.{rest[2]}" if len(rest) > 2 and rest[2] != "[key]" else key
    message = details["msg"].removeprefix("Value error, ").removeprefix("Input ")
    allowed = f"{message}. {field.description}" if field and field.description else message
    value = next((_shown("***" if secret else found) for found in values), "")
    return ConfigProblem(shown, next(sources, "the defaults"), value, allowed)


def _holds_secret(annotation: Any) -> bool:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return any(_holds_secret(field.annotation) for field in annotation.model_fields.values())
    return annotation is SecretStr or any(map(_holds_secret, get_args(annotation)))


def _shown(value: object) -> str:
    """A value as TOML writes it."""
    match value:
        case SecretStr():
            return '"***"' if value.get_secret_value() else '""'
        case BaseModel():
            return _shown(dict(value))
        case Mapping():
            return "{ " + ", ".join(f"{key} = {_shown(item)}" for key, item in value.items()) + " }" if value else "{}"
        case tuple() | list():
            return f"[{', '.join(map(_shown, value))}]"
        case bool() | int() | float():
            return json.dumps(value)
        case _:
            return json.dumps(str(value), ensure_ascii=False)

"""Finds keys and sections of the configuration that nobody reads: a misspelt one would silently leave a default.

What dlt itself reads below the source's section (`data_writer`, `extract`, `schema`, sections of resources and
credentials) is left to dlt.
"""

import os
import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from difflib import SequenceMatcher, get_close_matches
from inspect import signature
from pathlib import Path
from typing import Any

import dlt
import tomlkit
from dlt.common.configuration.container import Container
from dlt.common.configuration.providers import ConfigProvider, VaultDocProvider
from dlt.common.configuration.providers.doc import BaseDocProvider
from dlt.common.configuration.providers.environ import SECRET_STORAGE_PATH
from dlt.common.configuration.specs import (
    CredentialsConfiguration,
    PluggableRunContext,
    RuntimeConfiguration,
    known_sections,
)
from dlt.common.typing import AnyType

from further_source.exceptions import ConfigurationError
from further_source.settings import SOURCE_NAME
from further_source.text import one_line, printable

__all__ = ["check_keys"]

_SECTION = f"[{known_sections.SOURCES}.{SOURCE_NAME}]"
_PREFIX = f"{known_sections.SOURCES}__{SOURCE_NAME}__".upper()
_ALSO_CALLED = {"further", "furtherai"}
_LIKE = 0.8
_MAX_TOLD = 3

_DLT_SECTIONS = {
    *(value for name, value in vars(known_sections).items() if name.isupper()),
    RuntimeConfiguration.__section__,
    CredentialsConfiguration.__section__,
}


@dataclass(frozen=True)
class _Found:
    """A key as it was found; `path` are its sections and itself, in the environment in lower case."""

    path: tuple[str, ...]
    where: str
    variable: str | None = None  # of the environment


def check_keys(keys: Collection[str], resources: Collection[str]) -> None:
    """Looks through the environment, `config.toml`, `secrets.toml` and what else dlt has as a document.

    Args:
        keys: Those of the source.
        resources: Their names; dlt may have sections of these below the source's.

    Raises:
        ConfigurationError: A key in a section of the source that is none of these and none of dlt's, or a section that
            nearly is the source's. The message names it, where it stands, and the nearest one.
    """
    allowed = {*keys, *resources, *_DLT_SECTIONS, *signature(dlt.source).parameters}
    sections = {*resources, *_DLT_SECTIONS}
    problems = dict.fromkeys(
        problem for found in _all_found() if (problem := _problem(found, keys, allowed, sections)) is not None
    )
    if problems:
        told = [*problems][:_MAX_TOLD]
        more = f"; and {len(problems) - len(told)} more" if len(problems) > len(told) else ""
        raise ConfigurationError(one_line("; ".join(told) + more))


def _problem(found: _Found, keys: Collection[str], allowed: set[str], sections: set[str]) -> str | None:
    path = found.path
    if path[1:2] == (known_sections.SOURCES,):
        path = path[1:]  # the settings of one pipeline
    if path[:2] != (known_sections.SOURCES, SOURCE_NAME):
        return _near_section(found, path, keys)
    if found.variable is not None and found.variable != found.variable.upper():
        return f"{found.variable} in {found.where}: not read, names of variables are upper case"
    tail = path[3:] if path[2:3] == (SOURCE_NAME,) else path[2:]
    if not tail or (len(tail) == 1 and tail[0] in allowed) or (len(tail) > 1 and tail[0] in sections):
        return None
    name = "__".join(tail) if found.variable else ".".join(tail)
    if found.variable is not None:
        return f"{found.variable} in {found.where}: no such key; {_nearest(name, keys, variable=True)}"
    section = ".".join(found.path[: len(found.path) - len(tail)])
    return f"{name} in [{section}] of {found.where}: no such key; {_nearest(name, keys)}"


def _near_section(found: _Found, path: tuple[str, ...], keys: Collection[str]) -> str | None:
    """The problem of a key that is in no section of the source, if it was meant to be in one."""
    if found.variable is not None:
        key = _meant_key(found.variable, path, keys)
        nearest = None if key is None else _nearest(key, keys, variable=True)
        return nearest and f"{found.variable} in {found.where}: not read; {nearest}"
    depth = next((depth for depth in (1, 2, 3) if len(path) > depth and _is_near(path[:depth], path[depth], keys)), 0)
    if not depth:
        return None
    section = ".".join(found.path[: len(found.path) - len(path) + depth])
    return f"[{section}] of {found.where}: no such section; did you mean {_SECTION}?"


def _is_near(section: tuple[str, ...], key: str, keys: Collection[str]) -> bool:
    """Whether a section nearly is the source's. In one that is named like a pipeline, dlt reads keys of its own."""
    if key in _DLT_SECTIONS:
        return False
    match section:
        case (known_sections.SOURCES, name):
            return name != SOURCE_NAME and _is_like_ours(name)
        case (sources, name):
            return _is_like(sources, known_sections.SOURCES) and _is_like_ours(name)
        case (name,):
            return _is_like(name, SOURCE_NAME) and key in keys
        case _:
            return section[0] == known_sections.SOURCES and section[2] == SOURCE_NAME and key in keys


def _meant_key(variable: str, path: tuple[str, ...], keys: Collection[str]) -> str | None:
    """The key that a variable of the environment was meant to set, if it was meant for the source."""
    for depth in (1, 2, 3):
        if len(path) > depth and _is_near(path[:depth], path[depth], keys):
            return "__".join(path[depth:])
    if found := re.match(r"sources?_+further_*source_*(?=[a-z])", variable, re.IGNORECASE):
        return variable[found.end() :].lower()
    return None


def _nearest(name: str, keys: Collection[str], *, variable: bool = False) -> str:
    close = get_close_matches(name, keys, n=1)
    shown = (lambda key: _PREFIX + key.upper()) if variable else str
    return f"did you mean {shown(close[0])}?" if close else f"the keys are {', '.join(keys)}"


def _is_like_ours(name: str) -> bool:
    return _plain(name) in _ALSO_CALLED or _is_like(name, SOURCE_NAME)


def _is_like(name: str, right: str) -> bool:
    return SequenceMatcher(None, _plain(name), _plain(right)).ratio() >= _LIKE


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _all_found() -> Iterator[_Found]:
    for variable in os.environ:
        yield _Found(tuple(variable.lower().split("__")), "the environment", printable(variable))
    directory = Path(SECRET_STORAGE_PATH).parent
    for name in _names(directory):
        yield _Found(tuple(name.replace("-", "_").split("__")), str(directory / name))
    for provider in Container()[PluggableRunContext].providers.providers:
        if isinstance(provider, BaseDocProvider):
            yield from _in_document(provider)


def _names(directory: Path) -> list[str]:
    try:
        return os.listdir(directory)
    except OSError:
        return []


def _in_document(provider: BaseDocProvider) -> Iterator[_Found]:
    if isinstance(provider, VaultDocProvider):  # it looks up what it holds as it is asked, the same for each key
        provider.get_value(SOURCE_NAME, AnyType, "", known_sections.SOURCES)
    try:
        document = tomlkit.parse(provider.to_toml()).unwrap()
    except ValueError:  # of values that no TOML has
        return
    for path in _paths(document):
        yield _Found(path, _location(provider, path))


def _paths(document: dict[str, Any]) -> Iterable[tuple[str, ...]]:
    for name, value in document.items():
        if isinstance(value, dict):
            yield from ((name, *path) for path in _paths(value))
        else:
            yield (name,)


def _location(provider: ConfigProvider, path: tuple[str, ...]) -> str:
    location = provider.get_value_location(path[-1], None, *path[:-1])
    files = provider.present_locations or ()
    if not location or not files:
        return provider.name
    # dlt merges a file of the user's into the one of the directory, and marks what it took from there.
    file = Path(files[-1] if location.startswith("global:") else files[0])
    return printable(os.path.relpath(file) if file.is_relative_to(Path.cwd()) else str(file))

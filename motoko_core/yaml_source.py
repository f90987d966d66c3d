"""A YAML file that remembers where everything stands.

:class:`YamlSource` holds the plain data of a file together with PyYAML's nodes, so that a complaint about
a value can name the line on which the user wrote it. Only plain YAML is read: a tag that would build a
Python object is an error.
"""

from __future__ import annotations

import os
import reprlib
from collections.abc import Collection
from pathlib import Path
from typing import Any, NoReturn, TypeAlias

import attrs
import yaml

from motoko_core.errors import ConfigError, nearest

#: Keys and list indices that lead from the top of a file to a value.
Keys: TypeAlias = "tuple[str | int, ...]"

#: Tags of ``<<`` and ``=`` as keys: PyYAML gives them a meaning only while it merges mappings.
_KEY_TAGS = ("tag:yaml.org,2002:merge", "tag:yaml.org,2002:value")


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader, with every failure to build a value reported as a YAML error with a line."""

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep=deep)
        except (ValueError, KeyError, AttributeError, IndexError, TypeError) as exc:
            # '2024-13-45' looks like a date and '!!bool x' like a truth value; PyYAML lets the
            # converter's own exception out.
            raise yaml.constructor.ConstructorError(
                None, None, f"{node.value!r} is not a valid {node.tag.rpartition(':')[2]}", node.start_mark
            ) from exc


@attrs.frozen(kw_only=True, eq=False)
class YamlSource:
    """A YAML file whose top level is a mapping.

    :param path: absolute path of the file.
    :param data: the plain data, as ``yaml.safe_load`` would give it.
    """

    path: Path
    data: dict[Any, Any]
    _root: yaml.Node
    _loader: _Loader

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, missing: str, empty: str) -> YamlSource:
        """Read and check a file.

        :param missing: what to do when the file is not there; the error's hint.
        :param empty: what to write when there is nothing in it; the error's hint.
        :raises ConfigError: the file is missing, unreadable, empty, not plain YAML, not a mapping, or has
            the same key twice in one mapping.
        """
        # Like os.path.abspath: runs are recognised by this path, so it has to be spelt in one way only.
        path = Path(os.path.normpath(Path(path).absolute()))
        text = _read(path, missing)
        try:
            loader = _Loader(text)
            root = loader.get_single_node()
            if root is None:
                raise ConfigError(f"{path.name} is empty.", where=f"{path}:1", hint=empty)
            _refuse_duplicates(loader, root, path)
            data = loader.construct_document(root)
        except yaml.YAMLError as exc:
            raise _not_yaml(path, text, exc) from exc
        source = cls(path=path, data=data, root=root, loader=loader)
        if data is None:
            raise ConfigError(f"{path.name} is empty.", where=source.where(), hint=empty)
        if not isinstance(data, dict):
            source.fail((), f"{path.name} must be a mapping, not {describe(data)}.", empty)
        return source

    def where(self, *keys: str | int) -> str:
        """Return ``path:line`` of a value; of the nearest enclosing one, if it is not in the file."""
        return f"{self.path}:{self.line(*keys)}"

    def line(self, *keys: str | int) -> int:
        """Return the line of a value, from 1; of the nearest enclosing one, if it is not in the file."""
        node, line = self._root, self._root.start_mark.line
        for key in keys:
            found = self._child(node, key)
            if found is None:
                break
            line, node = found
        return line + 1

    def _child(self, node: yaml.Node, key: str | int) -> tuple[int, yaml.Node] | None:
        if isinstance(node, yaml.MappingNode):
            # The last one counts: PyYAML puts merged entries before the mapping's own.
            for key_node, value in reversed(node.value):
                if self._loader.construct_object(key_node, deep=True) == key:
                    return key_node.start_mark.line, value
        elif isinstance(node, yaml.SequenceNode) and isinstance(key, int):
            item: yaml.Node = node.value[key]
            return item.start_mark.line, item
        return None

    def fail(self, keys: Keys, message: str, hint: str | None = None) -> NoReturn:
        """Raise the ConfigError for the value at ``keys``."""
        raise ConfigError(message, where=self.where(*keys), hint=hint)

    def get(self, *keys: str | int) -> Any:
        """Return the value at ``keys``, None if it is absent."""
        value: Any = self.data
        for key in keys:
            if value is None:
                break
            value = value.get(key) if isinstance(value, dict) else value[key]
        return value

    def mapping(self, *keys: str | int, example: str) -> dict[str, Any]:
        """Return a mapping with text keys; empty if it is absent or left blank.

        :param example: what a right one looks like.
        """
        value = self.get(*keys)
        if value is None:
            return {}
        if not isinstance(value, dict):
            self.fail(keys, f"{spell(keys)} must be a mapping, not {describe(value)}.", f"Write {example}")
        for key in value:
            if not isinstance(key, str):
                self.fail(
                    (*keys, key),
                    f"a key in {spell(keys)} must be text, not {describe(key)}.",
                    "Put it in quotes: YAML reads bare numbers and words such as 'on' as something else.",
                )
        return value

    def texts(self, *keys: str | int, example: str) -> list[str]:
        """Return a list of text; empty if it is absent or left blank.

        :param example: what a right one looks like.
        """
        value = self.get(*keys)
        if value is None:
            return []
        if not isinstance(value, list):
            self.fail(keys, f"{spell(keys)} must be a list, not {describe(value)}.", f"Write {example}")
        return [self.text(*keys, index, example=example) for index in range(len(value))]

    def text(self, *keys: str | int, example: str) -> str:
        """Return a text that is not empty.

        :param example: what a right one looks like.
        """
        value = self.get(*keys)
        if not isinstance(value, str) or not value:
            self.fail(keys, f"{spell(keys)} must be text, not {describe(value)}.", f"Write {example}")
        return value

    def require(self, key: str, hint: str) -> None:
        """Refuse a file without the top-level ``key``."""
        if key not in self.data:
            self.fail((), f"the key {key!r} is missing.", hint)

    def only(self, keys: Keys, given: Collection[str], known: Collection[str]) -> None:
        """Refuse keys under ``keys`` that are not ``known``."""
        for key in given:
            if key not in known:
                place = f" in {spell(keys)}" if keys else ""
                self.fail((*keys, key), f"unknown key {key!r}{place}.", nearest(key, known))


def spell(keys: Keys) -> str:
    """Return the keys as the user would say them: ``'task_managers.add.host'``, ``'block[0]'``."""
    text = ""
    for key in keys:
        text += f"[{key}]" if isinstance(key, int) else f".{key}"
    return repr(text.lstrip(".")) if text else "the file"


def describe(value: object) -> str:
    """Return a value with its type, cut short if it is long."""
    return "nothing" if value is None else f"{type(value).__name__} {reprlib.repr(value)}"


def _read(path: Path, missing: str) -> str:
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        raise ConfigError("there is no such file.", where=str(path), hint=missing) from None
    except OSError as exc:
        raise ConfigError(f"cannot be read: {exc.strerror}.", where=str(path), hint=missing) from exc
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        line = raw.count(b"\n", 0, exc.start) + 1
        raise ConfigError(
            f"byte {raw[exc.start]:#04x} is not UTF-8.",
            where=f"{path}:{line}",
            hint="Save the file as UTF-8.",
        ) from exc


def _not_yaml(path: Path, text: str, exc: yaml.YAMLError) -> ConfigError:
    if isinstance(exc, yaml.reader.ReaderError):
        line = text.count("\n", 0, exc.position) + 1
        return ConfigError(f"not YAML: {exc.reason}.", where=f"{path}:{line}", hint="Remove the character.")
    mark = getattr(exc, "problem_mark", None)
    line = mark.line + 1 if mark else 1
    problem = getattr(exc, "problem", None) or str(exc)
    if "constructor for the tag" in problem:
        tag = problem.rpartition("tag ")[2].strip("'").replace("tag:yaml.org,2002:", "!!")
        return ConfigError(
            f"the tag {tag} is not allowed.",
            where=f"{path}:{line}",
            hint="Write plain YAML: text, numbers, lists and mappings.",
        )
    context = getattr(exc, "context", None)
    begin = getattr(exc, "context_mark", None)
    if context and begin and begin.line + 1 != line:  # an open bracket is noticed at the end of the file
        context += f" that begins on line {begin.line + 1}"
    context = f" ({context})" if context else ""
    return ConfigError(
        f"not YAML: {problem}{context}.",
        where=f"{path}:{line}",
        hint="Look at the indentation (spaces, no tabs), the colons and the quotes on this line and above.",
    )


def _refuse_duplicates(loader: _Loader, root: yaml.Node, path: Path) -> None:
    # Before anything is constructed, because constructing mixes merged entries with a mapping's own.
    pending, seen = [root], set[int]()
    while pending:
        node = pending.pop()
        if id(node) in seen:  # an anchor can be used often, even inside itself
            continue
        seen.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            pending.extend(node.value)
        elif isinstance(node, yaml.MappingNode):
            first_lines: dict[Any, int] = {}
            for key_node, value in node.value:
                pending.append(value)
                if not isinstance(key_node, yaml.ScalarNode):
                    continue
                bare = key_node.tag in _KEY_TAGS
                key = key_node.value if bare else loader.construct_object(key_node, deep=True)
                line = key_node.start_mark.line + 1
                if key in first_lines:
                    raise ConfigError(
                        f"the key {key!r} is there twice; the first is on line {first_lines[key]}.",
                        where=f"{path}:{line}",
                        hint="Keep one of them.",
                    )
                first_lines[key] = line

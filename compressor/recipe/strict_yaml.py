"""YAML as people expect it: plain data only, `1e-4` is a number, and nothing in a file can take the reader down.

Reading refuses aliases, tags for other objects, deep nesting and integers beyond 64 bits, so that a file of bounded
size becomes data of bounded size. What `dump` writes, `parse` reads back unchanged.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

_MAX_DEPTH = 32
_INT, _FLOAT, _STR = (f"tag:yaml.org,2002:{kind}" for kind in ("int", "float", "str"))
_PLAIN = {f"tag:yaml.org,2002:{kind}" for kind in ("null", "bool", "int", "float", "str", "seq", "map")}
_EXPONENT = re.compile(r"[-+]?(?:\d[\d_]*\.?[\d_]*|\.\d+)[eE][-+]?\d+$")


class PlainYamlError(ValueError):
    """The text is not plain YAML; the message says what and where."""


class _Loader(yaml.SafeLoader):
    """A safe loader that collects duplicate keys."""

    yaml_constructors = {tag: f for tag, f in yaml.SafeLoader.yaml_constructors.items() if tag is None or tag in _PLAIN}
    yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in rules if not tag.endswith("timestamp")]
        for first, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.duplicates: list[str] = []
        self.depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.composer.ComposerError(
                None, None, "aliases (*name) are not allowed", self.peek_event().start_mark
            )
        if self.depth >= _MAX_DEPTH:
            raise yaml.composer.ComposerError(None, None, "nested too deeply", self.peek_event().start_mark)
        self.depth += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                self.duplicates.append(f"key '{key.value}' appears twice (line {key.start_mark.line + 1})")
            seen.add(key.value if isinstance(key, yaml.ScalarNode) else "")
        return super().construct_mapping(node, deep)


def _construct_int(loader: _Loader, node: yaml.ScalarNode) -> int:
    value = loader.construct_yaml_int(node)
    if not -(2**63) <= value < 2**63:
        raise yaml.constructor.ConstructorError(None, None, "the integer is beyond 64 bits", node.start_mark)
    return value


def _construct_str(loader: _Loader, node: yaml.ScalarNode) -> str:
    value = str(loader.construct_scalar(node))
    if "\0" in value or any("\ud800" <= character <= "\udfff" for character in value):
        raise yaml.constructor.ConstructorError(None, None, "the text holds a forbidden character", node.start_mark)
    return value


class _Dumper(yaml.SafeDumper):
    """A safe dumper that writes no aliases and quotes what `_Loader` would read as a number."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


_Loader.add_constructor(_INT, _construct_int)
_Loader.add_constructor(_STR, _construct_str)
_Loader.add_implicit_resolver(_FLOAT, _EXPONENT, list("-+.0123456789"))
_Dumper.add_implicit_resolver(_FLOAT, _EXPONENT, list("-+.0123456789"))
_Dumper.add_multi_representer(Path, lambda dumper, path: dumper.represent_str(str(path)))


def parse(text: str) -> tuple[object, list[str]]:
    """Read one YAML document.

    Returns:
        The data, and one message for every key that appears twice in a mapping.

    Raises:
        PlainYamlError: the text is not YAML, or more than plain data.
    """
    loader = None
    try:
        loader = _Loader(text)
        data = loader.get_single_data()
    except yaml.MarkedYAMLError as error:
        line = f" (line {error.problem_mark.line + 1})" if error.problem_mark else ""
        raise PlainYamlError(f"{error.problem or error.context}{line}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise PlainYamlError(str(error)) from error
    finally:
        if loader is not None:
            loader.dispose()
    return data, loader.duplicates


def dump(data: object) -> str:
    """Write plain data (and paths, as text) as YAML, in the order of its keys."""
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)

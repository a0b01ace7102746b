"""Writes the pages of the documentation that follow from the code: `python -m tests.generate`.

- docs/recipe.md: every key of a recipe, from the schema.
- docs/command.md: every verb of the command with its arguments and options, from the command itself.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from inspect import Parameter, signature
from math import inf
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

from typer.models import ArgumentInfo, OptionInfo

from compressor.cli.app import app
from compressor.recipe import Recipe

DOCS = Path(__file__).parents[1] / "docs"
NOTE = "<!-- Generated from the code by `python -m tests.generate`; change it there. -->"
RECIPE = """# The recipe

A recipe is one YAML file that says everything a run depends on. Only `model.builder`, `model.input`, `data.source` and
one key of `compress.target` are required; `compressor init MODEL` writes a commented starting point. Paths are relative
to the recipe. Unknown keys are errors, all faults are reported at once, and the run directory's own `recipe.yaml` shows
every key with its value. `compressor run RECIPE --set section.key=VALUE` changes a key for one run."""
COMMAND = """# The command

`compressor VERB --help` shows the same in a terminal; words in capitals stand for values of yours. Messages go to
standard error; with `--json`, standard output holds JSON and nothing else. `compressor --debug VERB …` (or
`COMPRESSOR_DEBUG=1`) shows tracebacks. [automation.md](automation.md) has exit codes and the events of `run --json`."""
BOUNDS = {"minimum": "≥ {}", "exclusiveMinimum": "> {}", "maximum": "≤ {}", "exclusiveMaximum": "< {}"}
TYPES = {"string": "text", "number": "number", "integer": "integer", "boolean": "true or false", "object": "mapping"}

Schema = dict[str, Any]


def recipe_page() -> str:
    """Return docs/recipe.md."""
    schema = Recipe.model_json_schema()
    blocks = [NOTE, RECIPE]
    for name, section in schema["properties"].items():
        found = list(_rows(name, section, schema, required=name in schema["required"]))
        text = [_meaning(section, schema)] if _section(section, schema) else []
        blocks += [f"## `{name}`", *text, _table(("key", "type", "default", "bounds", "meaning"), found)]
    return "\n\n".join(blocks) + "\n"


def _rows(key: str, field: Schema, root: Schema, *, required: bool) -> Iterator[tuple[str, ...]]:
    """Rows of the table: one for a value, one for every key of a section."""
    section = _section(field, root)
    if section is None or "." in key:
        kind = _type(field, root)
        yield f"`{key}`", kind, _default(field, required), _bounds(field), _meaning(field, root)
    for name, part in (section or {}).get("properties", {}).items():
        yield from _rows(f"{key}.{name}", part, root, required=name in section.get("required", ()))  # type: ignore[union-attr]


def _section(field: Schema, root: Schema) -> Schema | None:
    """Return the schema of a section that a field holds, or None for a value."""
    found = next((kind["$ref"] for kind in _kinds(field) if "$ref" in kind), None)
    section: Schema | None = root["$defs"][found.rpartition("/")[2]] if found else None
    return section


def _meaning(field: Schema, root: Schema) -> str:
    """Return the description of a field; pydantic leaves it out where it is the section's own."""
    text: str = field.get("description") or (_section(field, root) or {})["description"]
    return text


def _kinds(field: Schema) -> list[Schema]:
    kinds: list[Schema] = field.get("anyOf", [field])
    return kinds


def _type(field: Schema, root: Schema) -> str:
    return " or ".join(_kind(kind) for kind in _kinds(field))


def _kind(kind: Schema) -> str:
    if "$ref" in kind:
        return "mapping"
    if "enum" in kind:
        return " or ".join(f"`{value}`" for value in kind["enum"])
    if kind["type"] == "array":
        return f"list of {_kind(kind['items'])}{'' if kind['items']['type'] == 'string' else 's'}"
    if kind["type"] == "null":
        return "null"
    return "path" if kind.get("format") == "path" else TYPES[kind["type"]]


def _default(field: Schema, required: bool) -> str:
    if required:
        return "required"
    value = field.get("default")
    return "" if isinstance(value, dict) and value else f"`{value if isinstance(value, str) else json.dumps(value)}`"


def _bounds(field: Schema) -> str:
    bounds = [(part, pattern) for kind in _kinds(field) for part in (kind, kind.get("items", {})) for pattern in BOUNDS]
    return ", ".join(
        BOUNDS[pattern].format(f"{part[pattern]:.10g}") for part, pattern in bounds if part.get(pattern, inf) < inf
    )


def command_page() -> str:
    """Return docs/command.md."""
    blocks = [NOTE, COMMAND]
    for command in app.registered_commands:
        function: Any = command.callback
        hints = get_type_hints(function, include_extras=True)
        given = [
            (p, *get_args(hints[p.name])) for p in signature(function).parameters.values() if _is_given(hints[p.name])
        ]
        rows = [_argument(parameter, kind, info) for parameter, kind, info in given]
        blocks += [
            f"## `compressor {function.__name__}`",
            function.__doc__,
            _table(("argument", "default", "meaning"), rows),
        ]
    return "\n\n".join(blocks) + "\n"


def _is_given(hint: Any) -> bool:
    """Whether a parameter is one that the user gives, and not the context."""
    return get_origin(hint) is Annotated


def _argument(parameter: Parameter, kind: Any, info: OptionInfo | ArgumentInfo) -> tuple[str, str, str]:
    """The row of one argument or option."""
    dashed = f"--{parameter.name.replace('_', '-')}"
    declared = (info.default, *(info.param_decls or ()))  # in `Annotated`, typer keeps the first one as the default
    name = next((name for name in declared if isinstance(name, str) and name.startswith("--")), dashed)
    value = info.metavar or _value(kind)
    spelling = f"{name} {value}".strip() if isinstance(info, OptionInfo) else value
    text, _, default = (info.help or "").partition("  [default: ")
    return f"`{spelling}`", default.rstrip("]") or _shown(parameter.default), text.strip()


def _value(kind: Any) -> str:
    """The value of an option, as a placeholder."""
    inner = [part for part in get_args(kind) if part is not type(None)]
    if kind is bool:
        return ""
    if get_origin(kind) is Literal:
        return "|".join(inner)
    return _value(inner[0]) if inner else {Path: "PATH", str: "TEXT", int: "N", float: "X"}[kind]


def _shown(default: Any) -> str:
    if default is Parameter.empty:
        return "required"
    return (
        ""
        if default in (None, False)
        else f"`{', '.join(map(str, default)) if isinstance(default, list) else default}`"
    )


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


PAGES = {"recipe.md": recipe_page, "command.md": command_page}


def main() -> None:
    """Write all pages."""
    for name, make in PAGES.items():
        (DOCS / name).write_text(make(), encoding="utf-8")


if __name__ == "__main__":
    main()

"""The map and the dictionary: every room has a line, words are in order, links lead somewhere."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
ROOMS = [
    path.parent.relative_to(ROOT / "compressor").as_posix()
    for path in sorted((ROOT / "compressor").rglob("*/__init__.py"))
]


def rows() -> list[str]:
    """The rooms in the order of the page."""
    section = (ROOT / "docs/architecture.md").read_text().partition("## The rooms")[2].partition("\n## ")[0]
    return re.findall(r"^\| `([\w/]+)/` \|", section, re.MULTILINE)


@pytest.mark.parametrize("room", ROOMS)
def test_every_room_is_on_the_map(room: str) -> None:
    assert room in rows(), f"say in docs/architecture.md what compressor/{room}/ is for"


def test_the_map_shows_no_room_that_is_not_there() -> None:
    assert sorted(rows()) == sorted(ROOMS)


def test_rooms_stand_in_the_order_of_the_import_contract() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    layers = next(contract["layers"] for contract in contracts if contract["type"] == "layers")
    level = {name: number for number, layer in enumerate(layers) for name in layer.split(" | ")}
    levels = [level[room.partition("/")[0]] for room in rows()]
    assert levels == sorted(levels)


def test_words_are_in_alphabetical_order() -> None:
    words = re.findall(r"^\*\*(.+?)\.\*\*", (ROOT / "docs/glossary.md").read_text(), re.MULTILINE)
    assert len(words) > 40
    assert words == sorted(words, key=str.lower)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_within_the_repository_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text())
    assert not [link for link in links if not (page.parent / link).exists()]

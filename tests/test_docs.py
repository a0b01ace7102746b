"""Numbers in the documentation: every table says of which state of the code it is, and by what it was made."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
MEASURED = re.compile(r"\**[-+]?\d[\d.,]*%?( ?(%|x|s|±|to|of|\(|,).*)?\**")
ORIGIN = re.compile(r"at commit `[0-9a-f]{7,40}`.*\bby\b.*`[^`]+`")


def tables(text: str) -> list[tuple[list[str], list[str]]]:
    """Return the rows of every table, and the lines right before and right after it; blank lines do not count."""
    blocks = [block.splitlines() for block in re.split(r"\n\s*\n", text)]
    return [
        (block, [*blocks[max(0, i - 1)], *(blocks[i + 1] if i + 1 < len(blocks) else [])])
        for i, block in enumerate(blocks)
        if block and block[0].startswith("|")
    ]


def has_numbers(rows: list[str]) -> bool:
    """Whether a table holds measurements: numbers beside the names of its rows, and not meanings of options."""
    head, *body = ([cell.strip() for cell in row.strip("|").split(" | ")] for row in rows)
    return "meaning" not in head and any(MEASURED.fullmatch(cell) for row in body for cell in row[1:])


def origins(page: Path) -> list[tuple[str, re.Match[str] | None]]:
    """Return the first line of every table with numbers, and the line that says where it comes from."""
    found = [(rows[0], around) for rows, around in tables(page.read_text()) if has_numbers(rows)]
    return [(head, next((hit for line in around if (hit := ORIGIN.search(line))), None)) for head, around in found]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_table_with_numbers_names_its_commit_and_its_command(page: Path) -> None:
    missing = [head for head, origin in origins(page) if origin is None]
    assert not missing, "put a line below: Measured at commit `abc1234`, by `python -m tests.benchmarks.…`."


def test_the_commits_are_of_this_repository() -> None:
    git = ["git", "-C", str(ROOT)]
    whole = subprocess.run([*git, "rev-parse", "--is-shallow-repository"], capture_output=True, text=True, check=False)
    if whole.stdout.strip() != "false":
        pytest.skip("the history is not here")
    named = {commit for page in PAGES for commit in re.findall(r"at (?:commit )?`([0-9a-f]{7})`", page.read_text())}
    known = [subprocess.run([*git, "cat-file", "-e", f"{c}^{{commit}}"], check=False).returncode for c in sorted(named)]
    assert named and not any(known)


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("| a | b |\n| --- | --- |\n| x | 1.5 % |\n\nMeasured at commit `0123abc`, by `make benchmark`.", True),
        ("Measured at commit `0123abc`, by `make benchmark`:\n\n| a | b |\n| --- | --- |\n| x | 2 (1 to 3) |", True),
        ("| a | b |\n| --- | --- |\n| x | 1.5 |\n\nMeasured by `make benchmark`.", False),
        ("| a | b |\n| --- | --- |\n| x | 1.5 |\n\nMeasured at commit `0123abc`.", False),
        ("| a | b |\n| --- | --- |\n| x | 1.5 |", False),
        ("| code | meaning |\n| --- | --- |\n| 0 | accepted |", None),
    ],
)
def test_a_line_beside_the_table_is_asked_for(text: str, holds: bool | None, tmp_path: Path) -> None:
    (tmp_path / "page.md").write_text(text)
    assert [origin is not None for _, origin in origins(tmp_path / "page.md")] == ([] if holds is None else [holds])

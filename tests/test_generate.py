"""The generated pages follow the code."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from pydantic import BaseModel

from compressor.recipe import Recipe
from tests.generate import DOCS, PAGES, recipe_page


@pytest.mark.parametrize("page", PAGES)
def test_a_generated_page_is_not_stale(page: str) -> None:
    assert (DOCS / page).read_text(encoding="utf-8") == PAGES[page](), "run: python -m tests.generate"


def fields(section: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, str | None]]:
    """Every key of a recipe, and its description."""
    for name, field in section.model_fields.items():
        yield prefix + name, field.description
        for kind in (field.annotation, *getattr(field.annotation, "__args__", ())):
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                yield from fields(kind, f"{prefix}{name}.")


@pytest.mark.parametrize(("key", "description"), [*fields(Recipe)])
def test_every_key_says_what_it_is(key: str, description: str | None) -> None:
    assert description and description.endswith("."), f"give {key} a Field(description=…)"


def test_every_key_is_on_the_page() -> None:
    page = recipe_page()
    inner = [key for key, _ in fields(Recipe) if "." in key]
    assert len(inner) > 60
    assert not [key for key in inner if f"| `{key}` |" not in page]

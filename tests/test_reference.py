"""The reference pages are made from the schema and the command line, and say something on every key."""

from __future__ import annotations

import re
from pathlib import Path

import flows.reference
import pipeline.config.reference
from pipeline.config.experiment import Experiment
from pipeline.config.reference import undescribed

DOCS = Path(__file__).parents[1] / "docs"
AGAIN = "make it again: see the first lines of the page"


def test_the_page_of_the_configuration_is_that_of_the_schema() -> None:
    assert (DOCS / "configuration.md").read_text() == pipeline.config.reference.reference(), AGAIN


def test_the_page_of_the_commands_is_that_of_the_command_line() -> None:
    assert (DOCS / "commands.md").read_text() == flows.reference.reference(), AGAIN


def test_every_key_has_a_meaning() -> None:
    assert undescribed() == []


def test_the_page_of_the_configuration_says_type_default_and_meaning() -> None:
    page = pipeline.config.reference.reference()
    assert set(re.findall(r"^## `([a-z_]+)`$", page, re.MULTILINE)) >= set(Experiment.model_fields) - {
        "name",
        "seed",
        "arms",
    }
    assert "| `margin` | number > 0 | `0.02` | a gain that matters" in page
    assert "| `kind` | `holdout` or `kfold` or `column` | `holdout` |" in page
    assert "| `source` | section | required |" in page
    assert "### `gan (family: stylegan2)`" in page and "| `r1_every` | whole number ≥ 1 | `16` |" in page

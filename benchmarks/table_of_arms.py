"""The table of arms in docs/add-an-arm.md, from the arms' own entries.

Run: .venv/bin/python benchmarks/table_of_arms.py
"""

from __future__ import annotations

from pipeline.config.arms import ARMS, ArmFacts


def row(name: str, facts: ArmFacts) -> str:
    """One line of the table."""
    asked = (
        ("a GAN", facts.generator),
        ("unlabelled images", facts.pool),
        ("sites", facts.sites),
        ("an unlabelled site", facts.target),
    )
    needs = [what for what, needed in asked if needed]
    shown = f"{name}@RATIO" if facts.ratio else name
    cells = [f"`{shown}`", facts.words, ", ".join(needs), _listed(facts.controls), _listed(facts.also)]
    return f"| {' | '.join(cells)} |"


def _listed(arms: tuple[str, ...]) -> str:
    return ", ".join(f"`{arm}`" for arm in arms)


def main() -> None:
    print("| arm | learns from | needs | must beat | and, if they are run |")
    print("|---|---|---|---|---|")
    for name, facts in ARMS.items():
        print(row(name, facts))


if __name__ == "__main__":
    main()

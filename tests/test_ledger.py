"""The ledger of looks: every opening of test images and of an external site's, over all runs, each counted once."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from flows.ledger import looks_of, record_looks
from pipeline.core.records import Record
from pipeline.data.batches.dataset import read_table


def directories(root: Path, records: list[Record], sides: list[str]) -> dict[str, Path]:
    """A split of images that are all different, and the stages of the records."""
    split = root / "split"
    split.mkdir(parents=True)
    ids = [f"i{number}" for number in range(len(sides))]
    pd.DataFrame({"fold": "0", "image_id": ids, "split": sides}).to_csv(split / "splits.csv", index=False)
    pd.DataFrame({"image_id": ids, "pixel_digest": ids}).to_csv(split / "manifest.csv", index=False)
    found = {"split": split}
    Record("split").save(split)
    for record in records:
        found[record.name] = root / record.fingerprint  # whatever a directory is called
        found[record.name].mkdir()
        record.save(found[record.name])
    return found


def made(kind: str, fingerprint: str, fold: int | None = None) -> Record:
    return Record(kind, fingerprint=fingerprint, fold=fold)


VERDICT = made("verdict", "v")


def looks(cache: Path, out: Path, given: dict[str, Path], run: str) -> list[tuple[str, str]]:
    out.mkdir(exist_ok=True)
    record_looks(cache, out, given["split"], looks_of(given.values()), run)
    table = read_table(out / "ledger.csv")
    return list(zip(table["stage"], table["look"], strict=True))


def test_each_opening_counts_once_and_the_external_site_has_its_own_count(tmp_path: Path) -> None:
    cache, out = tmp_path / "cache", tmp_path / "out"
    cache.mkdir()
    sides = ["train", "val", "test", "external"]
    first = directories(tmp_path / "one", [made("fit-gan", "g", 0), made("anomaly", "a", 0), VERDICT], sides)
    test_set = [("anomaly-fold-0", "1"), ("verdict", "2")]
    external = [("verdict (external site)", "1")]
    assert looks(cache, out, first, "one") == [*test_set, *external]
    assert looks(cache, out, first, "one again, from the cache") == [*test_set, *external]
    second = directories(tmp_path / "two", [made("verdict", "w")], sides)
    assert looks(cache, out, second, "two") == [
        *test_set,
        *external,
        ("verdict", "3"),
        ("verdict (external site)", "2"),
    ]


def test_other_test_images_have_another_ledger(tmp_path: Path) -> None:
    cache, out = tmp_path / "cache", tmp_path / "out"
    cache.mkdir()
    looks(cache, out, directories(tmp_path / "one", [VERDICT], ["train", "val", "test"]), "one")
    other = directories(tmp_path / "two", [made("verdict", "w")], ["val", "train", "unused", "test"])
    assert looks(cache, out, other, "two") == [("verdict", "1")]
    assert len(read_table(cache / "ledger.csv")) == 2

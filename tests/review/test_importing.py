"""Verdicts out to people and back: bound to the cell and to the value that was seen, all or none."""

import csv
import io
import json
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import dlt
import openpyxl
import pytest

from further_source.exceptions import ConfigurationError
from further_source.review.cells import new_queue
from further_source.review.files import read_queue, write_queue
from further_source.review.importing import RowErrors, import_reviews
from further_source.review.selecting import cells_below, sampled_cells
from further_source.review.store import ReviewStore
from further_source.sandbox import cell
from tests.review.conftest import Load
from tests.support.slow import few_of

ODD = [
    "=HYPERLINK(\"http://x\",\"y\")", "+1 555", "-1+2", "@SUM(A1)", "\t=x", "'=x", "'tis", "", None, "02139",
    "12345678901234567890", 12345678901234567890, -5.5, True, ["a", 1], "a\r\nb\n\"c\";,", " =x", "＝x", "1e5", "-",
    "'",
]  # fmt: skip


def final(store: ReviewStore) -> dict[tuple[str, int, str], tuple[Any, ...]]:
    rows = store.rows(
        "SELECT workflow_execution_id, row_index, field, value, value_type, value_number, review_state "
        "FROM {cells_final}"
    )
    found = {row[:3]: row[3:] for row in rows}
    assert len(found) == len(rows)
    return found


def fill(path: Path, **verdicts: tuple[str, ...]) -> None:
    """Fills in the rows of fields."""
    rows = list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8-sig"), newline="")))
    for row in rows:
        row.update(zip(("verdict", "corrected_value", "reason"), verdicts.get(row["field"], ()), strict=False))
    with path.open("w", newline="", encoding="utf-8-sig") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def exported(store: ReviewStore, path: Path) -> Path:
    store.prepare()
    write_queue(path, cells_below(store, 1), new_queue(), sampled=False)
    return path


def test_a_review_is_applied_to_the_value_that_was_reviewed(load: Load, store: ReviewStore, tmp_path: Path) -> None:
    load("a", [{"name": cell("Jon", 0.4), "paid": cell(10, 0.5), "sure": cell("x", 1.0), "date": cell("1", 0.2)}])
    path = exported(store, tmp_path / "q.csv")
    assert final(store)["a", 0, "name"] == ("Jon", "string", None, "none")
    fill(path, name=("corrected", "John", "typo"), paid=("corrected", "12.5"), date=("Correct",))

    done = import_reviews(store, read_queue(path), "ann")
    assert (done.added, done.known, done.left_open, done.stale) == (3, 0, 0, 0)
    after = final(store)
    assert after["a", 0, "name"] == ("John", "string", None, "corrected")
    assert after["a", 0, "paid"] == ("12.5", "number", 12.5, "corrected")
    assert after["a", 0, "date"] == ("1", "string", None, "correct")
    assert after["a", 0, "sure"] == ("x", "string", None, "none")
    assert store.rows("SELECT extracted_value, reviewer, review_reason FROM {cells_final} WHERE field = 'name'") == [
        ("Jon", "ann", "typo")
    ]

    done = import_reviews(store, read_queue(path), "ann")
    assert (done.added, done.known) == (0, 3)
    assert store.rows("SELECT count(*) FROM {reviews}") == [(3,)]
    assert cells_below(store, 0.9) == []


def test_no_review_reaches_another_value(load: Load, store: ReviewStore, tmp_path: Path) -> None:
    load("a", [{"x": cell("1", 0.4), "y": cell("1", 0.4), "z": cell(None, 0.1)}, {"x": cell("2", 0.4)}])
    path = exported(store, tmp_path / "q.csv")
    fill(path, x=("corrected", "9"), y=("correct",), z=("corrected", "<empty>"))
    import_reviews(store, read_queue(path), "ann")
    assert final(store)["a", 0, "z"] == ("", "string", None, "corrected")

    load("a", [{"x": cell(1, 0.4), "y": cell("3", 0.9), "z": cell("", 0.2)}])
    assert final(store) == {
        ("a", 0, "x"): ("1", "number", 1.0, "stale"),
        ("a", 0, "y"): ("3", "string", None, "stale"),
        ("a", 0, "z"): ("", "string", None, "stale"),
    }
    conflicts = store.rows("SELECT row_index, field, conflict FROM {review_conflicts} ORDER BY 1, 2")
    assert conflicts == [
        (0, "x", "value_changed"),
        (0, "y", "value_changed"),
        (0, "z", "value_changed"),
        (1, "x", "cell_gone"),
    ]

    load("a", [{"x": cell("1", 0.8)}, {"x": cell("2", 0.4)}])  # as it was
    assert final(store)["a", 0, "x"] == ("9", "string", None, "corrected")


def test_the_last_review_counts_and_the_one_before_is_listed(load: Load, store: ReviewStore, tmp_path: Path) -> None:
    load("a", [{"x": cell("1", 0.4)}])
    first, second = exported(store, tmp_path / "1.csv"), exported(store, tmp_path / "2.csv")
    for path, value, by in ((first, "2", "ann"), (second, "3", "bob"), (first, "2", "ann")):
        fill(path, x=("corrected", value))
        import_reviews(store, read_queue(path), by)

    assert final(store)["a", 0, "x"][0] == "3"  # the first file again is no new review
    assert store.rows("SELECT reviewer, corrected_value, conflict FROM {review_conflicts}") == [
        ("ann", "2", "overruled")
    ]


@pytest.mark.slow
def test_a_key_that_comes_twice_in_a_row_is_two_cells(
    load: Load, store: ReviewStore, sandbox: Any, pipeline: dlt.Pipeline, tmp_path: Path
) -> None:
    load("a", [{"x": cell("1", 0.4), "X2": cell("1", 0.4)}])
    with pipeline.sql_client() as client:
        client.execute_sql("UPDATE cells SET field = 'x', extra = '{\"duplicate\":2}' WHERE field = 'X2'")
    path = exported(store, tmp_path / "q.csv")
    rows = read_queue(path)
    assert [row.texts["occurrence"] for row in rows] == ["1", "2"]
    rows[1].texts.update(verdict="corrected", corrected_value="7")
    import_reviews(store, rows, "ann")

    assert sorted(store.rows("SELECT occurrence, value FROM {cells_final}")) == [(1, "1"), (2, "7")]


@pytest.mark.parametrize("pipeline", few_of(["duckdb"]), indirect=True)
@pytest.mark.parametrize("suffix", few_of([".csv", ".xlsx"]))
def test_odd_values_come_back_as_they_are_and_none_is_a_formula(
    load: Load, store: ReviewStore, tmp_path: Path, suffix: str
) -> None:
    load("a", [{f"f{number}": cell(value, 0.1)} for number, value in enumerate(ODD)])
    path = exported(store, tmp_path / f"q{suffix}")
    before = {cell.fingerprint: cell for cell in cells_below(store, 1)}
    if suffix == ".csv":
        for row in csv.reader(io.StringIO(path.read_text(encoding="utf-8-sig"), newline="")):
            assert not any(text.lstrip()[:1] in {*"=+@＝"} for text in row if text), row
    else:
        for written in openpyxl.load_workbook(path)["review"].iter_rows(min_row=2):
            assert all(one.data_type in "sn" and one.quotePrefix for one in written)
    rows = read_queue(path)
    for filled in rows:
        filled.texts["verdict"] = "correct"

    if suffix == ".csv":
        load("a", [])  # all is gone, so that what was reviewed is known from the file alone
    done = import_reviews(store, rows, "ann")
    assert (done.added, done.stale) == (len(ODD), len(ODD) if suffix == ".csv" else 0)
    stored = store.rows("SELECT field, value, value_type FROM {reviews}")
    assert sorted(stored, key=str) == sorted(((c.field, c.value, c.value_type) for c in before.values()), key=str)


@pytest.mark.slow
@pytest.mark.parametrize("pipeline", ["duckdb"], indirect=True)
def test_what_a_spreadsheet_does_to_values_harms_no_review(load: Load, store: ReviewStore, tmp_path: Path) -> None:
    load("a", [{"zip": cell("02139", 0.1)}])
    path = exported(store, tmp_path / "q.csv")
    fill(path, zip=("corrected", "02140"))
    text = path.read_text(encoding="utf-8-sig").replace(",02139,", ",2139,").replace(",", ";")
    path.write_text(text, encoding="utf-8")

    import_reviews(store, read_queue(path), "ann")
    assert final(store)["a", 0, "zip"] == ("02140", "string", None, "corrected")
    assert store.rows("SELECT value FROM {reviews}") == [("02139",)]


@pytest.mark.parametrize("pipeline", ["duckdb"], indirect=True)
def test_one_wrong_row_stops_all(load: Load, store: ReviewStore, tmp_path: Path) -> None:
    load("a", [{name: cell(name, 0.1) for name in "abcdefg"}])
    path = exported(store, tmp_path / "q.csv")
    fill(
        path,
        a=("correct",), b=("corect",), c=("corrected",), d=("correct", "D"), e=("", "E"), f=("corrected", "f"),
        g=("unreadable",),
    )  # fmt: skip
    path.write_text(path.read_text(encoding="utf-8-sig").replace(",g,", ",h,"), encoding="utf-8")
    rows = read_queue(path)
    rows[6].texts["cell"] = rows[6].texts["cell"].replace("-", "-0")

    with pytest.raises(RowErrors) as caught:
        import_reviews(store, rows, "ann")
    assert [line.partition(": ")[0] for line in caught.value.lines] == [
        "row 3, column verdict",
        "row 4, column corrected_value",
        "row 5, column corrected_value",
        "row 6, column verdict",
        "row 8, column cell",
        "row 7, column corrected_value",
    ]
    assert store.rows("SELECT count(*) FROM {reviews}") == [(0,)]


@pytest.mark.slow
@pytest.mark.parametrize("pipeline", ["duckdb"], indirect=True)
def test_a_formula_or_a_date_in_xlsx_is_named(load: Load, store: ReviewStore, tmp_path: Path) -> None:
    load("a", [{"x": cell("1", 0.1), "y": cell(1, 0.1)}])
    path = exported(store, tmp_path / "q.xlsx")
    book = openpyxl.load_workbook(path)
    header = {str(one.value): number for number, one in enumerate(book["review"][1], 1)}
    for row, value in ((2, "=1+1"), (3, 5)):
        book["review"].cell(row, header["verdict"]).value = "corrected"
        book["review"].cell(row, header["corrected_value"]).value = value
    book.save(path)
    with pytest.raises(RowErrors, match="row 2, column corrected_value: is a formula"):
        import_reviews(store, read_queue(path), "ann")

    book["review"].cell(2, header["corrected_value"]).value = "2"
    book.save(path)
    import_reviews(store, read_queue(path), "ann")
    assert final(store)["a", 0, "y"] == ("5", "number", 5.0, "corrected")


SHEET = (
    '<worksheet xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"><dimension ref="A1:XFD1048576"/>'
    "<sheetData>{}</sheetData></worksheet>"
)
HEADER = (
    '<row r="1">'
    + "".join(
        f'<c r="{column}1" t="inlineStr"><is><t>{name}</t></is></c>'
        for column, name in zip("ABC", ("cell", "verdict", "corrected_value"), strict=True)
    )
    + "</row>"
)


def packed(path: Path, rows: str) -> Path:
    """An xlsx whose sheet says that it is as large as a sheet can be."""
    openpyxl.Workbook().save(path)
    with zipfile.ZipFile(path) as book:
        parts = {name: book.read(name) for name in book.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as book:
        for name, part in parts.items():
            book.writestr(name, SHEET.format(rows) if name.endswith("sheet1.xml") else part)
    return path


def test_an_xlsx_that_unpacks_to_far_more_than_it_is_is_not_read(tmp_path: Path) -> None:
    text = '<row r="2"><c r="A2" t="inlineStr"><is><t>' + "a" * 20_000_000 + "</t></is></c></row>"
    path = packed(tmp_path / "q.xlsx", HEADER + text)
    assert path.stat().st_size < 100_000
    with pytest.raises(ConfigurationError, match="bytes unpacked, and .* packed, as no queue has"):
        read_queue(path)


@pytest.mark.slow
def test_rows_of_an_xlsx_are_as_wide_as_their_cells_whatever_it_says(tmp_path: Path) -> None:
    last = '<row r="200000"><c r="B200000" t="inlineStr"><is><t>correct</t></is></c></row>'
    path = packed(tmp_path / "q.xlsx", HEADER + last)
    tracemalloc.start()
    [row] = read_queue(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (row.place, row.texts["verdict"]) == ("row 200000", "correct")
    assert peak < 10_000_000


@pytest.mark.parametrize("pipeline", ["duckdb"], indirect=True)
def test_label_studio_gets_tasks_and_gives_annotations(load: Load, store: ReviewStore, tmp_path: Path) -> None:
    load("a", [{"x": cell("1", 0.1), "y": cell(None, 0.1), "z": cell("3", 0.1)}])
    path = exported(store, tmp_path / "q.json")
    tasks = json.loads(path.read_text())

    def says(name: str, **value: Any) -> dict[str, Any]:
        return {"from_name": name, "to_name": "value", "type": "choices", "value": value}

    tasks[0]["annotations"] = [
        {"completed_by": {"email": "ann@x"}, "updated_at": "2026-01-02T00:00:00.500Z",
         "result": [says("verdict", choices=["correct"])]},
        {"completed_by": 7, "updated_at": "2026-01-03T00:00:00Z",
         "result": [says("verdict", choices=["corrected"]), says("corrected_value", text=["8"])]},
    ]  # fmt: skip
    tasks[1]["annotations"] = [{"was_cancelled": True, "result": [says("verdict", choices=["correct"])]}]
    path.write_text(json.dumps(tasks))

    assert import_reviews(store, read_queue(path), "me").added == 2
    assert final(store)["a", 0, "x"] == ("8", "string", None, "corrected")
    assert store.rows("SELECT reviewer FROM {reviews} ORDER BY reviewed_at") == [("ann@x",), ("7",)]


@pytest.mark.slow
def test_a_sample_has_its_share_of_every_confidence(load: Load, store: ReviewStore) -> None:
    rows = [{"x": cell(str(n), n / 1000), "rare": cell(1, 0.5) if n < 5 else None} for n in range(1000)]
    load("a", [{key: value for key, value in row.items() if value is not None} for row in rows])
    store.prepare()
    sample = sampled_cells(store, 105, seed="one")

    of_x = sorted(one.confidence or 0 for one in sample if one.field == "x")
    assert len(of_x) == 100
    assert [sum(n / 10 <= one < (n + 1) / 10 for one in of_x) for n in range(10)] == [10] * 10
    assert len(sample) == 105
    assert sampled_cells(store, 105, seed="one") == sample
    assert sampled_cells(store, 105, seed="two") != sample


@pytest.mark.slow
@pytest.mark.parametrize("pipeline", ["duckdb"], indirect=True)
def test_after_a_reload_no_correction_is_lost_and_none_reaches_a_value_that_changed(
    load: Load, store: ReviewStore, tmp_path: Path
) -> None:
    rows = [{"x": cell(f"x{n}", 0.4), "y": cell(f"y{n}", 0.3)} for n in range(500)]
    load("a", rows)
    paths = exported(store, tmp_path / "ann.csv"), exported(store, tmp_path / "bob.csv")
    for path, reviewer, mine in zip(paths, ("ann", "bob"), (range(300), range(200, 500)), strict=True):
        filled = read_queue(path)
        for row in filled:
            if int(row.texts["row_index"]) in mine:
                row.texts.update(verdict="corrected", corrected_value=f"{reviewer} {row.texts['value']}")
        assert import_reviews(store, filled, reviewer).added == 600

    changed = [{**row, "x": cell(f"new {n}", 0.4)} if n % 2 else row for n, row in enumerate(rows)]
    load("a", changed[:490])
    after = final(store)
    for n in range(490):
        by = "bob" if n >= 200 else "ann"
        expected = (f"new {n}", "stale") if n % 2 else (f"{by} x{n}", "corrected")
        assert after["a", n, "x"][::3] == expected
        assert after["a", n, "y"][::3] == (f"{by} y{n}", "corrected")
    assert store.rows("SELECT count(*) FROM {reviews}") == [(1200,)]
    conflicts = dict(store.rows("SELECT conflict, count(*) FROM {review_conflicts} GROUP BY conflict"))
    # Changed: each second x up to 490, of both people from 200 to 300. Overruled: what both had and did not change.
    assert conflicts == {"value_changed": 245 + 50, "cell_gone": 20, "overruled": 150}

"""What is on the disk of a package before it counts as pending."""

from pathlib import Path

import dlt

from further_source import run_in_slices
from further_source.destination.package_manifest import MANIFEST, fault
from further_source.sandbox import Sandbox
from tests.support.loading import cells_of, serve_rows, source_of
from tests.support.synced import Step, steps_to_disk


def test_a_package_is_synced_with_its_manifest_before_it_counts_and_then_the_name_by_which_it_does(
    sandbox: Sandbox, pipeline: dlt.Pipeline
) -> None:
    serve_rows(sandbox, "a", cells_of(x=1))
    with steps_to_disk() as steps:
        run_in_slices(pipeline, source_of(sandbox, ["a"]))

    load = Path(pipeline.working_dir) / "load"
    (counts,) = (n for n, step in enumerate(steps) if step.kind == "rename" and step.path.parent == load / "normalized")
    package = load / "new" / steps[counts].path.name
    before = {step.path.relative_to(package) for step in steps[:counts] if step.path.is_relative_to(package)}
    tables = {path.name.partition(".")[0] for path in before if path.parent == Path("new_jobs")}
    assert {Path(), Path("new_jobs"), Path(MANIFEST), Path("schema.json"), Path("load_package_state.json")} <= before
    assert {"executions", "steps", "cells", "rows_extract"} <= tables
    assert set(steps[counts + 1 : counts + 3]) == {Step("sync", load / "new"), Step("sync", load / "normalized")}


def test_a_file_that_is_short_altered_or_missing_is_named_with_its_rows(
    sandbox: Sandbox, pipeline: dlt.Pipeline
) -> None:
    serve_rows(sandbox, "a", cells_of(x=1), cells_of(x=2))
    pipeline.extract(source_of(sandbox, ["a"]))
    pipeline.normalize()
    (package,) = Path(pipeline.working_dir).glob("load/normalized/*")
    (cells,) = package.glob("new_jobs/cells.*")
    content, name = cells.read_bytes(), cells.relative_to(package).as_posix()
    assert fault(package) is None

    cells.write_bytes(content[:-1])
    assert fault(package) == f"{name} has {len(content) - 1} bytes in place of {len(content)} (2 rows)"
    cells.write_bytes(content[:100] + bytes([content[100] ^ 1]) + content[101:])
    assert fault(package) == f"{name} has other bytes than it had (2 rows)"
    cells.unlink()
    assert fault(package) == f"{name} is missing (2 rows)"
    cells.write_bytes(content)
    assert fault(package) is None

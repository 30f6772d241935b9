"""The scenario on DuckLake, whose extension of DuckDB is in no package for the DuckDB of this project's lock file."""

import importlib.util
from pathlib import Path

import pytest

from tests.destination.elsewhere import run_elsewhere
from tests.destination.scenario import Destination, play

DUCKDB = "1.5.5"  # the newest that a package of the extension is for
EXTENSIONS = ("ducklake", "sqlite_scanner")
PACKAGES = ("duckdb", "duckdb-extensions", *(f"duckdb-extension-{name.replace('_', '-')}" for name in EXTENSIONS))


@pytest.mark.slow
@pytest.mark.ducklake
def test_ducklake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if importlib.util.find_spec("duckdb_extensions") is None:
        return run_elsewhere(__file__, "ducklake", [f"{name}=={DUCKDB}" for name in PACKAGES])
    home = tmp_path / "home"  # the command's; extensions are installed there
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    for name in EXTENSIONS:
        importlib.import_module("duckdb_extensions").import_extension(name)
    credentials = {"CATALOG": f"sqlite:///{tmp_path}/catalog.sqlite", "STORAGE__BUCKET_URL": str(tmp_path / "files")}
    environment = {f"DESTINATION__DUCKLAKE__CREDENTIALS__{name}": value for name, value in credentials.items()}
    return play(Destination("ducklake", environment), tmp_path)

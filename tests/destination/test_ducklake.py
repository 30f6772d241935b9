"""The scenario on DuckLake, whose extension of DuckDB is in no package for the DuckDB of this project's lock file.

So it plays in an environment that uv makes for it, with the DuckDB that the newest package of the extension is for.
"""

import importlib.util
import subprocess
from pathlib import Path

import pytest

from tests.destination.conftest import installed
from tests.destination.scenario import Destination, play

PROJECT = Path(__file__).parents[2]
DUCKDB = "1.5.5"
EXTENSIONS = ("ducklake", "sqlite_scanner")
PACKAGES = ["duckdb", "duckdb-extensions", *(f"duckdb-extension-{name.replace('_', '-')}" for name in EXTENSIONS)]


@pytest.mark.slow
@pytest.mark.ducklake
def test_ducklake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if importlib.util.find_spec("duckdb_extensions") is None:
        return play_elsewhere()
    home = tmp_path / "home"  # the command's; extensions are installed there
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    for name in EXTENSIONS:
        importlib.import_module("duckdb_extensions").import_extension(name)
    credentials = {"CATALOG": f"sqlite:///{tmp_path}/catalog.sqlite", "STORAGE__BUCKET_URL": str(tmp_path / "files")}
    environment = {f"DESTINATION__DUCKLAKE__CREDENTIALS__{name}": value for name, value in credentials.items()}
    return play(Destination("ducklake", environment), tmp_path)


def play_elsewhere() -> None:
    uv = installed("uv", "pip install uv")
    run = [uv, "run", "--isolated", *(part for name in PACKAGES for part in ("--with", f"{name}=={DUCKDB}"))]
    made = subprocess.run([*run, "python", "-c", ""], cwd=PROJECT, capture_output=True, text=True)
    if made.returncode:
        pytest.skip(f"no environment with DuckDB {DUCKDB} and its extensions: {made.stderr.strip()[-300:]}")
    played = subprocess.run([*run, "pytest", "-n", "0", "-m", "ducklake", __file__], cwd=PROJECT, capture_output=True)
    assert played.returncode == 0, played.stdout.decode()[-4_000:]

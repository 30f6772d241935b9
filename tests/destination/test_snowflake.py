"""The scenario on Snowflake: on one of yours, if the environment configures it, else on the stand-in fakesnow."""

import importlib.util
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.destination.conftest import answers, environment_of, free_port, served
from tests.destination.elsewhere import run_elsewhere
from tests.destination.scenario import Destination, play
from tests.destination.snowflake_proxy import proxy

DRIVER = "snowflake-connector-python<4.3"  # fakesnow fails with newer ones


@pytest.fixture
def environment(configured: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    if any(name.startswith("DESTINATION__SNOWFLAKE__") for name in configured):
        yield configured
        return
    directory, port = tmp_path_factory.mktemp("snowflake"), free_port()
    programs = environment_of(directory / "venv", ["fakesnow[server]==0.12.1", DRIVER], python="3.12")
    command = [str(programs / "fakesnow"), "--server", "--port", str(port)]
    with served(command, answers(port), directory / "log"), proxy(f"http://127.0.0.1:{port}") as proxy_port:
        where = f"host=127.0.0.1&port={proxy_port}&protocol=http&client_out_of_band_telemetry_enabled=False"
        url = f"snowflake://loader:none@insurer/warehouse_db?warehouse=loading&role=loader&{where}"
        yield {"DESTINATION__SNOWFLAKE__CREDENTIALS": url}


@pytest.mark.slow
@pytest.mark.snowflake
def test_snowflake(configured: dict[str, str], tmp_path: Path, request: pytest.FixtureRequest) -> None:
    if importlib.util.find_spec("snowflake") is None:
        return run_elsewhere(__file__, "snowflake", ["dlt[snowflake]", DRIVER], configured)
    return play(Destination("snowflake", request.getfixturevalue("environment")), tmp_path)

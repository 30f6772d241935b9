"""The image: what its file says, and what its steps make, in a directory that stands for the image's root."""

import json
import os
import re
import shlex
import shutil
import subprocess
import venv
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, NamedTuple

import duckdb
import pytest
import yaml

from tests.support.documents import PROJECT

HOST_VARIABLES = ("HOME", "LANG", "SSL_CERT_FILE", "UV_CACHE_DIR", "UV_DEFAULT_INDEX", "UV_INDEX_URL", "PIP_INDEX_URL")


class Instruction(NamedTuple):
    name: str
    value: str


def instructions() -> Iterator[Instruction]:
    text = (PROJECT / "Dockerfile").read_text(encoding="utf-8")
    text = re.sub(r"^#.*\n", "", text, flags=re.MULTILINE).replace("\\\n", " ")
    for line in filter(None, text.splitlines()):
        name, _, value = line.partition(" ")
        yield Instruction(name, value.strip())


def last(name: str) -> str:
    return [one.value for one in instructions() if one.name == name][-1]


def test_it_runs_the_command_as_a_user_without_rights() -> None:
    assert json.loads(last("ENTRYPOINT")) == ["further-source"]
    user, _, group = last("USER").partition(":")
    assert min(int(user), int(group)) > 0
    assert all(value.startswith("python:3.12-slim") for name, value in instructions() if name == "FROM")


def test_no_secret_list_or_database_gets_into_it() -> None:
    ignored = [line for line in (PROJECT / ".dockerignore").read_text(encoding="utf-8").splitlines() if line[:1] != "#"]
    assert ignored[0] == "*"
    copied = {path for name, value in instructions() if name == "COPY" and "--from" not in value
              for path in value.split()[:-1]}  # fmt: skip
    assert {line.removeprefix("!") for line in ignored if line.startswith("!")} == copied
    assert copied == {"pyproject.toml", "uv.lock", "README.md", "LICENSE", "further_source"}


def test_the_examples_are_as_locked_up_as_the_image() -> None:
    cron_job = yaml.safe_load((PROJECT / "examples" / "kubernetes" / "cronjob.yaml").read_text(encoding="utf-8"))
    pod = cron_job["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    [container] = pod["containers"]
    user, _, group = last("USER").partition(":")
    assert pod["securityContext"] == {
        "runAsNonRoot": True,
        "runAsUser": int(user),
        "runAsGroup": int(group),
        "fsGroup": int(group),
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert pod["automountServiceAccountToken"] is False
    writable = {mount["mountPath"] for mount in container["volumeMounts"] if not mount.get("readOnly")}
    assert writable == {"/data", "/tmp"}  # noqa: S108  as the image has them


class Image:
    """A directory in place of the image's root. Both stages have the same one, so copies between them are moves."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.directory = root
        venv.create(root / "usr/local", with_pip=True)
        self.environment = {name: os.environ[name] for name in HOST_VARIABLES if name in os.environ}
        self.environment["PATH"] = f"{root}/usr/local/bin:/usr/bin:/bin"
        self.variables: dict[str, str] = {}

    def inside(self, path: str) -> Path:
        return self.root / path.lstrip("/") if path.startswith("/") else self.directory / path

    def run(self, instruction: Instruction) -> None:
        getattr(self, f"_{instruction.name.lower()}", lambda value: None)(instruction.value)

    def _workdir(self, value: str) -> None:
        self.directory = self.inside(value)
        self.directory.mkdir(parents=True, exist_ok=True)

    def _env(self, value: str) -> None:
        for one in shlex.split(value):
            name, _, text = one.partition("=")
            text = re.sub(r"(^|:)/", rf"\1{self.root}/", text)
            self.environment[name] = text.replace("$PATH", self.environment["PATH"])

    def _arg(self, value: str) -> None:
        name, _, text = value.partition("=")
        self.variables[name] = shlex.split(text)[0]

    def _copy(self, value: str) -> None:
        options = [one for one in value.split() if one.startswith("--")]
        *sources, target = (one for one in value.split() if not one.startswith("--"))
        for source in sources:
            if any(one.startswith("--from") for one in options):
                path, to = self.inside(source), self.inside(target)
                assert path.exists(), path
            else:
                path, to = PROJECT / source, self.inside(target)
            if path == to:
                continue
            if path.is_dir():
                shutil.copytree(path, to, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(path, to)

    def _run(self, value: str) -> None:
        environment = {**self.environment, **self.variables}
        done = subprocess.run(
            ["sh", "-c", value], cwd=self.directory, env=environment, capture_output=True, text=True, timeout=400
        )
        assert done.returncode == 0, f"{value}\n{done.stdout}\n{done.stderr}"

    def files(self) -> dict[str, Any]:
        """What is in it and was changed when, but for what may be written to."""
        found = {path.relative_to(self.root): path.lstat().st_mtime_ns for path in self.root.rglob("*")}
        return {str(path): changed for path, changed in found.items() if path.parts[0] not in {"data", "tmp"}}


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="an image of Linux")
def test_its_steps_make_a_command_that_writes_to_its_data_alone(tmp_path: Path) -> None:
    image = Image(tmp_path / "root")
    for instruction in instructions():
        image.run(instruction)
    (image.root / "tmp").mkdir()
    before = image.files()
    environment = {**image.environment, "TMPDIR": str(image.root / "tmp")}

    for arguments in (json.loads(last("CMD")), ["demo", "--quiet"]):
        done = subprocess.run(
            [*json.loads(last("ENTRYPOINT")), *arguments],
            cwd=image.directory,
            env=environment,
            executable=shutil.which("further-source", path=environment["PATH"]),
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert (done.returncode, done.stderr) == (0, "")

    assert image.files() == before
    with duckdb.connect(str(image.root / "data" / "further_demo.duckdb"), read_only=True) as connection:
        assert connection.execute("SELECT count(*) FROM further_data.executions").fetchall() == [(24,)]
    packages = {path.name.partition("-")[0] for path in image.root.glob("app/.venv/lib/*/site-packages/*.dist-info")}
    assert "psycopg2_binary" in packages
    assert not {name for name in packages if fnmatch(name, "pytest*") or name in {"ruff", "mypy"}}

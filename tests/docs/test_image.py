"""The image: what its file says, and what its steps make, in a directory that stands for the image's root."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import venv
from collections.abc import Iterator, Sequence
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
            for option in options:
                if option.startswith("--chown=") and os.geteuid() == 0:
                    os.chown(to, *map(int, option.removeprefix("--chown=").split(":")))

    def _run(self, value: str) -> None:
        environment = {**self.environment, **self.variables}
        done = subprocess.run(
            ["sh", "-c", value], cwd=self.directory, env=environment, capture_output=True, text=True, timeout=400
        )
        assert done.returncode == 0, f"{value}\n{done.stdout}\n{done.stderr}"

    @property
    def temporary(self) -> Path:
        return self.root / "tmp"

    def start(self, arguments: list[str], within: Sequence[str] = ()) -> "subprocess.CompletedProcess[str]":
        """Starts its entry point, within another command if one is given."""
        environment = {**self.environment, "TMPDIR": str(self.temporary)}
        [program, *first] = json.loads(last("ENTRYPOINT"))
        found = shutil.which(program, path=environment["PATH"])
        assert found is not None
        return subprocess.run(
            [*within, found, *first, *arguments],
            cwd=self.directory,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=300,
        )

    def files(self) -> dict[str, Any]:
        """What is in it and was changed when, but for what may be written to."""
        found = {path.relative_to(self.root): path.lstat().st_mtime_ns for path in self.root.rglob("*")}
        return {str(path): changed for path, changed in found.items() if path.parts[0] not in {"data", "tmp"}}


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Image:
    made = Image(tmp_path_factory.mktemp("image") / "root")
    for instruction in instructions():
        made.run(instruction)
    made.temporary.mkdir()
    return made


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="an image of Linux")
def test_its_steps_make_a_command_that_writes_to_its_data_alone(image: Image) -> None:
    before = image.files()

    for arguments in (json.loads(last("CMD")), ["demo", "--quiet"]):
        done = image.start(arguments)
        assert (done.returncode, done.stderr) == (0, "")

    assert image.files() == before
    assert executions_in(image) == 24
    packages = {path.name.partition("-")[0] for path in image.root.glob("app/.venv/lib/*/site-packages/*.dist-info")}
    assert "psycopg2_binary" in packages
    assert not {name for name in packages if fnmatch(name, "pytest*") or name in {"ruff", "mypy"}}


def executions_in(image: Image) -> int:
    with duckdb.connect(str(image.root / "data" / "further_demo.duckdb"), read_only=True) as connection:
        ((count,),) = connection.execute("SELECT count(*) FROM further_data.executions").fetchall()
    return int(count)


CONFINED = """
set -eu
mount -t tmpfs none /mnt
mkdir /mnt/root /mnt/python
mount --bind "$IMAGE" /mnt/root
mount --bind "$PYTHON" /mnt/python
for covered in /tmp /root /home; do mount -t tmpfs -o mode=755 none "$covered"; done
if ! [ -e "$PYTHON" ]; then mkdir -p "$PYTHON"; mount --bind /mnt/python "$PYTHON"; fi
mkdir -p "$IMAGE"
mount --bind /mnt/root "$IMAGE"
for writable in "$IMAGE/data" "$IMAGE/tmp"; do mount --bind "$writable" "$writable"; done
for mounted in / /tmp /root /home /mnt /mnt/root /mnt/python "$IMAGE"; do mount -o remount,bind,ro "$mounted"; done
cd "$IMAGE/data"
exec setpriv --reuid "$USER_ID" --regid "$GROUP_ID" --clear-groups --no-new-privs --bounding-set=-all --inh-caps=-all \\
    sh -c '
        for place in / /tmp /etc "$IMAGE" "$IMAGE/app"; do
            if touch "$place/probe" 2>/dev/null; then echo "$place can be written to" >&2; exit 1; fi
        done
        exec "$@"' sh "$@"
"""
"""Runs a command as the image's user, in a root file system that is read-only but for /data and /tmp of the image.

What is left of this machine is what is not in /tmp and home directories, and the interpreter.
"""


def can_confine() -> bool:
    tried = ["unshare", "--mount", "mount", "-t", "tmpfs", "none", "/mnt"]
    return (
        sys.platform == "linux"
        and os.geteuid() == 0
        and shutil.which("setpriv") is not None
        and shutil.which("unshare") is not None
        and subprocess.run(tried, capture_output=True).returncode == 0
    )


@pytest.mark.slow
@pytest.mark.skipif(not can_confine(), reason="only root of Linux may mount, in a namespace of its own")
def test_it_loads_as_its_user_in_a_root_that_is_read_only(image: Image) -> None:
    for path in (image.root / "data").iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert (image.root / "data").stat().st_uid == int(last("USER").partition(":")[0])
    image.temporary.chmod(0o1777)
    user, _, group = last("USER").partition(":")
    image.environment |= {"IMAGE": str(image.root), "PYTHON": sys.base_prefix, "USER_ID": user, "GROUP_ID": group}

    done = image.start(["demo", "--quiet"], within=["unshare", "--mount", "sh", "-c", CONFINED, "sh"])

    assert (done.returncode, done.stderr) == (0, "")
    assert executions_in(image) == 24
    assert {path.stat().st_uid for path in (image.root / "data").rglob("*")} == {int(user)}

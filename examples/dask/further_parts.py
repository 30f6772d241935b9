"""Loads a list in parts, each by a worker of a Dask cluster: `python further_parts.py`.

The cluster is that of `DASK_SCHEDULER_ADDRESS`; without it, one is started on this machine. All workers need the
directory with the list, and the credentials in their environment.
"""

import subprocess
import time

from dask.distributed import Client

PARTS = 4  # max_requests_per_second is for each of them
DIRECTORY = "/opt/further_source"
COMMAND = ".venv/bin/further-source load --executions submitted.csv --destination postgres --quiet"
ANOTHER_LOAD = 75  # exit code: the part is being loaded, or was by a machine that died less than 180 s ago


def load(part: int) -> str:
    """Loads one part, in a process of its own; what that says is in the worker's log."""
    command = [*COMMAND.split(), f"--shard={part}/{PARTS}"]
    for wait in (60, 60, 60, 60, 0):
        code = subprocess.run(command, cwd=DIRECTORY, check=False).returncode  # noqa: S603
        if code != ANOTHER_LOAD:
            break
        time.sleep(wait)
    if code:
        raise RuntimeError(f"part {part} of {PARTS} ended with {code}")
    return f"part {part} of {PARTS} is loaded"


if __name__ == "__main__":
    with Client() as client:
        # Where a worker dies, Dask gives its part to another one, which loads what is left of it.
        for done in client.gather(client.map(load, range(1, PARTS + 1), pure=False, retries=2)):
            print(done)  # noqa: T201

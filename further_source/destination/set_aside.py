"""What a power cut or a bad disk tore is renamed out of the way, so that loads go on; it is never deleted."""

from datetime import datetime, timezone
from itertools import count
from pathlib import Path

from dlt.common import logger

__all__ = ["set_aside"]

_SUFFIX = ".set_aside"


def set_aside(path: Path, working_dir: Path, reason: str, consequence: str) -> None:
    """Moves a file or directory into `<working directory>.set_aside`, and warns in one line.

    Not into the working directory itself: dlt empties that now and then.
    """
    directory = working_dir.with_name(working_dir.name + _SUFFIX)
    directory.mkdir(exist_ok=True)
    name = f"{datetime.now(timezone.utc):%Y%m%dT%H%M%SZ}_{path.name}"
    names = (name if number == 1 else f"{name}_{number}" for number in count(1))
    target = next(target for target in map(directory.joinpath, names) if not target.exists())
    path.rename(target)
    logger.warning(f"{path}: {reason}; it is set aside as {target}, and {consequence}")

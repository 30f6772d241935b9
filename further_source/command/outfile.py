"""A file that somebody wants written."""

import os
from pathlib import Path

from further_source.exceptions import ConfigurationError

__all__ = ["out_file"]


def out_file(text: str) -> Path:
    """The file that `--out` names. A link leads to its file, because what is written takes the file's place.

    Raises:
        ConfigurationError: It is in no directory that exists, or is there and is no file: a device would be replaced.
    """
    path = Path(text)
    if not path.absolute().parent.is_dir() or (path.exists() and not path.is_file()):
        raise ConfigurationError(f"--out {text}: no file in a directory that exists")
    return Path(os.path.realpath(path)) if path.is_symlink() else path

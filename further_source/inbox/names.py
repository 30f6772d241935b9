"""The names in an inbox that whoever writes and whoever reads agree on."""

__all__ = ["ARCHIVE", "QUARANTINE", "REASON", "is_directory_apart", "is_hidden"]

ARCHIVE = "archive"
QUARANTINE = "quarantine"
REASON = ".reason.txt"  # follows the name of what is in quarantine
_HIDDEN = "."


def is_hidden(name: str) -> bool:
    """Whether a file is not whole yet, or no delivery: its name begins with a dot."""
    return name.startswith(_HIDDEN)


def is_directory_apart(name: str) -> bool:
    """Whether what stands at the top of an inbox under this name is not in the inbox any more."""
    return name in (ARCHIVE, QUARANTINE)

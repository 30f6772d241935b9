"""Stops a load at each of its steps with a text, or at one of so many, for longer than its lease, while another loads.

It is run as `python -m tests.support.standing_still JSON`. The base and the steps are those of `campaign`.

The first load is stopped (SIGSTOP), and its lease runs out. A second one on another machine begins, and stops itself
once its rows are in the staging tables and before they are merged. Then the first one goes on to its end beside it, and
after that the second one. At last the first machine loads again. Where the second one cannot begin, it does so last.
"""

import json
import os
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import Any

from further_source.exceptions import AlreadyRunningError
from tests.support.campaign import Base, Steps, forked, load_again, loading

LEASE = 0.5  # seconds
_LEASE_DURATION = "SOURCES__FURTHER_SOURCE__LEASE_DURATION"
_MERGES = 'DELETE FROM "further_data"."executions"'
_PATIENCE = 20.0  # seconds
_LEFT_ALONE = 75


class Stopping:
    """A load in a process of its own, which stops at a step."""

    def __init__(self, base: Base, arguments: dict[str, Any], directory: Path, at: int | str, lease: float) -> None:
        if (child := os.fork()) == 0:
            os.environ[_LEASE_DURATION] = str(lease)
            os._exit(_loaded(base, arguments, Steps(directory / "copy", at, signal.SIGSTOP)))
        self._pid = child
        _, status = os.waitpid(child, os.WUNTRACED)
        self.code = None if os.WIFSTOPPED(status) else os.waitstatus_to_exitcode(status)

    def end(self) -> int:
        """Lets it go on; its exit code."""
        if self.code is None:
            os.kill(self._pid, signal.SIGCONT)
            self.code = os.waitstatus_to_exitcode(os.waitpid(self._pid, 0)[1])
        return self.code


def _loaded(base: Base, arguments: dict[str, Any], steps: Steps) -> int:
    try:
        with loading(base, arguments) as load:
            steps.begin()
            load()
    except AlreadyRunningError:
        return _LEFT_ALONE
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def one_after_the_other(base: Base, first: dict[str, Any], second: dict[str, Any]) -> dict[str, list[Any]]:
    """What is there if nobody stands still."""
    base.copy()
    for arguments, elsewhere in ((first, False), (second, True)):
        code, found = forked(lambda: load_again(base, arguments, elsewhere=elsewhere))  # noqa: B023
        assert code == 0
    result: dict[str, list[Any]] = found
    return result


def beside(base: Base, first: dict[str, Any], second: dict[str, Any], directory: Path, step: int) -> dict[str, Any]:
    """How two loads ended of which the first stopped at a step, and what is there then."""
    base.copy()
    stopped = Stopping(base, first, directory, step, LEASE)
    did_stop = stopped.code is None
    other = _second(base, second, directory) if did_stop else None
    codes = {"first": stopped.end(), "second": other.end() if other else 1}
    is_kept_out = codes["second"] != 0
    again = [(first, False), *([(second, True)] if is_kept_out else [])]
    for arguments, elsewhere in again:
        code, found = forked(lambda: load_again(base, arguments, elsewhere=elsewhere))  # noqa: B023
        if code:
            return {"stopped": did_stop, "codes": codes, "code": code, "found": None}
    return {"stopped": did_stop, "codes": codes, "code": 0, "found": found}


def _second(base: Base, arguments: dict[str, Any], directory: Path) -> Stopping:
    """Begins once the lease of the first has run out, and what the server still does for it has ended."""
    time.sleep(LEASE)
    give_up = time.monotonic() + _PATIENCE
    with base.elsewhere(free=False):
        while True:
            load = Stopping(base, arguments, directory, _MERGES, 60)
            if load.code != _LEFT_ALONE or time.monotonic() > give_up:
                return load


def main() -> None:
    options = json.loads(sys.argv[1])
    directory = Path(options["directory"])
    base, first, second = Base(directory, options["url"], None), options["first_load"], options["second_load"]
    expected = one_after_the_other(base, first, second)
    base.copy()
    code, made = forked(lambda: _made(base, first, directory))
    assert code == 0
    failures: list[dict[str, Any]] = []
    ends: dict[str, int] = {}
    touching = [step for step, what in enumerate(made, 1) if options["touching"] in what]
    steps = touching[options["first"] :: options["every"]]
    for step in steps:
        done = beside(base, first, second, directory, step)
        if not done["stopped"]:
            continue
        end = "first {first}, second {second}".format(**done["codes"])
        ends[end] = ends.get(end, 0) + 1
        found = done.pop("found")
        wrong = [] if found is None else sorted(table for table in expected if found.get(table) != expected[table])
        if done["code"] or wrong or not _is_known(done["codes"]):
            failures.append({"step": step, "at": made[step - 1], "tables": wrong, **done})
    print(json.dumps({"steps": len(steps), "ends": ends, "failures": failures}))


def _is_known(codes: dict[str, int]) -> bool:
    """Whether one of them did its work, and the other one says so if it did not."""
    return codes["second"] == 0 or codes["first"] == 0


def _made(base: Base, arguments: dict[str, Any], directory: Path) -> list[str]:
    steps = Steps(directory / "copy", None)
    with loading(base, arguments) as load:
        steps.begin()
        load()
        sys.setprofile(None)
    return steps.made


if __name__ == "__main__":
    main()

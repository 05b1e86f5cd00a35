"""Starts another model server on a bundle that holds, or not at all.

    python -m serving.engines.verified --bundle DIR --variant NAME -- COMMAND…

The command takes this process over: same pid, same environment, and its arguments as they are given. A bundle that
does not hold is one line on stderr and exit code 1. Our own server (`serving.engines.server`) checks by itself.
"""

import argparse
import os
import sys
from itertools import takewhile
from pathlib import Path

from serving.bundle import verify_variant
from serving.errors import FlightpathError


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m serving.engines.verified", description=__doc__.partition("\n")[0])
    parser.add_argument("--bundle", required=True, type=Path)
    parser.add_argument("--variant", required=True)
    # Up to the first `--`: the command may have one of its own.
    own = list(takewhile(lambda word: word != "--", arguments))
    given, command = parser.parse_args(own), arguments[len(own) + 1 :]
    if not command:
        parser.error("no command after --")
    try:
        verify_variant(given.bundle, given.variant)
        os.execvp(command[0], command)
    except (FlightpathError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

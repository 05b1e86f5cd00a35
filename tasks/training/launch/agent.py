"""torchrun that ends as its worker ended: the command for pods whose exit code somebody judges.

    python -m tasks.training.launch.agent -m tasks.training.launch.torchrun --recipe … --dataset … --seed 1

Takes what torchrun takes, PET_* included. torchrun itself exits with 1 whatever a worker exited with, so a wrong
input (2) or a lack of memory (137) would look like any crash and be tried again; and its last words are its own
traceback. Here they are the exit code of the worker that failed first, and who that was.
"""

import os
import sys
from collections.abc import Sequence
from typing import Final

from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.run import parse_args, run

from tasks.training.launch import STORE_OF_ITS_OWN

_SIGNALLED: Final = 128
"""Added to a signal's number, as a shell tells it."""


def main(arguments: Sequence[str]) -> int:
    os.environ.update(STORE_OF_ITS_OWN)
    try:
        run(parse_args(list(arguments)))  # type: ignore[no-untyped-call]  # torch leaves both untyped
    except ChildFailedError as failed:
        rank, first = failed.get_first_failure()
        code = _SIGNALLED - first.exitcode if first.exitcode < 0 else first.exitcode
        print(f"flightpath: worker {rank} failed first, with exit code {code}", file=sys.stderr, flush=True)
        return code
    except SignalException as asked:
        return _SIGNALLED + int(asked.sigval)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))

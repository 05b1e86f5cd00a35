"""Data-parallel training under torchrun: the entry module of TrainingJobs and PyTorch elastic.

    torchrun --nproc-per-node 2 -m tasks.training.launch.torchrun \\
        --recipe resnet-digits --dataset file:///…/datasets/<sha256> --output file:///…/run --seed 1

Every worker reads RANK, WORLD_SIZE and MASTER_* as torchrun sets them, FLIGHTPATH_CHECKPOINT_URI (in
place of --output), FLIGHTPATH_RESUME (auto, never, a step) and, over the recipe's, FLIGHTPATH_CHECKPOINT_
INTERVAL_STEPS, INTERVAL_SECONDS and KEEP. Rank 0 posts progress to FLIGHTPATH_PROGRESS_URL. Exit codes: 0
done, 2 a wrong input, 75 worth trying again; torchrun makes 1 of both, `agent.py` beside this does not.
"""

import argparse
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from serving.errors import FlightpathError, InvalidInput, RetryableError
from serving.store_files import StoreFiles
from tasks.training.launch import STORE_OF_ITS_OWN
from tasks.training.loop import TrainingOrder, run_address, train_worker
from tasks.training.reporting import Listener, Progress, append_to, post_to

if TYPE_CHECKING:
    import torch

EXIT_INVALID: Final = 2
EXIT_RETRY: Final = 75
"""EX_TEMPFAIL of sysexits.h."""
_TAIL_CHARACTERS: Final = 2000


def launch(order: TrainingOrder) -> None:
    """Train with `order.workers` processes of this machine, rendezvous on a free loopback port.

    Raises:
        RetryableError: a worker failed; the message ends with what it said.
    """
    command = [
        *(sys.executable, "-m", "torch.distributed.run", "--nnodes", "1", "--nproc-per-node", str(order.workers)),
        *("--rdzv-backend", "c10d", "--rdzv-endpoint", "127.0.0.1:0", "--local-addr", "127.0.0.1"),
        *("-m", "tasks.training.launch.torchrun", "--recipe", order.recipe, "--dataset", order.dataset_uri),
        *(
            "--overrides",
            order.overrides,
            "--output",
            order.run,
            "--seed",
            str(order.seed),
            "--resume",
            order.resume,
        ),
    ]
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, **STORE_OF_ITS_OWN, "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path)},
        start_new_session=True,
    ) as agent:
        try:
            output, _ = agent.communicate()
        except BaseException:
            # torchrun forwards SIGTERM to its workers and waits for them.
            os.killpg(agent.pid, signal.SIGTERM)
            raise
    if agent.returncode != 0:
        said = output.decode(errors="replace")[-_TAIL_CHARACTERS:]
        raise RetryableError(f"training under torchrun failed: {said}", got=agent.returncode, expected="exit code 0")


def main(arguments: Sequence[str], environment: Mapping[str, str]) -> int:
    """One worker; returns its exit code."""
    try:
        order = parse_order(arguments, environment)
        with process_group() as device:
            train_worker(order, listener=_listener(order, environment), device=device)
    except FlightpathError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
        return EXIT_RETRY if error.retryable else EXIT_INVALID
    return 0


def parse_order(arguments: Sequence[str], environment: Mapping[str, str]) -> TrainingOrder:
    """The order that command line and environment give; FLIGHTPATH_* win over their arguments."""
    parser = argparse.ArgumentParser(prog="python -m tasks.training.launch.torchrun", description="One worker.")
    parser.add_argument("--recipe", required=True, help="name, or package.module:function")
    parser.add_argument("--overrides", default="", help="JSON of the recipe's fields to change")
    parser.add_argument("--dataset", required=True, help="address of a dataset folder; its last part is its SHA-256")
    parser.add_argument("--output", default="", help="address of the run: a path or any fsspec URI")
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--resume", default="auto", help="auto | never | a step")
    given = parser.parse_args(arguments)
    output = environment.get("FLIGHTPATH_CHECKPOINT_URI") or given.output
    return TrainingOrder(
        recipe=given.recipe,
        overrides=environment.get("FLIGHTPATH_OVERRIDES") or given.overrides,
        dataset_uri=given.dataset,
        dataset_sha256=given.dataset.rstrip("/").rpartition("/")[2],
        run=run_address(output),
        seed=given.seed,
        workers=int(environment.get("WORLD_SIZE", "1")),
        resume=environment.get("FLIGHTPATH_RESUME") or given.resume,
        checkpoint_interval_steps=_whole(environment, "FLIGHTPATH_CHECKPOINT_INTERVAL_STEPS"),
        checkpoint_interval_s=_whole(environment, "FLIGHTPATH_CHECKPOINT_INTERVAL_SECONDS"),
        keep_checkpoints=_whole(environment, "FLIGHTPATH_CHECKPOINT_KEEP"),
    )


def _whole(environment: Mapping[str, str], name: str) -> int | None:
    given = environment.get(name, "")
    if given and not given.isdecimal():
        raise InvalidInput(f"{name} is malformed", got=given, expected="a whole number > 0")
    return int(given) if given else None


def _listener(order: TrainingOrder, environment: Mapping[str, str]) -> Listener:
    listeners = [append_to(StoreFiles.open(order.run)), post_to(environment)]

    def listener(progress: Progress) -> None:
        for tell in listeners:
            if tell is not None:
                tell(progress)

    return listener


@contextmanager
def process_group() -> Iterator["torch.device"]:
    """The device of this worker, which has joined the others that torchrun started, if there are any."""
    import torch
    from torch import distributed

    cuda = torch.cuda.is_available()
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0"))) if cuda else torch.device("cpu")
    if cuda:
        torch.cuda.set_device(device)
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield device
        return
    distributed.init_process_group(backend="nccl" if cuda else "gloo")
    try:
        yield device
    finally:
        distributed.destroy_process_group()


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:], os.environ))

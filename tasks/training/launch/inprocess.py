"""One worker in this very process: for tests, for debugging and for machines with a single core."""

from pathlib import Path

from serving.errors import InvalidInput
from tasks.training.loop import TrainingOrder, train_worker
from tasks.training.reporting import PROGRESS_FILE, append_to


def launch(order: TrainingOrder) -> None:
    """Train with one worker, here."""
    if order.workers != 1:
        raise InvalidInput("the in-process launcher has one worker", got=order.workers, expected=1)
    train_worker(order, listener=append_to(Path(order.run_folder) / PROGRESS_FILE))

"""One worker in this very process: for tests, for debugging and for machines with a single core."""

from serving.errors import InvalidInput
from serving.store_files import StoreFiles
from tasks.training.loop import TrainingOrder, train_worker
from tasks.training.reporting import append_to


def launch(order: TrainingOrder) -> None:
    """Train with one worker, here."""
    if order.workers != 1:
        raise InvalidInput("the in-process launcher has one worker", got=order.workers, expected=1)
    train_worker(order, listener=append_to(StoreFiles.open(order.run)))

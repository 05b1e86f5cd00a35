"""Training runs on this disk, as tests look into them."""

from pathlib import Path

from serving.store_files import StoreFiles
from tasks.training.branches import Branches, Found


def look(run: Path, resume: str = "auto") -> Found:
    """What an order would go on from."""
    return Branches(StoreFiles.of_folder(run), run).find(resume)

"""Code that is named as text: `package.module:name`."""

import importlib
import re
from typing import Any, Final

from serving.errors import InvalidInput

EXPECTED: Final = "package.module:name"
_REFERENCE: Final = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")


def load_reference(reference: str) -> Any:
    """What `reference` names, its module imported. Nothing is called.

    Raises:
        InvalidInput: it is malformed, its module cannot be imported (whatever it raised), or has no such name.
    """
    if not _REFERENCE.fullmatch(reference):
        raise InvalidInput("reference is malformed", got=reference, expected=EXPECTED)
    module, _, name = reference.partition(":")
    try:
        return getattr(importlib.import_module(module), name)
    except (Exception, SystemExit) as failed:
        # Importing runs a user's code, which may raise anything.
        what = f"{type(failed).__name__}: {failed}"
        raise InvalidInput(f"reference cannot be imported ({what})", got=reference, expected=EXPECTED) from failed

"""`flightpath tokens …` and `flightpath keys …`: exchange what agents, gateways and bundles are trusted by.

Nothing is started again: files are read when they are used. docs/credentials.md has the order over several machines.
"""

from typing import Annotated

import typer

from serving.credentials import SigningKey, TokenFolder, retire_key, token_name, trusted_keys
from serving.regions.places.topology import load_topology
from serving.settings import Settings

tokens = typer.Typer(no_args_is_help=True, help="Tokens of a role: list, add, send, retire.")
keys = typer.Typer(no_args_is_help=True, help="Keys that bundles are signed with: list, replace, retire.")
Role = Annotated[str, typer.Argument(help="promoter | operator | peer | gateway")]
Name = Annotated[str, typer.Argument(help="as `list` shows it; no secret")]


def _folder() -> TokenFolder:
    return TokenFolder(folder=load_topology(Settings()).token_folder)


@tokens.command("list")
def list_tokens(role: Role) -> None:
    """The names of a role's tokens, and which one is sent."""
    for number, token in enumerate(_folder().accepted(role)):
        print(f"{token_name(token)}  {'accepted' if number else 'sent, accepted'}")


@tokens.command()
def add(role: Role) -> None:
    """Accept a new token too; prints its name."""
    print(_folder().add(role))


@tokens.command()
def send(role: Role, name: Name) -> None:
    """Send the token of this name from now on; the others are still accepted."""
    _folder().send(role, name)


@tokens.command()
def retire(role: Role, name: Name) -> None:
    """Accept the token of this name no longer."""
    _folder().retire(role, name)


@keys.command("list")
def list_keys() -> None:
    """The ids of the trusted keys, and which one signs here."""
    folder = load_topology(Settings()).key_folder
    signs = SigningKey.ensure(folder).key_id if (folder / "signing.pem").exists() else None
    for id in trusted_keys(folder):
        print(f"{id}  {'signs, trusted' if id == signs else 'trusted'}")


@keys.command()
def replace() -> None:
    """Sign with a new key from now on; the one of before stays trusted. Prints the new key's id."""
    print(SigningKey.replace(load_topology(Settings()).key_folder).key_id)


@keys.command("retire")
def retire_trusted(id: Annotated[str, typer.Argument(help="as `list` shows it")]) -> None:
    """Take no new bundle of this key; what is live, and what was, is served on."""
    retire_key(load_topology(Settings()).key_folder, id)

"""The registry's tables, the same on SQLite and PostgreSQL; migrations/ brings a database to them.

Documents (rollouts, promotions) are JSON beside the columns that queries and constraints need, so
that a new field of a state machine needs no migration.
"""

from typing import Final

import sqlalchemy as sa

HEAD: Final = "0003"
"""The revision this code works with; a test holds it against the migrations."""

metadata: Final = sa.MetaData()

releases: Final = sa.Table(
    "releases",
    metadata,
    sa.Column("id", sa.String(128), primary_key=True),
    sa.Column("model", sa.String(128), nullable=False),
    sa.Column("version", sa.Integer, nullable=False),
    sa.Column("digest", sa.String(80), nullable=False),
    sa.Column("store_uri", sa.Text, nullable=False),
    sa.Column("runtime", sa.JSON, nullable=False),
    sa.Column("created_at", sa.Float, nullable=False),
    sa.UniqueConstraint("model", "version", name="one_release_per_version"),
)

live_models: Final = sa.Table(
    "live_models",
    metadata,
    sa.Column("model", sa.String(128), primary_key=True),
    sa.Column("release_id", sa.ForeignKey("releases.id"), nullable=True),
    sa.Column("previous_release_id", sa.ForeignKey("releases.id"), nullable=True),
    sa.Column("reason", sa.Text, nullable=True),
    sa.Column("updated_at", sa.Float, nullable=False),
    sa.Column("standby_release_id", sa.ForeignKey("releases.id", name="standby_is_a_release"), nullable=True),
    sa.Column("standby_until", sa.Float, nullable=True),
)

live_history: Final = sa.Table(
    "live_history",
    metadata,
    sa.Column("seq", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True, autoincrement=True),
    sa.Column("model", sa.String(128), nullable=False),
    sa.Column("release_id", sa.ForeignKey("releases.id"), nullable=False, index=True),
    sa.Column("previous_release_id", sa.ForeignKey("releases.id"), nullable=True),
    sa.Column("at", sa.Float, nullable=False),
)
"""Every time a release became live here; a rollback may go to any of them."""

promotions: Final = sa.Table(
    "promotions",
    metadata,
    sa.Column("id", sa.String(128), primary_key=True),
    sa.Column("model", sa.String(128), nullable=False),
    sa.Column("release_id", sa.ForeignKey("releases.id"), nullable=False),
    sa.Column("running", sa.Boolean, nullable=False),
    sa.Column("ordered_at", sa.Float, nullable=False),
    sa.Column("document", sa.JSON, nullable=False),
)

sa.Index(
    "one_running_promotion_per_model",
    promotions.c.model,
    unique=True,
    sqlite_where=promotions.c.running,
    postgresql_where=promotions.c.running,
)

rollouts: Final = sa.Table(
    "rollouts",
    metadata,
    sa.Column("id", sa.String(128), primary_key=True),
    sa.Column("model", sa.String(128), nullable=False, index=True),
    sa.Column("release_id", sa.ForeignKey("releases.id"), nullable=False),
    sa.Column("settled", sa.Boolean, nullable=False, index=True),
    sa.Column("ordered_at", sa.Float, nullable=False),
    sa.Column("document", sa.JSON, nullable=False),
)


def _rollback_table(name: str) -> sa.Table:
    return sa.Table(
        name,
        metadata,
        sa.Column("id", sa.String(128), primary_key=True),
        sa.Column("model", sa.String(128), nullable=False, index=True),
        sa.Column("open", sa.Boolean, nullable=False, index=True),
        sa.Column("ordered_at", sa.Float, nullable=False),
        sa.Column("document", sa.JSON, nullable=False),
    )


rollbacks: Final = _rollback_table("rollbacks")
"""This region's parts."""
rollback_orders: Final = _rollback_table("rollback_orders")
"""The home region's orders."""

journal: Final = sa.Table(
    "journal",
    metadata,
    sa.Column("seq", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True, autoincrement=True),
    sa.Column("at", sa.Float, nullable=False),
    sa.Column("kind", sa.String(32), nullable=False),
    sa.Column("subject", sa.String(128), nullable=False),
    sa.Column("message", sa.Text, nullable=False),
    sa.Column("detail", sa.JSON, nullable=False),
    sa.Index("journal_by_subject", "kind", "subject", "seq"),
    # seq is never used twice, so that a reader's `since` keeps its meaning.
    sqlite_autoincrement=True,
)

epochs: Final = sa.Table(
    "epochs",
    metadata,
    sa.Column("number", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("home", sa.String(128), primary_key=True),
    sa.Column("at", sa.Float, nullable=False),
    sa.Column("actor", sa.String(256), nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
)
"""Which region led when, as far as this region has heard."""

overrides: Final = sa.Table(
    "overrides",
    metadata,
    sa.Column("name", sa.String(64), primary_key=True),
    sa.Column("value", sa.JSON, nullable=False),
)

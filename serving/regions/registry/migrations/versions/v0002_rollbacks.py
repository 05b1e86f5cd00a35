"""Standbys, what was live when, and rollbacks."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    with op.batch_alter_table("live_models") as live:
        live.add_column(sa.Column("standby_release_id", sa.String(128), nullable=True))
        live.add_column(sa.Column("standby_until", sa.Float, nullable=True))
        live.create_foreign_key("standby_is_a_release", "releases", ["standby_release_id"], ["id"])
    op.create_table(
        "live_history",
        sa.Column("seq", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True, autoincrement=True),
        sa.Column("model", sa.String(128), nullable=False),
        sa.Column("release_id", sa.String(128), sa.ForeignKey("releases.id"), nullable=False),
        sa.Column("previous_release_id", sa.String(128), sa.ForeignKey("releases.id"), nullable=True),
        sa.Column("at", sa.Float, nullable=False),
    )
    op.create_index("ix_live_history_release_id", "live_history", ["release_id"])
    # What is known of the time before: the live release and the one that it replaced.
    op.execute(
        "INSERT INTO live_history (model, release_id, previous_release_id, at) "
        "SELECT model, previous_release_id, NULL, updated_at FROM live_models WHERE previous_release_id IS NOT NULL"
    )
    op.execute(
        "INSERT INTO live_history (model, release_id, previous_release_id, at) "
        "SELECT model, release_id, previous_release_id, updated_at FROM live_models WHERE release_id IS NOT NULL"
    )
    for name in ("rollbacks", "rollback_orders"):
        op.create_table(
            name,
            sa.Column("id", sa.String(128), primary_key=True),
            sa.Column("model", sa.String(128), nullable=False),
            sa.Column("open", sa.Boolean, nullable=False),
            sa.Column("ordered_at", sa.Float, nullable=False),
            sa.Column("document", sa.JSON, nullable=False),
        )
        op.create_index(f"ix_{name}_model", name, ["model"])
        op.create_index(f"ix_{name}_open", name, ["open"])


def downgrade() -> None:
    for table in ("rollback_orders", "rollbacks", "live_history"):
        op.drop_table(table)
    with op.batch_alter_table("live_models") as live:
        live.drop_constraint("standby_is_a_release", type_="foreignkey")
        live.drop_column("standby_until")
        live.drop_column("standby_release_id")

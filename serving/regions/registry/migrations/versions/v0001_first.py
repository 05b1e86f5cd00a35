"""Releases, live models, promotions, rollouts, journal and overrides."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "releases",
        sa.Column("id", sa.String(128), primary_key=True),
        sa.Column("model", sa.String(128), nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("digest", sa.String(80), nullable=False),
        sa.Column("store_uri", sa.Text, nullable=False),
        sa.Column("runtime", sa.JSON, nullable=False),
        sa.Column("created_at", sa.Float, nullable=False),
        sa.UniqueConstraint("model", "version", name="one_release_per_version"),
    )
    op.create_table(
        "live_models",
        sa.Column("model", sa.String(128), primary_key=True),
        sa.Column("release_id", sa.String(128), sa.ForeignKey("releases.id"), nullable=True),
        sa.Column("previous_release_id", sa.String(128), sa.ForeignKey("releases.id"), nullable=True),
        sa.Column("reason", sa.Text, nullable=True),
        sa.Column("updated_at", sa.Float, nullable=False),
    )
    _create_documents()
    op.create_table(
        "journal",
        sa.Column("seq", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True, autoincrement=True),
        sa.Column("at", sa.Float, nullable=False),
        sa.Column("kind", sa.String(32), nullable=False),
        sa.Column("subject", sa.String(128), nullable=False),
        sa.Column("message", sa.Text, nullable=False),
        sa.Column("detail", sa.JSON, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_index("journal_by_subject", "journal", ["kind", "subject", "seq"])
    op.create_table(
        "overrides",
        sa.Column("name", sa.String(64), primary_key=True),
        sa.Column("value", sa.JSON, nullable=False),
    )


def _create_documents() -> None:
    op.create_table(
        "promotions",
        sa.Column("id", sa.String(128), primary_key=True),
        sa.Column("model", sa.String(128), nullable=False),
        sa.Column("release_id", sa.String(128), sa.ForeignKey("releases.id"), nullable=False),
        sa.Column("running", sa.Boolean, nullable=False),
        sa.Column("ordered_at", sa.Float, nullable=False),
        sa.Column("document", sa.JSON, nullable=False),
    )
    op.create_index(
        "one_running_promotion_per_model",
        "promotions",
        ["model"],
        unique=True,
        sqlite_where=sa.column("running", sa.Boolean),
        postgresql_where=sa.column("running", sa.Boolean),
    )
    op.create_table(
        "rollouts",
        sa.Column("id", sa.String(128), primary_key=True),
        sa.Column("model", sa.String(128), nullable=False),
        sa.Column("release_id", sa.String(128), sa.ForeignKey("releases.id"), nullable=False),
        sa.Column("settled", sa.Boolean, nullable=False),
        sa.Column("ordered_at", sa.Float, nullable=False),
        sa.Column("document", sa.JSON, nullable=False),
    )
    op.create_index("ix_rollouts_model", "rollouts", ["model"])
    op.create_index("ix_rollouts_settled", "rollouts", ["settled"])


def downgrade() -> None:
    for table in ("overrides", "journal", "rollouts", "promotions", "live_models", "releases"):
        op.drop_table(table)

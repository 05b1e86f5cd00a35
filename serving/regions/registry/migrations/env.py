"""Runs migrations on the connection that `serving.regions.registry.database` hands over; it has no URL of its own."""

from alembic import context

from serving.regions.registry.schema import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata, render_as_batch=True)
with context.begin_transaction():
    context.run_migrations()

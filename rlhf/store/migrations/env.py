"""Alembic's entry: runs the numbered migrations on the connection that `database.upgrade` passes in."""

from alembic import context

from rlhf.store.tables import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata, render_as_batch=True)
with context.begin_transaction():
    context.run_migrations()

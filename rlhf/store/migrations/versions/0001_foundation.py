"""The foundation's tables: feedback, snapshots, bases, versions, aliases, runs, reports, people, leases, audit."""

from alembic import op

from rlhf.store.tables import metadata

revision = "0001"
down_revision = None


def upgrade() -> None:
    metadata.create_all(op.get_bind())

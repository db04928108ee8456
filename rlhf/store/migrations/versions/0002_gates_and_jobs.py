"""Gates on aliases (a log, as the moves are) and jobs: queued rows that become child processes."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.create_table(
        "alias_gates",
        sa.Column("alias", sa.String(201), primary_key=True),
        sa.Column("seq", sa.Integer(), primary_key=True),
        sa.Column("digest", sa.String(64)),
        sa.Column("rules", sa.Text()),
        sa.Column("who", sa.String(200), nullable=False),
        sa.Column("why", sa.Text(), nullable=False),
        sa.Column("at", sa.String(32), nullable=False),
    )
    op.create_table(
        "jobs",
        sa.Column("id", sa.String(26), primary_key=True),
        sa.Column("words", sa.Text(), nullable=False),
        sa.Column("cwd", sa.String(1000), nullable=False),
        sa.Column("state", sa.String(12), nullable=False),
        sa.Column("folder", sa.String(500), nullable=False),
        sa.Column("host", sa.String(200)),
        sa.Column("pid", sa.Integer()),
        sa.Column("pid_started", sa.String(80)),
        sa.Column("run_id", sa.String(26)),
        sa.Column("exit_status", sa.Integer()),
        sa.Column("error", sa.Text()),
        sa.Column("actor", sa.String(200), nullable=False),
        sa.Column("created_at", sa.String(32), nullable=False),
        sa.Column("started_at", sa.String(32)),
        sa.Column("ended_at", sa.String(32)),
    )
    op.create_index("ix_jobs_state", "jobs", ["state"])

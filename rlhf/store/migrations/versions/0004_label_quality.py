"""Rules of labeling, gold pairs, checks of labelers and their pauses; each lease says what it is for."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.add_column("leases", sa.Column("kind", sa.String(10), nullable=False, server_default="label"))
    op.create_table(
        "label_rules",
        sa.Column("seq", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("rules", sa.Text(), nullable=False),
        sa.Column("who", sa.String(200), nullable=False),
        sa.Column("why", sa.Text(), nullable=False),
        sa.Column("at", sa.String(32), nullable=False),
    )
    op.create_table(
        "gold",
        sa.Column("pair_id", sa.String(64), sa.ForeignKey("pairs.id"), primary_key=True),
        sa.Column("seq", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("choice", sa.String(10)),
        sa.Column("who", sa.String(200), nullable=False),
        sa.Column("at", sa.String(32), nullable=False),
    )
    op.create_table(
        "checks",
        sa.Column("labeler", sa.String(200), primary_key=True),
        sa.Column("pair_id", sa.String(64), sa.ForeignKey("pairs.id"), primary_key=True),
        sa.Column("kind", sa.String(10), primary_key=True),
        sa.Column("seq", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("id", sa.String(26), nullable=False, unique=True),
        sa.Column("lease_id", sa.String(26), nullable=False),
        sa.Column("shown", sa.String(2), nullable=False),
        sa.Column("choice", sa.String(10), nullable=False),
        sa.Column("was_right", sa.Integer()),
        sa.Column("seconds", sa.Float()),
        sa.Column("note", sa.Text()),
        sa.Column("reason", sa.Text()),
        sa.Column("at", sa.String(32), nullable=False),
    )
    op.create_index("checks_by_time", "checks", ["labeler", "at"])
    op.create_table(
        "pauses",
        sa.Column("labeler", sa.String(200), primary_key=True),
        sa.Column("seq", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("action", sa.String(10), nullable=False),
        sa.Column("who", sa.String(200), nullable=False),
        sa.Column("why", sa.Text(), nullable=False),
        sa.Column("at", sa.String(32), nullable=False),
    )

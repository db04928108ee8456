"""Decisions: promotions, rollbacks, changed gates, retirements, and reviews of them."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    op.create_table(
        "decisions",
        sa.Column("number", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("kind", sa.String(12), nullable=False),
        sa.Column("alias", sa.String(201)),
        sa.Column("alias_seq", sa.Integer()),
        sa.Column("from_digest", sa.String(64)),
        sa.Column("to_digest", sa.String(64)),
        sa.Column("takes_back", sa.Integer()),
        sa.Column("review_days", sa.Integer()),
        sa.Column("content", sa.Text(), nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("who", sa.String(200), nullable=False),
        sa.Column("why", sa.Text(), nullable=False),
        sa.Column("at", sa.String(32), nullable=False),
    )
    op.create_index("ix_decisions_takes_back", "decisions", ["takes_back"])
    op.create_index("decisions_by_alias", "decisions", ["alias", "alias_seq"])

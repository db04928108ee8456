"""What a vote on a pair is worth and costs."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    op.create_table(
        "pair_worths",
        sa.Column("pair_id", sa.String(64), sa.ForeignKey("pairs.id"), primary_key=True),
        sa.Column("p_a", sa.Float()),
        sa.Column("doubt", sa.Float()),
        sa.Column("disagreement", sa.Float(), nullable=False),
        sa.Column("coverage", sa.Float(), nullable=False),
        sa.Column("effort_s", sa.Float(), nullable=False),
        sa.Column("by", sa.String(64), nullable=False),
        sa.Column("n_votes", sa.Integer(), nullable=False),
        sa.Column("updated_at", sa.String(32), nullable=False),
    )

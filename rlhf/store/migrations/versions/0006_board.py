"""Items of the board and the log of what was done about them."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    op.create_table(
        "items",
        sa.Column("id", sa.String(26), primary_key=True),
        sa.Column("once", sa.String(64), nullable=False, unique=True),
        sa.Column("channel", sa.String(200), nullable=False),
        sa.Column("about", sa.String(10), nullable=False),
        sa.Column("pair_id", sa.String(64), sa.ForeignKey("pairs.id")),
        sa.Column("comment", sa.String(64), sa.ForeignKey("comments.digest")),
        sa.Column("shown", sa.String(2)),
        sa.Column("body", sa.Text()),
        sa.Column("given_by", sa.String(200)),
        sa.Column("rule", sa.String(60)),
        sa.Column("actor", sa.String(200), nullable=False),
        sa.Column("created_at", sa.String(32), nullable=False),
    )
    op.create_index("ix_items_pair_id", "items", ["pair_id"])
    op.create_index("ix_items_comment", "items", ["comment"])
    op.create_index("items_by_giver", "items", ["given_by", "created_at"])
    op.create_table(
        "item_events",
        sa.Column("item_id", sa.String(26), sa.ForeignKey("items.id"), primary_key=True),
        sa.Column("seq", sa.Integer(), primary_key=True),
        sa.Column("action", sa.String(10), nullable=False),
        sa.Column("pair_id", sa.String(64)),
        sa.Column("link", sa.String(200)),
        sa.Column("kind", sa.String(10), nullable=False),
        sa.Column("risk", sa.String(10), nullable=False),
        sa.Column("impact", sa.Integer()),
        sa.Column("effort", sa.Integer()),
        sa.Column("status", sa.String(12), nullable=False),
        sa.Column("owner", sa.String(200)),
        sa.Column("who", sa.String(200), nullable=False),
        sa.Column("why", sa.Text()),
        sa.Column("at", sa.String(32), nullable=False),
    )
    op.create_index("ix_item_events_pair_id", "item_events", ["pair_id"])

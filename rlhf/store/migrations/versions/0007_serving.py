"""Rollouts with their log, what was served, what came of it, and how soon a move was in force."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    op.create_table(
        "rollouts",
        sa.Column("id", sa.String(26), primary_key=True),
        sa.Column("alias", sa.String(201), nullable=False),
        sa.Column("kind", sa.String(10), nullable=False),
        sa.Column("alias_seq", sa.Integer(), nullable=False),
        sa.Column("spec", sa.Text(), nullable=False),
        sa.Column("who", sa.String(200), nullable=False),
        sa.Column("why", sa.Text(), nullable=False),
        sa.Column("created_at", sa.String(32), nullable=False),
    )
    op.create_index("ix_rollouts_alias", "rollouts", ["alias"])
    op.create_table(
        "rollout_events",
        sa.Column("rollout_id", sa.String(26), sa.ForeignKey("rollouts.id"), primary_key=True),
        sa.Column("seq", sa.Integer(), primary_key=True),
        sa.Column("kind", sa.String(12), nullable=False),
        sa.Column("status", sa.String(12), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("who", sa.String(200), nullable=False),
        sa.Column("why", sa.Text(), nullable=False),
        sa.Column("at", sa.String(32), nullable=False),
    )
    op.create_index("ix_rollout_events_status", "rollout_events", ["status"])
    op.create_table(
        "exposures",
        sa.Column("request_id", sa.String(64), primary_key=True),
        sa.Column("at", sa.String(32), nullable=False),
        sa.Column("model_asked", sa.String(300), nullable=False),
        sa.Column("name", sa.String(100), nullable=False),
        sa.Column("alias", sa.String(201)),
        sa.Column("rollout_id", sa.String(26)),
        sa.Column("rollout_seq", sa.Integer()),
        sa.Column("arm", sa.String(120)),
        sa.Column("rule", sa.String(12), nullable=False),
        sa.Column("digest", sa.String(64)),
        sa.Column("propensity", sa.Float(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("unit", sa.String(64)),
        sa.Column("latency_s", sa.Float()),
        sa.Column("first_token_s", sa.Float()),
        sa.Column("tokens_in", sa.Integer()),
        sa.Column("tokens_out", sa.Integer()),
        sa.Column("finish", sa.String(20)),
        sa.Column("status", sa.String(12), nullable=False),
        sa.Column("refusal", sa.Integer()),
        sa.Column("length_chars", sa.Integer()),
        sa.Column("reward", sa.Float()),
        sa.Column("prompt", sa.Text()),
        sa.Column("reply", sa.Text()),
        sa.Column("consent", sa.String(40), nullable=False),
        sa.Column("shadow_of", sa.String(64)),
        sa.Column("seed", sa.BigInteger()),
        sa.Column("served_pair_id", sa.String(64)),
        sa.Column("erased_at", sa.String(32)),
    )
    op.create_index("ix_exposures_at", "exposures", ["at"])
    op.create_index("exposures_by_rollout", "exposures", ["rollout_id", "at"])
    op.create_index("exposures_by_unit", "exposures", ["unit"])
    op.create_table(
        "outcomes",
        sa.Column("id", sa.String(26), primary_key=True),
        sa.Column("request_id", sa.String(64), sa.ForeignKey("exposures.request_id"), nullable=False),
        sa.Column("at", sa.String(32), nullable=False),
        sa.Column("kind", sa.String(10), nullable=False),
        sa.Column("name", sa.String(60), nullable=False),
        sa.Column("value", sa.Float()),
        sa.Column("note", sa.Text()),
        sa.Column("unit", sa.String(64)),
        sa.Column("state", sa.String(12), nullable=False),
    )
    op.create_index("ix_outcomes_request_id", "outcomes", ["request_id"])
    op.create_table(
        "effects",
        sa.Column("subject", sa.String(201), primary_key=True),
        sa.Column("seq", sa.Integer(), primary_key=True),
        sa.Column("router", sa.String(26), primary_key=True),
        sa.Column("action", sa.String(12), nullable=False),
        sa.Column("seconds", sa.Float(), nullable=False),
        sa.Column("how", sa.String(10), nullable=False),
        sa.Column("at", sa.String(32), nullable=False),
    )

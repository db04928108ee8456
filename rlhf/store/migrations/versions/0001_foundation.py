"""The foundation's tables: feedback, snapshots, bases, versions, aliases, runs, reports, people, leases, audit.

Written out and frozen: what `tables.py` says later is reached by later migrations, so a workspace of any release upgrades
through the same steps.
"""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    _feedback()
    _datasets_and_bases()
    _registry()
    _people_and_work()


def _feedback() -> None:
    op.create_table(
        "pairs",
        sa.Column("id", sa.String(64), primary_key=True),
        sa.Column("prompt", sa.Text()),
        sa.Column("reply_a", sa.Text()),
        sa.Column("reply_b", sa.Text()),
        sa.Column("group_digest", sa.String(64), nullable=False),
        sa.Column("created_at", sa.String(32), nullable=False),
        sa.Column("erased_at", sa.String(32)),
    )
    op.create_index("ix_pairs_group_digest", "pairs", ["group_digest"])
    op.create_index("pairs_live", "pairs", ["erased_at", "id"])
    op.create_table(
        "pair_sources",
        sa.Column("pair_id", sa.String(64), sa.ForeignKey("pairs.id"), primary_key=True),
        sa.Column("source", sa.String(200), primary_key=True),
        sa.Column("subject", sa.String(200)),
        sa.Column("details", sa.Text()),
        sa.Column("import_id", sa.String(26)),
    )
    op.create_table(
        "judgements",
        sa.Column("id", sa.String(26), primary_key=True),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("once", sa.String(64), nullable=False, unique=True),
        sa.Column("pair_id", sa.String(64), sa.ForeignKey("pairs.id"), nullable=False),
        sa.Column("choice", sa.String(10), nullable=False),
        sa.Column("source", sa.String(200), nullable=False),
        sa.Column("labeler", sa.String(200)),
        sa.Column("kind", sa.String(10), nullable=False),
        sa.Column("strength", sa.Integer()),
        sa.Column("seconds", sa.Float()),
        sa.Column("shown", sa.String(2)),
        sa.Column("note", sa.Text()),
        sa.Column("reason", sa.Text()),
        sa.Column("guideline", sa.String(64)),
        sa.Column("consent", sa.String(40), nullable=False),
        sa.Column("acquisition_p", sa.Float()),
        sa.Column("cohort", sa.String(200)),
        sa.Column("submitted_at", sa.String(40)),
        sa.Column("supersedes", sa.String(26), sa.ForeignKey("judgements.id"), unique=True),
        sa.Column("actor", sa.String(200), nullable=False),
        sa.Column("import_id", sa.String(26)),
        sa.Column("created_at", sa.String(32), nullable=False),
    )
    op.create_index("ix_judgements_digest", "judgements", ["digest"])
    op.create_index("ix_judgements_import_id", "judgements", ["import_id"])
    op.create_index("ix_judgements_pair_id", "judgements", ["pair_id"])
    op.create_index("ix_judgements_source", "judgements", ["source"])
    op.create_index("judgements_by_labeler", "judgements", ["source", "labeler"])
    op.create_table(
        "comments",
        sa.Column("digest", sa.String(64), primary_key=True),
        sa.Column("prompt", sa.Text()),
        sa.Column("reply", sa.Text()),
        sa.Column("source", sa.String(200), nullable=False),
        sa.Column("labeler", sa.String(200)),
        sa.Column("signal", sa.String(40), nullable=False),
        sa.Column("value", sa.Float()),
        sa.Column("body", sa.Text()),
        sa.Column("consent", sa.String(40), nullable=False),
        sa.Column("kind", sa.String(10), nullable=False),
        sa.Column("prompt_digest", sa.String(64), nullable=False),
        sa.Column("import_id", sa.String(26)),
        sa.Column("actor", sa.String(200), nullable=False),
        sa.Column("created_at", sa.String(32), nullable=False),
    )
    op.create_index("ix_comments_prompt_digest", "comments", ["prompt_digest"])
    op.create_index("ix_comments_source", "comments", ["source"])
    op.create_table(
        "imports",
        sa.Column("id", sa.String(26), primary_key=True),
        sa.Column("source", sa.String(200), nullable=False),
        sa.Column("files", sa.Text(), nullable=False),
        sa.Column("content", sa.String(64), nullable=False),
        sa.Column("format", sa.String(40), nullable=False),
        sa.Column("rows", sa.BigInteger(), nullable=False),
        sa.Column("accepted", sa.BigInteger(), nullable=False),
        sa.Column("duplicates", sa.BigInteger(), nullable=False),
        sa.Column("rejected", sa.BigInteger(), nullable=False),
        sa.Column("details", sa.Text(), nullable=False),
        sa.Column("state", sa.String(10), nullable=False),
        sa.Column("actor", sa.String(200), nullable=False),
        sa.Column("created_at", sa.String(32), nullable=False),
    )
    op.create_index("ix_imports_content", "imports", ["content"])
    op.create_table(
        "rejected_rows",
        sa.Column("import_id", sa.String(26), sa.ForeignKey("imports.id"), primary_key=True),
        sa.Column("file", sa.String(500), primary_key=True),
        sa.Column("line", sa.BigInteger(), primary_key=True),
        sa.Column("reason", sa.Text(), nullable=False),
    )
    op.create_table(
        "tombstones",
        sa.Column("key", sa.String(64), primary_key=True),
        sa.Column("what", sa.String(20), nullable=False),
        sa.Column("created_at", sa.String(32), nullable=False),
    )


def _datasets_and_bases() -> None:
    op.create_table(
        "snapshots",
        sa.Column("name", sa.String(100), primary_key=True),
        sa.Column("number", sa.Integer(), primary_key=True),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("path", sa.String(500), nullable=False),
        sa.Column("rule", sa.Text(), nullable=False),
        sa.Column("n_pairs", sa.Integer(), nullable=False),
        sa.Column("n_train", sa.Integer(), nullable=False),
        sa.Column("n_test", sa.Integer(), nullable=False),
        sa.Column("actor", sa.String(200), nullable=False),
        sa.Column("created_at", sa.String(32), nullable=False),
    )
    op.create_index("ix_snapshots_digest", "snapshots", ["digest"])
    op.create_table(
        "bases",
        sa.Column("name", sa.String(100), primary_key=True),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("path", sa.String(1000), nullable=False),
        sa.Column("origin", sa.Text(), nullable=False),
        sa.Column("details", sa.Text(), nullable=False),
        sa.Column("actor", sa.String(200), nullable=False),
        sa.Column("created_at", sa.String(32), nullable=False),
    )


def _registry() -> None:
    op.create_table(
        "versions",
        sa.Column("digest", sa.String(64), primary_key=True),
        sa.Column("name", sa.String(100), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("role", sa.String(10), nullable=False),
        sa.Column("kind", sa.String(20), nullable=False),
        sa.Column("path", sa.String(500), nullable=False),
        sa.Column("base_digest", sa.String(64), nullable=False),
        sa.Column("snapshot_digest", sa.String(64)),
        sa.Column("manifest", sa.Text(), nullable=False),
        sa.Column("run_id", sa.String(26)),
        sa.Column("actor", sa.String(200), nullable=False),
        sa.Column("created_at", sa.String(32), nullable=False),
        sa.Column("retired_at", sa.String(32)),
        sa.UniqueConstraint("name", "number"),
    )
    op.create_table(
        "version_parents",
        sa.Column("digest", sa.String(64), sa.ForeignKey("versions.digest"), primary_key=True),
        sa.Column("parent", sa.String(64), primary_key=True),
        sa.Column("relation", sa.String(20), primary_key=True),
    )
    op.create_table(
        "alias_moves",
        sa.Column("alias", sa.String(201), primary_key=True),
        sa.Column("seq", sa.Integer(), primary_key=True),
        sa.Column("from_digest", sa.String(64)),
        sa.Column("to_digest", sa.String(64), sa.ForeignKey("versions.digest"), nullable=False),
        sa.Column("returns_to", sa.Integer()),
        sa.Column("action", sa.String(10), nullable=False),
        sa.Column("who", sa.String(200), nullable=False),
        sa.Column("why", sa.Text(), nullable=False),
        sa.Column("evidence", sa.Text(), nullable=False),
        sa.Column("at", sa.String(32), nullable=False),
    )
    op.create_table(
        "signoffs",
        sa.Column("id", sa.String(26), primary_key=True),
        sa.Column("version_digest", sa.String(64), sa.ForeignKey("versions.digest"), nullable=False),
        sa.Column("report_digest", sa.String(64), nullable=False),
        sa.Column("role", sa.String(40), nullable=False),
        sa.Column("who", sa.String(200), nullable=False),
        sa.Column("at", sa.String(32), nullable=False),
    )
    op.create_table(
        "reports",
        sa.Column("digest", sa.String(64), primary_key=True),
        sa.Column("kind", sa.String(40), nullable=False),
        sa.Column("title", sa.String(300), nullable=False),
        sa.Column("path", sa.String(500), nullable=False),
        sa.Column("figures", sa.Text(), nullable=False),
        sa.Column("actor", sa.String(200), nullable=False),
        sa.Column("created_at", sa.String(32), nullable=False),
    )


def _people_and_work() -> None:
    op.create_table(
        "runs",
        sa.Column("id", sa.String(26), primary_key=True),
        sa.Column("kind", sa.String(20), nullable=False),
        sa.Column("name", sa.String(100), nullable=False),
        sa.Column("state", sa.String(12), nullable=False),
        sa.Column("folder", sa.String(500), nullable=False),
        sa.Column("settings", sa.Text(), nullable=False),
        sa.Column("settings_digest", sa.String(64), nullable=False),
        sa.Column("version_digest", sa.String(64)),
        sa.Column("error", sa.Text()),
        sa.Column("actor", sa.String(200), nullable=False),
        sa.Column("created_at", sa.String(32), nullable=False),
        sa.Column("ended_at", sa.String(32)),
    )
    op.create_index("ix_runs_name", "runs", ["name"])
    op.create_table(
        "files",
        sa.Column("path", sa.String(500), primary_key=True),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("n_bytes", sa.BigInteger(), nullable=False),
    )
    op.create_table(
        "tokens",
        sa.Column("digest", sa.String(64), primary_key=True),
        sa.Column("actor", sa.String(200), nullable=False),
        sa.Column("scopes", sa.String(200), nullable=False),
        sa.Column("created_at", sa.String(32), nullable=False),
        sa.Column("expires_at", sa.String(32)),
        sa.Column("revoked_at", sa.String(32)),
    )
    op.create_table(
        "leases",
        sa.Column("id", sa.String(26), primary_key=True),
        sa.Column("pair_id", sa.String(64), sa.ForeignKey("pairs.id"), nullable=False),
        sa.Column("labeler", sa.String(200), nullable=False),
        sa.Column("shown", sa.String(2), nullable=False),
        sa.Column("acquisition_p", sa.Float()),
        sa.Column("created_at", sa.String(32), nullable=False),
        sa.Column("expires_at", sa.String(32), nullable=False),
        sa.Column("judgement_id", sa.String(26)),
    )
    op.create_index("leases_by_labeler", "leases", ["labeler", "expires_at"])
    op.create_index("leases_by_pair", "leases", ["pair_id"])
    op.create_table(
        "audit",
        sa.Column("seq", sa.BigInteger(), primary_key=True, autoincrement=False),
        sa.Column("at", sa.String(32), nullable=False),
        sa.Column("actor", sa.String(200), nullable=False),
        sa.Column("action", sa.String(60), nullable=False),
        sa.Column("subject", sa.String(300), nullable=False),
        sa.Column("details", sa.Text(), nullable=False),
        sa.Column("previous", sa.String(64), nullable=False),
        sa.Column("hash", sa.String(64), nullable=False),
    )

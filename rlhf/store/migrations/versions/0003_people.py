"""Accounts with roles, invitations, sessions, and the texts that people agree to.

Whoever has a token gets an account with the roles of its scopes.
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

_ROLE_OF = {"label": "labeler", "evaluate": "evaluator", "operate": "operator"}
_SCOPES_OF = {"operate": ("evaluate", "promote", "roll_back")}


def upgrade() -> None:
    _tables()
    _accounts_of_tokens()


def _tables() -> None:
    op.create_table(
        "accounts",
        sa.Column("name", sa.String(200), primary_key=True),
        sa.Column("roles", sa.String(200), nullable=False),
        sa.Column("created_at", sa.String(32), nullable=False),
        sa.Column("disabled_at", sa.String(32)),
    )
    op.create_table(
        "invitations",
        sa.Column("digest", sa.String(64), primary_key=True),
        sa.Column("roles", sa.String(200), nullable=False),
        sa.Column("name", sa.String(200)),
        sa.Column("actor", sa.String(200), nullable=False),
        sa.Column("created_at", sa.String(32), nullable=False),
        sa.Column("expires_at", sa.String(32), nullable=False),
        sa.Column("used_at", sa.String(32)),
        sa.Column("used_by", sa.String(200)),
        sa.Column("revoked_at", sa.String(32)),
    )
    op.create_table(
        "sessions",
        sa.Column("digest", sa.String(64), primary_key=True),
        sa.Column("account", sa.String(200), nullable=False),
        sa.Column("token_digest", sa.String(64)),
        sa.Column("created_at", sa.String(32), nullable=False),
        sa.Column("expires_at", sa.String(32), nullable=False),
        sa.Column("ended_at", sa.String(32)),
    )
    op.create_index("ix_sessions_account", "sessions", ["account"])
    op.create_table(
        "texts",
        sa.Column("kind", sa.String(20), primary_key=True),
        sa.Column("number", sa.Integer(), primary_key=True),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("scopes", sa.String(40), nullable=False),
        sa.Column("basis", sa.String(40), nullable=False),
        sa.Column("actor", sa.String(200), nullable=False),
        sa.Column("created_at", sa.String(32), nullable=False),
    )
    op.create_index("ix_texts_digest", "texts", ["digest"])
    op.create_table(
        "agreements",
        sa.Column("id", sa.String(26), primary_key=True),
        sa.Column("account", sa.String(200), nullable=False),
        sa.Column("action", sa.String(10), nullable=False),
        sa.Column("guideline", sa.String(64), nullable=False),
        sa.Column("consent", sa.String(64), nullable=False),
        sa.Column("scopes", sa.String(40), nullable=False),
        sa.Column("at", sa.String(32), nullable=False),
    )
    op.create_index("ix_agreements_account", "agreements", ["account"])


def _accounts_of_tokens() -> None:
    """Each token's owner gets the roles of its scopes; the scope `operate` becomes the permissions that it stood for."""
    connection = op.get_bind()
    tokens = sa.table("tokens", sa.column("digest"), sa.column("actor"), sa.column("scopes"), sa.column("created_at"))
    accounts = sa.table("accounts", sa.column("name"), sa.column("roles"), sa.column("created_at"))
    roles: dict[str, set[str]] = {}
    since: dict[str, str] = {}
    for row in connection.execute(sa.select(tokens).order_by(tokens.c.created_at)).all():
        scopes = row.scopes.split(",")
        roles.setdefault(row.actor, set()).update(_ROLE_OF[scope] for scope in scopes if scope in _ROLE_OF)
        since.setdefault(row.actor, row.created_at)
        held = ",".join(sorted({new for scope in scopes for new in _SCOPES_OF.get(scope, (scope,))}))
        if held != row.scopes:
            connection.execute(tokens.update().values(scopes=held).where(tokens.c.digest == row.digest))
    for name, own in roles.items():
        if own:
            connection.execute(accounts.insert().values(name=name, roles=",".join(sorted(own)), created_at=since[name]))

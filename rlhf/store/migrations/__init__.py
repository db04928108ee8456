"""Numbered schema migrations (Alembic); `database.upgrade` runs what a workspace lacks when it is opened."""

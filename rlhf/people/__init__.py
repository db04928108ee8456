"""People: who is asking, and what they may do.

Takes: a token. Gives: an actor with scopes, or a refusal.
Writes: the table `tokens` (a token's SHA-256, never the token) and audit entries.
Never: keeps, prints or logs a token after it was made; decides what a scope opens (each door does).
"""

from rlhf.people.tokens import SCOPES, Actor, Token, actor_of, issue_token, list_tokens, revoke

__all__ = ["SCOPES", "Actor", "Token", "actor_of", "issue_token", "list_tokens", "revoke"]

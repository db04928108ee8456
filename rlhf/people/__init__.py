"""People: who is asking, and what they may do.

Takes: a token, an invitation's code or a session's word; the texts that people agree to. Gives: an actor with permissions, or a
refusal. Writes: accounts, tokens, invitations, sessions (the SHA-256 of each word, never the word), texts, agreements, audit
entries. Never: asks for an e-mail or a name; keeps, prints or logs a secret after it was made; decides what a permission opens
(each door does).
"""

from rlhf.people.accounts import Account, add, disable, list_accounts
from rlhf.people.invitations import Invitation, accept_in, first_admin, invite, list_invitations, look
from rlhf.people.leaving import Revoked, revoke
from rlhf.people.roles import PERMISSIONS, ROLES
from rlhf.people.sessions import actor_of, begin, begin_in, end
from rlhf.people.texts import (
    Agreement,
    Text,
    agree,
    agree_in,
    agreement_of,
    current_texts,
    publish_text,
    took_back,
    withdraw,
    withdrawn,
)
from rlhf.people.tokens import Actor, Token, is_token, issue_token, list_tokens

__all__ = [
    "PERMISSIONS",
    "ROLES",
    "Account",
    "Actor",
    "Agreement",
    "Invitation",
    "Revoked",
    "Text",
    "Token",
    "accept_in",
    "actor_of",
    "add",
    "agree",
    "agree_in",
    "agreement_of",
    "begin",
    "begin_in",
    "current_texts",
    "disable",
    "end",
    "first_admin",
    "invite",
    "is_token",
    "issue_token",
    "list_accounts",
    "list_invitations",
    "list_tokens",
    "look",
    "publish_text",
    "revoke",
    "took_back",
    "withdraw",
    "withdrawn",
]

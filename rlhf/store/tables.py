"""The schema. Rows are appended; what changes over time is an entry in a log, never an update of history.

Exceptions, each for a reason: text columns are nulled by erasure, a run's and a job's state and a lease are live,
`retired_at` is a mark. Times are ISO 8601 text in UTC, JSON is text: both read the same on SQLite and PostgreSQL.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)

metadata = MetaData()

pairs = Table(
    "pairs",
    metadata,
    Column("id", String(64), primary_key=True),  # digest of prompt and set of replies
    Column("prompt", Text),  # JSON list of messages; null = erased
    Column("reply_a", Text),
    Column("reply_b", Text),
    Column("group_digest", String(64), nullable=False, index=True),  # first user turn, normalised
    Column("created_at", String(32), nullable=False),
    Column("erased_at", String(32)),
    Index("pairs_live", "erased_at", "id"),  # draws and counts pass over the texts
)

pair_sources = Table(
    "pair_sources",
    metadata,
    Column("pair_id", String(64), ForeignKey("pairs.id"), primary_key=True),
    Column("source", String(200), primary_key=True),
    Column("subject", String(200)),  # the person whose words the prompt holds, where known
    Column("details", Text),  # JSON: gold, topic, ids in the source; never a vote
    Column("import_id", String(26)),
)

judgements = Table(
    "judgements",
    metadata,
    Column("id", String(26), primary_key=True),
    Column("digest", String(64), nullable=False, index=True),
    # One labeler's same choice again is a duplicate: digest of (pair, source, labeler, choice, what it supersedes).
    Column("once", String(64), nullable=False, unique=True),
    Column("pair_id", String(64), ForeignKey("pairs.id"), nullable=False, index=True),
    Column("choice", String(10), nullable=False),
    Column("source", String(200), nullable=False, index=True),
    Column("labeler", String(200)),
    Column("kind", String(10), nullable=False),
    Column("strength", Integer),
    Column("seconds", Float),
    Column("shown", String(2)),
    Column("note", Text),
    Column("reason", Text),
    Column("guideline", String(64)),
    Column("consent", String(40), nullable=False),  # scopes, sorted, comma-separated; '' = none
    Column("acquisition_p", Float),
    Column("cohort", String(200)),
    Column("submitted_at", String(40)),
    # Which judgement this one replaces; a choice of None can't be: an undo is a judgement of choice 'skip' with reason 'undo'.
    Column("supersedes", String(26), ForeignKey("judgements.id"), unique=True),
    Column("actor", String(200), nullable=False),
    Column("import_id", String(26), index=True),
    Column("created_at", String(32), nullable=False),
    Index("judgements_by_labeler", "source", "labeler"),
)

comments = Table(
    "comments",
    metadata,
    Column("digest", String(64), primary_key=True),
    Column("prompt", Text),
    Column("reply", Text),
    Column("source", String(200), nullable=False, index=True),
    Column("labeler", String(200)),
    Column("signal", String(40), nullable=False),
    Column("value", Float),
    Column("body", Text),
    Column("consent", String(40), nullable=False),
    Column("kind", String(10), nullable=False),
    Column("prompt_digest", String(64), nullable=False, index=True),
    Column("import_id", String(26)),
    Column("actor", String(200), nullable=False),
    Column("created_at", String(32), nullable=False),
)

imports = Table(
    "imports",
    metadata,
    Column("id", String(26), primary_key=True),
    Column("source", String(200), nullable=False),
    Column("files", Text, nullable=False),  # JSON: [{"name", "sha256", "bytes"}]
    Column("content", String(64), nullable=False, index=True),  # digest over the files' sha256
    Column("format", String(40), nullable=False),
    Column("rows", BigInteger, nullable=False),
    Column("accepted", BigInteger, nullable=False),
    Column("duplicates", BigInteger, nullable=False),
    Column("rejected", BigInteger, nullable=False),
    Column("details", Text, nullable=False),  # JSON: pairs, comments, masked
    Column("state", String(10), nullable=False),  # open (cut short), done, refused
    Column("actor", String(200), nullable=False),
    Column("created_at", String(32), nullable=False),
)

rejected_rows = Table(
    "rejected_rows",
    metadata,
    Column("import_id", String(26), ForeignKey("imports.id"), primary_key=True),
    Column("file", String(500), primary_key=True),
    Column("line", BigInteger, primary_key=True),
    Column("reason", Text, nullable=False),
)

tombstones = Table(
    "tombstones",
    metadata,
    Column("key", String(64), primary_key=True),  # keyed digest (workspace key): refuses a re-import, tells nothing
    Column("what", String(20), nullable=False),
    Column("created_at", String(32), nullable=False),
)

snapshots = Table(
    "snapshots",
    metadata,
    Column("name", String(100), primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("digest", String(64), nullable=False, index=True),
    Column("path", String(500), nullable=False),  # under the artifact root
    Column("rule", Text, nullable=False),
    Column("n_pairs", Integer, nullable=False),
    Column("n_train", Integer, nullable=False),
    Column("n_test", Integer, nullable=False),
    Column("actor", String(200), nullable=False),
    Column("created_at", String(32), nullable=False),
)

suites = Table(
    "suites",
    metadata,
    Column("name", String(100), primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("digest", String(64), nullable=False, index=True),
    Column("path", String(500), nullable=False),  # under the artifact root
    Column("held_out", Integer, nullable=False),  # 1 = nothing that is measured on it may have been trained on it
    Column("n_pairs", Integer, nullable=False),
    Column("n_prompts", Integer, nullable=False),  # rows without replies
    Column("origin", Text, nullable=False),  # JSON: files with their digests and format, or snapshot and side
    Column("actor", String(200), nullable=False),
    Column("created_at", String(32), nullable=False),
)

bases = Table(
    "bases",
    metadata,
    Column("name", String(100), primary_key=True),
    Column("digest", String(64), nullable=False),
    Column("path", String(1000), nullable=False),  # relative to the workspace, or absolute
    Column("origin", Text, nullable=False),  # JSON: how it came in (dir, hub id and revision, gguf digest)
    Column("details", Text, nullable=False),  # JSON: architecture, layers, hidden size, tokenizer and template digests
    Column("actor", String(200), nullable=False),
    Column("created_at", String(32), nullable=False),
)

versions = Table(
    "versions",
    metadata,
    Column("digest", String(64), primary_key=True),
    Column("name", String(100), nullable=False),
    Column("number", Integer, nullable=False),
    Column("role", String(10), nullable=False),
    Column("kind", String(20), nullable=False),
    Column("path", String(500), nullable=False),
    Column("base_digest", String(64), nullable=False),
    Column("snapshot_digest", String(64)),
    Column("manifest", Text, nullable=False),
    Column("run_id", String(26)),
    Column("actor", String(200), nullable=False),
    Column("created_at", String(32), nullable=False),
    Column("retired_at", String(32)),
    UniqueConstraint("name", "number"),
)

version_parents = Table(
    "version_parents",
    metadata,
    Column("digest", String(64), ForeignKey("versions.digest"), primary_key=True),
    Column("parent", String(64), primary_key=True),
    Column("relation", String(20), primary_key=True),  # from, reward, member, calibrates
)

alias_moves = Table(
    "alias_moves",
    metadata,
    Column("alias", String(201), primary_key=True),  # name@alias
    Column("seq", Integer, primary_key=True),  # the key is the compare-and-set: two movers can't both take seq n
    Column("from_digest", String(64)),
    Column("to_digest", String(64), ForeignKey("versions.digest"), nullable=False),
    # Which entry this one returns to (rollback), so that repeated rollbacks walk further back.
    Column("returns_to", Integer),
    Column("action", String(10), nullable=False),
    Column("who", String(200), nullable=False),
    Column("why", Text, nullable=False),
    Column("evidence", Text, nullable=False),
    Column("at", String(32), nullable=False),
)

alias_gates = Table(
    "alias_gates",
    metadata,
    Column("alias", String(201), primary_key=True),  # name@alias
    Column("seq", Integer, primary_key=True),
    Column("digest", String(64)),  # of the rules
    Column("rules", Text),  # JSON; null = from here on no gate
    Column("who", String(200), nullable=False),
    Column("why", Text, nullable=False),
    Column("at", String(32), nullable=False),
)

# What was decided about aliases and versions, beside what moved them; reviews of it, too. Never changed: what is taken back gets a
# row that names it.
decisions = Table(
    "decisions",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("kind", String(12), nullable=False),  # promotion, rollback, gate, retirement, review
    Column("alias", String(201)),  # name@alias
    Column("alias_seq", Integer),  # the entry of the alias's log, in the same transaction
    Column("from_digest", String(64)),
    Column("to_digest", String(64)),
    Column("takes_back", Integer, index=True),  # the decision whose move a rollback undid
    Column("review_days", Integer),  # of the gate's class: so long until another look is due
    Column("content", Text, nullable=False),  # JSON: figures, reports, sign-offs, data behind it
    Column("digest", String(64), nullable=False),  # over the whole row
    Column("who", String(200), nullable=False),
    Column("why", Text, nullable=False),
    Column("at", String(32), nullable=False),
    Index("decisions_by_alias", "alias", "alias_seq"),
)

signoffs = Table(
    "signoffs",
    metadata,
    Column("id", String(26), primary_key=True),
    Column("version_digest", String(64), ForeignKey("versions.digest"), nullable=False),
    Column("report_digest", String(64), nullable=False),
    Column("role", String(40), nullable=False),
    Column("who", String(200), nullable=False),
    Column("at", String(32), nullable=False),
)

reports = Table(
    "reports",
    metadata,
    Column("digest", String(64), primary_key=True),
    Column("kind", String(40), nullable=False),
    Column("title", String(300), nullable=False),
    Column("path", String(500), nullable=False),
    Column("figures", Text, nullable=False),
    Column("actor", String(200), nullable=False),
    Column("created_at", String(32), nullable=False),
)

runs = Table(
    "runs",
    metadata,
    Column("id", String(26), primary_key=True),
    Column("kind", String(20), nullable=False),
    Column("name", String(100), nullable=False, index=True),
    Column("state", String(12), nullable=False),  # running, done, failed, interrupted, cancelled
    Column("folder", String(500), nullable=False),
    Column("settings", Text, nullable=False),
    Column("settings_digest", String(64), nullable=False),
    Column("version_digest", String(64)),
    Column("error", Text),
    Column("actor", String(200), nullable=False),
    Column("created_at", String(32), nullable=False),
    Column("ended_at", String(32)),
)

jobs = Table(
    "jobs",
    metadata,
    Column("id", String(26), primary_key=True),
    Column("words", Text, nullable=False),  # JSON list: a command line without `rlhf` and `--workspace`
    Column("cwd", String(1000), nullable=False),  # where its relative paths start
    Column("state", String(12), nullable=False, index=True),  # queued, running, done, failed, cancelled
    Column("folder", String(500), nullable=False),  # in the workspace: `log` and `out`
    # Who runs it: the process's start tells it from a later one with the same number.
    Column("host", String(200)),
    Column("pid", Integer),
    Column("pid_started", String(80)),
    Column("run_id", String(26)),
    Column("exit_status", Integer),
    Column("error", Text),
    Column("actor", String(200), nullable=False),
    Column("created_at", String(32), nullable=False),
    Column("started_at", String(32)),
    Column("ended_at", String(32)),
)

files = Table(
    "files",
    metadata,
    Column("path", String(500), primary_key=True),  # under the artifact root
    Column("sha256", String(64), nullable=False),
    Column("n_bytes", BigInteger, nullable=False),
)

tokens = Table(
    "tokens",
    metadata,
    Column("digest", String(64), primary_key=True),  # SHA-256 of the token; the token itself is shown once
    Column("actor", String(200), nullable=False),
    Column("scopes", String(200), nullable=False),
    Column("created_at", String(32), nullable=False),
    Column("expires_at", String(32)),
    Column("revoked_at", String(32)),
)

accounts = Table(
    "accounts",
    metadata,
    Column("name", String(200), primary_key=True),  # a pseudonym
    Column("roles", String(200), nullable=False),
    Column("created_at", String(32), nullable=False),
    Column("disabled_at", String(32)),
)

invitations = Table(
    "invitations",
    metadata,
    Column("digest", String(64), primary_key=True),  # SHA-256 of the code; the code itself is shown once
    Column("roles", String(200), nullable=False),
    Column("name", String(200)),
    Column("actor", String(200), nullable=False),
    Column("created_at", String(32), nullable=False),
    Column("expires_at", String(32), nullable=False),
    Column("used_at", String(32)),
    Column("used_by", String(200)),
    Column("revoked_at", String(32)),
)

sessions = Table(
    "sessions",
    metadata,
    Column("digest", String(64), primary_key=True),  # SHA-256 of the cookie's word
    Column("account", String(200), nullable=False, index=True),
    Column("token_digest", String(64)),  # of the token that it ends with
    Column("created_at", String(32), nullable=False),
    Column("expires_at", String(32), nullable=False),
    Column("ended_at", String(32)),
)

texts = Table(
    "texts",
    metadata,
    Column("kind", String(20), primary_key=True),  # guideline, consent
    Column("number", Integer, primary_key=True),
    Column("digest", String(64), nullable=False, index=True),
    Column("body", Text, nullable=False),
    Column("scopes", String(40), nullable=False),
    Column("basis", String(40), nullable=False),
    Column("actor", String(200), nullable=False),
    Column("created_at", String(32), nullable=False),
)

agreements = Table(
    "agreements",
    metadata,
    Column("id", String(26), primary_key=True),
    Column("account", String(200), nullable=False, index=True),
    Column("action", String(10), nullable=False),  # agree, withdraw
    Column("guideline", String(64), nullable=False),
    Column("consent", String(64), nullable=False),
    Column("scopes", String(40), nullable=False),
    Column("at", String(32), nullable=False),
)

leases = Table(
    "leases",
    metadata,
    Column("id", String(26), primary_key=True),  # the fencing token: a submit names it
    Column("pair_id", String(64), ForeignKey("pairs.id"), nullable=False),
    Column("labeler", String(200), nullable=False),
    Column("shown", String(2), nullable=False),
    Column("acquisition_p", Float),
    Column("created_at", String(32), nullable=False),
    Column("expires_at", String(32), nullable=False),
    Column("judgement_id", String(26)),  # set once, when the lease is used; of a check, the check's id
    Column("kind", String(10), nullable=False, server_default="label"),  # label, review, gold, repeat
    Index("leases_by_pair", "pair_id"),
    Index("leases_by_labeler", "labeler", "expires_at"),
)

pair_worths = Table(
    "pair_worths",
    metadata,
    Column("pair_id", String(64), ForeignKey("pairs.id"), primary_key=True),
    Column("p_a", Float),  # null = the reward can't score the pair
    # What a vote on it is expected to bring, each in [0, 1]: see labeling/choosing.py.
    Column("doubt", Float),
    Column("disagreement", Float, nullable=False),
    Column("coverage", Float, nullable=False),
    Column("effort_s", Float, nullable=False),
    Column("by", String(64), nullable=False),  # digest of the reward version
    Column("n_votes", Integer, nullable=False),  # that the live reward took in beyond that version
    Column("updated_at", String(32), nullable=False),
)

label_rules = Table(
    "label_rules",
    metadata,
    Column("seq", Integer, primary_key=True, autoincrement=False),
    Column("rules", Text, nullable=False),  # JSON
    Column("who", String(200), nullable=False),
    Column("why", Text, nullable=False),
    Column("at", String(32), nullable=False),
)

gold = Table(
    "gold",
    metadata,
    Column("pair_id", String(64), ForeignKey("pairs.id"), primary_key=True),
    Column("seq", Integer, primary_key=True, autoincrement=False),
    Column("choice", String(10)),  # what an expert says; null = from here on no gold pair
    Column("who", String(200), nullable=False),
    Column("at", String(32), nullable=False),
)

# Answers to pairs with a known answer, and to a labeler's own earlier pairs: they are about the labeler, and no judgements.
checks = Table(
    "checks",
    metadata,
    Column("labeler", String(200), primary_key=True),
    Column("pair_id", String(64), ForeignKey("pairs.id"), primary_key=True),
    Column("kind", String(10), primary_key=True),  # gold, repeat
    Column("seq", Integer, primary_key=True, autoincrement=False),  # the last one is in force
    Column("id", String(26), nullable=False, unique=True),
    Column("lease_id", String(26), nullable=False),
    Column("shown", String(2), nullable=False),
    Column("choice", String(10), nullable=False),
    Column("was_right", Integer),  # as the gold, or as the labeler's own answer; null = a skip or an undo
    Column("seconds", Float),
    Column("note", Text),
    Column("reason", Text),
    Column("at", String(32), nullable=False),
    Index("checks_by_time", "labeler", "at"),
)

pauses = Table(
    "pauses",
    metadata,
    Column("labeler", String(200), primary_key=True),
    Column("seq", Integer, primary_key=True, autoincrement=False),
    Column("action", String(10), nullable=False),  # pause, appeal, resume, uphold
    Column("who", String(200), nullable=False),
    Column("why", Text, nullable=False),
    Column("at", String(32), nullable=False),
)

items = Table(
    "items",
    metadata,
    Column("id", String(26), primary_key=True),
    Column(
        "once", String(64), nullable=False, unique=True
    ),  # the same report again, or a comment collected again, is one
    Column("channel", String(200), nullable=False),  # where it came in: web, command line, or a comment's source
    Column("about", String(10), nullable=False),  # pair, comment, text
    Column("pair_id", String(64), ForeignKey("pairs.id"), index=True),
    Column("comment", String(64), ForeignKey("comments.digest"), index=True),  # its words are read there alone
    Column("shown", String(2)),  # on which sides who reported the pair saw it: what their words mean by the first reply
    Column("body", Text),  # null = none, or erased
    Column("given_by", String(200)),
    Column("rule", String(60)),  # which one made the first guess of the kind; null = a person said it
    Column("actor", String(200), nullable=False),
    Column("created_at", String(32), nullable=False),
    Index("items_by_giver", "given_by", "created_at"),
)

item_events = Table(
    "item_events",
    metadata,
    Column("item_id", String(26), ForeignKey("items.id"), primary_key=True),
    Column("seq", Integer, primary_key=True),  # the key is the compare-and-set, as an alias's
    Column("action", String(10), nullable=False),  # set, hold, clear, link
    Column("pair_id", String(64), index=True),  # of a hold: which pair stays out; null = none yet
    Column("link", String(200)),  # of a link: a snapshot or a version by name
    # The item as it is from here on, so that its state is its last entry.
    Column("kind", String(10), nullable=False),
    Column("risk", String(10), nullable=False),
    Column("impact", Integer),
    Column("effort", Integer),
    Column("status", String(12), nullable=False),
    Column("owner", String(200)),
    Column("who", String(200), nullable=False),
    Column("why", Text),
    Column("at", String(32), nullable=False),
)

rollouts = Table(
    "rollouts",
    metadata,
    Column("id", String(26), primary_key=True),
    Column("alias", String(201), nullable=False, index=True),  # name@alias
    Column("kind", String(10), nullable=False),  # ab, canary, shadow, bandit
    Column("alias_seq", Integer, nullable=False),  # the alias's last entry at the start: any later one ends the rollout
    Column("spec", Text, nullable=False),  # JSON, the arms by digest
    Column("who", String(200), nullable=False),
    Column("why", Text, nullable=False),
    Column("created_at", String(32), nullable=False),
)

rollout_events = Table(
    "rollout_events",
    metadata,
    Column("rollout_id", String(26), ForeignKey("rollouts.id"), primary_key=True),
    Column("seq", Integer, primary_key=True),  # the key is the compare-and-set, as an alias's
    Column("kind", String(12), nullable=False),  # start, begin, advance, weigh, pause, resume, complete, roll_back
    Column("status", String(12), nullable=False, index=True),  # pending, running, paused, completed, rolled_back
    Column("state", Text, nullable=False),  # JSON: the rollout as it is from here on, its buckets too
    Column("who", String(200), nullable=False),
    Column("why", Text, nullable=False),
    Column("at", String(32), nullable=False),
)

# One reply each, whoever saw it. Words are kept only where consent says so, and masked.
exposures = Table(
    "exposures",
    metadata,
    Column("request_id", String(64), primary_key=True),
    Column("at", String(32), nullable=False, index=True),
    Column("model_asked", String(300), nullable=False),
    Column("name", String(100), nullable=False),
    Column("alias", String(201)),  # null = a version was named
    Column("rollout_id", String(26)),  # null = none, or its audience left this request out
    Column("rollout_seq", Integer),  # the rollout's entry that the weights were of
    Column("arm", String(120)),
    Column("rule", String(12), nullable=False),  # direct, alias, audience, toggle, weights, shadow
    Column("digest", String(64)),  # null = the bare base, asked for by its name
    Column("propensity", Float, nullable=False),
    Column("reason", Text, nullable=False),  # JSON
    Column("unit", String(64)),  # keyed pseudonym of the user, else the session; null = neither was said
    Column("latency_s", Float),
    Column("first_token_s", Float),
    Column("tokens_in", Integer),
    Column("tokens_out", Integer),
    Column("finish", String(20)),
    Column("status", String(12), nullable=False),  # ok, error, cancelled, shed
    Column("refusal", Integer),  # 1 = the reply declines; null = not looked at
    Column("length_chars", Integer),
    Column("reward", Float),
    Column("prompt", Text),  # JSON list of messages, masked; null = no consent, or erased
    Column("reply", Text),
    Column("consent", String(40), nullable=False),  # scopes, sorted, comma-separated; '' = none
    Column("shadow_of", String(64)),  # the request whose reply was shown
    Column("seed", BigInteger),
    Column("cohort", String(60)),  # of the request's context; null = none was said
    Column("served_pair_id", String(64)),
    Column("erased_at", String(32)),
    Index("exposures_by_rollout", "rollout_id", "at"),
    Index("exposures_by_unit", "unit"),
)

outcomes = Table(
    "outcomes",
    metadata,
    Column("id", String(26), primary_key=True),
    Column("request_id", String(64), ForeignKey("exposures.request_id"), nullable=False, index=True),
    Column("at", String(32), nullable=False),
    Column("kind", String(10), nullable=False),  # thumb, choice, comment, metric
    Column("name", String(60), nullable=False),
    Column("value", Float),
    Column("note", Text),  # masked; null = none, or erased
    Column("unit", String(64)),
    Column("state", String(12), nullable=False),  # quarantined, sampled, confirmed, refused
)

LATENCY_BINS = 32

# What was served, summed as it is written: dashboards read these and never the exposures. Shadows aren't in here.
served_sums = Table(
    "served_sums",
    metadata,
    Column("bucket", String(16), primary_key=True),  # UTC to the minute, the first of five
    Column("alias", String(201), primary_key=True),  # '' = a version was named
    Column("digest", String(64), primary_key=True),  # '' = the bare base
    Column("cohort", String(60), primary_key=True),  # '' = none was said
    Column("n", BigInteger, nullable=False),
    Column("ok", BigInteger, nullable=False),
    Column("errors", BigInteger, nullable=False),
    Column("shed", BigInteger, nullable=False),
    Column("tokens_out", BigInteger, nullable=False),
    Column("latency_s", Float, nullable=False),  # of those that ended ok, like its bins
    *(Column(f"bin_{k:02}", BigInteger, nullable=False) for k in range(LATENCY_BINS)),
    Column("looked_at", BigInteger, nullable=False),  # replies of which it is known whether they decline
    Column("refusals", BigInteger, nullable=False),
    Column("thumbs", BigInteger, nullable=False),
    Column("thumbs_up", Float, nullable=False),
    Column("rewards", BigInteger, nullable=False),
    Column("reward", Float, nullable=False),
    Column("reward_squared", Float, nullable=False),
)

# How long a move took from its entry to a router's table; a router is one process that serves.
effects = Table(
    "effects",
    metadata,
    Column("subject", String(201), primary_key=True),  # an alias, or a rollout's id
    Column("seq", Integer, primary_key=True),
    Column("router", String(26), primary_key=True),
    Column("action", String(12), nullable=False),
    Column("seconds", Float, nullable=False),
    Column("how", String(10), nullable=False),  # told (same process), notified, polled
    Column("at", String(32), nullable=False),
)

audit = Table(
    "audit",
    metadata,
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("at", String(32), nullable=False),
    Column("actor", String(200), nullable=False),
    Column("action", String(60), nullable=False),
    Column("subject", String(300), nullable=False),
    Column("details", Text, nullable=False),
    Column("previous", String(64), nullable=False),
    Column("hash", String(64), nullable=False),
)

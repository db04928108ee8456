"""What was served is summed as it is written, and a request's cohort is kept."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"

_WHOLE = ("n", "ok", "errors", "shed", "tokens_out", "looked_at", "refusals", "thumbs", "rewards")
_BINS = 32


def upgrade() -> None:
    op.add_column("exposures", sa.Column("cohort", sa.String(60)))
    op.create_table(
        "served_sums",
        sa.Column("bucket", sa.String(16), primary_key=True),
        sa.Column("alias", sa.String(201), primary_key=True),
        sa.Column("digest", sa.String(64), primary_key=True),
        sa.Column("cohort", sa.String(60), primary_key=True),
        *(sa.Column(name, sa.BigInteger(), nullable=False) for name in _WHOLE),
        *(sa.Column(f"bin_{k:02}", sa.BigInteger(), nullable=False) for k in range(_BINS)),
        *(
            sa.Column(name, sa.Float(), nullable=False)
            for name in ("latency_s", "thumbs_up", "reward", "reward_squared")
        ),
    )
    op.execute(_sums_of_what_is_there())


def _sums_of_what_is_there() -> str:
    def told(kind: str) -> str:
        return (
            "(select o.value from outcomes o where o.request_id = e.request_id and o.state <> 'refused' "
            f"and {kind} order by o.id desc limit 1)"
        )

    edges = [0.0, *(0.01 * 1.35**k for k in range(_BINS - 1)), 1e300]
    columns = {
        "bucket": "minute",
        "alias": "alias",
        "digest": "digest",
        "cohort": "''",
        "n": "count(*)",
        "ok": "sum(is_ok)",
        "errors": "sum(case when status = 'error' then 1 else 0 end)",
        "shed": "sum(case when status = 'shed' then 1 else 0 end)",
        "tokens_out": "sum(coalesce(tokens_out, 0))",
        "looked_at": "count(refusal)",
        "refusals": "sum(coalesce(refusal, 0))",
        "thumbs": "count(thumb)",
        "rewards": "count(reward)",
        **{
            f"bin_{k:02}": f"sum(case when is_ok = 1 and latency_s >= {edges[k]!r} and latency_s < {edges[k + 1]!r} "
            "then 1 else 0 end)"
            for k in range(_BINS)
        },
        "latency_s": "sum(is_ok * coalesce(latency_s, 0.0))",
        "thumbs_up": "sum(coalesce(thumb, 0.0))",
        "reward": "sum(coalesce(reward, 0.0))",
        "reward_squared": "sum(coalesce(reward * reward, 0.0))",
    }
    rows = (
        "select substr(e.at, 1, 15) || case when substr(e.at, 16, 1) >= '5' then '5' else '0' end as minute, "
        "coalesce(e.alias, '') as alias, coalesce(e.digest, '') as digest, e.status, e.tokens_out, e.refusal, e.latency_s, "
        "case when e.status = 'ok' then 1 else 0 end as is_ok, "
        f"{told('''o.kind = 'thumb' ''')} as thumb, "
        f"coalesce(e.reward, {told('''o.kind = 'metric' and o.name = 'reward' ''')}) as reward "
        "from exposures e where e.rule <> 'shadow'"
    )
    return (
        f"insert into served_sums ({', '.join(columns)}) select {', '.join(columns.values())} from ({rows}) one "
        "group by minute, alias, digest"
    )

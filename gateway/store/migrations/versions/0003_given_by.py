"""By which API key rights were given: keys, roles, and the call to its creator.

What works goes on working. A short key is good for what its user may do in the call; before, it made them a host by itself. Whoever had one
made for them, by the application or a host, becomes a cohost, who may publish; keys that people made for themselves rest on their role.
`livestream` as it came admits signed-in users; one that somebody has changed stays as it is.
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_TABLES = ("calls", "members", "users", "stream_keys")
_FORMER_ANONYMOUS = ["join-call", "list-streams", "read-call"]


def upgrade() -> None:
    for table in _TABLES:
        op.add_column(table, sa.Column("api_key", sa.String(length=64), server_default="", nullable=False))
    _keep_keys_good()
    _admit_users_only()


def _keep_keys_good() -> None:
    columns = ("call_cid", "user_id", "role", "created_at", "updated_at")
    members = sa.table("members", *map(sa.column, columns), sa.column("custom", sa.JSON))
    calls = sa.table("calls", *map(sa.column, ("cid", "created_by_id", "ended_at")))
    keys = sa.table("stream_keys", *map(sa.column, ("call_cid", "user_id", "created_by_id", "created_at", "revoked_at")))
    member = sa.exists().where(members.c.call_cid == keys.c.call_cid, members.c.user_id == keys.c.user_id)
    since = sa.func.min(keys.c.created_at)
    found = (
        sa.select(keys.c.call_cid, keys.c.user_id, sa.literal("cohost"), since, since, sa.literal({}, sa.JSON()))
        .join(calls, calls.c.cid == keys.c.call_cid)
        .where(keys.c.revoked_at.is_(None), calls.c.ended_at.is_(None), ~member)
        .where(keys.c.user_id.not_in([keys.c.created_by_id, calls.c.created_by_id]))
        .group_by(keys.c.call_cid, keys.c.user_id)
    )
    op.get_bind().execute(sa.insert(members).from_select([*columns, "custom"], found))


def _admit_users_only() -> None:
    names = ("name", "created_at", "updated_at")
    kinds = sa.table("call_types", *map(sa.column, names), sa.column("grants", sa.JSON))
    connection = op.get_bind()
    for row in connection.execute(sa.select(kinds).where(kinds.c.name == "livestream")).all():
        if row.created_at == row.updated_at and sorted(row.grants.get("anonymous", ())) == _FORMER_ANONYMOUS:
            grants = {**row.grants, "anonymous": []}
            connection.execute(sa.update(kinds).where(kinds.c.name == row.name).values(grants=grants))


def downgrade() -> None:
    for table in _TABLES:
        op.drop_column(table, "api_key")

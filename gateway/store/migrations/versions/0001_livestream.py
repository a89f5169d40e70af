"""Calls, members, users, call types, keys, the list of changes and the outbox of webhooks."""

import sqlalchemy as sa
from alembic import op

from gateway.store.models import Moment

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "api_keys",
        sa.Column("key", sa.String(length=64), nullable=False),
        sa.Column("name", sa.String(length=256), nullable=False),
        sa.Column("created_at", Moment(), nullable=False),
        sa.Column("revoked_at", Moment(), nullable=True),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_api_keys")),
    )
    op.create_table(
        "call_types",
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("grants", sa.JSON(), nullable=False),
        sa.Column("settings", sa.JSON(), nullable=False),
        sa.Column("built_in", sa.Boolean(), nullable=False),
        sa.Column("created_at", Moment(), nullable=False),
        sa.Column("updated_at", Moment(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_call_types")),
    )
    op.create_table(
        "calls",
        sa.Column("cid", sa.String(length=129), nullable=False),
        sa.Column("type", sa.String(length=64), nullable=False),
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("created_by_id", sa.String(length=64), nullable=False),
        sa.Column("created_at", Moment(), nullable=False),
        sa.Column("updated_at", Moment(), nullable=False),
        sa.Column("backstage", sa.Boolean(), nullable=False),
        sa.Column("starts_at", Moment(), nullable=True),
        sa.Column("live_started_at", Moment(), nullable=True),
        sa.Column("live_ended_at", Moment(), nullable=True),
        sa.Column("ended_at", Moment(), nullable=True),
        sa.Column("broadcasting", sa.Boolean(), nullable=False),
        sa.Column("settings_override", sa.JSON(), nullable=False),
        sa.Column("custom", sa.JSON(), nullable=False),
        sa.Column("blocked_user_ids", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("cid", name=op.f("pk_calls")),
    )
    op.create_index(op.f("ix_calls_created_at"), "calls", ["created_at"], unique=False)
    op.create_index(op.f("ix_calls_created_by_id"), "calls", ["created_by_id"], unique=False)
    op.create_index(op.f("ix_calls_starts_at"), "calls", ["starts_at"], unique=False)
    op.create_index(op.f("ix_calls_type"), "calls", ["type"], unique=False)
    op.create_table(
        "changes",
        sa.Column("seq", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("key", sa.String(length=256), nullable=False),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_changes")),
    )
    op.create_table(
        "clock",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_clock")),
    )
    op.create_table(
        "outbox",
        sa.Column("seq", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("call_cid", sa.String(length=129), nullable=False),
        sa.Column("type", sa.String(length=64), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", Moment(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("due_at", Moment(), nullable=True),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_outbox")),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_outbox_call_cid_seq", "outbox", ["call_cid", "seq"], unique=False)
    op.create_table(
        "users",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("role", sa.String(length=64), nullable=False),
        sa.Column("name", sa.String(length=256), nullable=False),
        sa.Column("image", sa.String(length=2048), nullable=False),
        sa.Column("custom", sa.JSON(), nullable=False),
        sa.Column("created_at", Moment(), nullable=False),
        sa.Column("updated_at", Moment(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_users")),
    )
    op.create_index(op.f("ix_users_created_at"), "users", ["created_at"], unique=False)
    op.create_table(
        "api_secrets",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("api_key", sa.String(length=64), nullable=False),
        sa.Column("sealed", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", Moment(), nullable=False),
        sa.Column("expires_at", Moment(), nullable=True),
        sa.ForeignKeyConstraint(["api_key"], ["api_keys.key"], name=op.f("fk_api_secrets_api_key"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_api_secrets")),
    )
    op.create_index(op.f("ix_api_secrets_api_key"), "api_secrets", ["api_key"], unique=False)
    op.create_table(
        "members",
        sa.Column("call_cid", sa.String(length=129), nullable=False),
        sa.Column("user_id", sa.String(length=64), nullable=False),
        sa.Column("role", sa.String(length=64), nullable=False),
        sa.Column("custom", sa.JSON(), nullable=False),
        sa.Column("created_at", Moment(), nullable=False),
        sa.Column("updated_at", Moment(), nullable=False),
        sa.ForeignKeyConstraint(["call_cid"], ["calls.cid"], name=op.f("fk_members_call_cid"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("call_cid", "user_id", name=op.f("pk_members")),
    )
    op.create_index(op.f("ix_members_user_id"), "members", ["user_id"], unique=False)
    op.create_table(
        "stream_keys",
        sa.Column("name", sa.String(length=32), nullable=False),
        sa.Column("call_cid", sa.String(length=129), nullable=False),
        sa.Column("user_id", sa.String(length=64), nullable=False),
        sa.Column("created_by_id", sa.String(length=64), nullable=False),
        sa.Column("created_at", Moment(), nullable=False),
        sa.Column("expires_at", Moment(), nullable=True),
        sa.Column("revoked_at", Moment(), nullable=True),
        sa.ForeignKeyConstraint(["call_cid"], ["calls.cid"], name=op.f("fk_stream_keys_call_cid"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_stream_keys")),
    )
    op.create_index(op.f("ix_stream_keys_call_cid"), "stream_keys", ["call_cid"], unique=False)
    op.execute("INSERT INTO clock (id, seq) VALUES (1, 0)")


def downgrade() -> None:
    op.drop_index(op.f("ix_stream_keys_call_cid"), table_name="stream_keys")
    op.drop_table("stream_keys")
    op.drop_index(op.f("ix_members_user_id"), table_name="members")
    op.drop_table("members")
    op.drop_index(op.f("ix_api_secrets_api_key"), table_name="api_secrets")
    op.drop_table("api_secrets")
    op.drop_index(op.f("ix_users_created_at"), table_name="users")
    op.drop_table("users")
    op.drop_index("ix_outbox_call_cid_seq", table_name="outbox")
    op.drop_table("outbox")
    op.drop_table("clock")
    op.drop_table("changes")
    op.drop_index(op.f("ix_calls_type"), table_name="calls")
    op.drop_index(op.f("ix_calls_starts_at"), table_name="calls")
    op.drop_index(op.f("ix_calls_created_by_id"), table_name="calls")
    op.drop_index(op.f("ix_calls_created_at"), table_name="calls")
    op.drop_table("calls")
    op.drop_table("call_types")
    op.drop_table("api_keys")

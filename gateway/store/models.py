"""The tables, the same on SQLite and PostgreSQL. A change here needs a migration; a test holds the two equal.

Times are whole microseconds since 1970 in UTC: exact, ordered and without a zone on both.
"""

from datetime import UTC, datetime, timedelta
from typing import Final

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    TypeDecorator,
)
from sqlalchemy.engine import Dialect

from gateway.model.records import MAX_IMAGE, MAX_NAME, MAX_PICTURE_NAME

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class Moment(TypeDecorator[datetime]):
    """An aware datetime as microseconds since 1970."""

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> int | None:
        return None if value is None else (value - _EPOCH) // timedelta(microseconds=1)

    def process_result_value(self, value: int | None, dialect: Dialect) -> datetime | None:
        return None if value is None else _EPOCH + timedelta(microseconds=value)


METADATA: Final = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "ix": "ix_%(table_name)s_%(column_0_name)s",
    }
)
_CID: Final = String(129)
_USER: Final = String(64)
# SQLite counts up only its own INTEGER.
_SERIAL: Final = BigInteger().with_variant(Integer, "sqlite")


def _given_by() -> Column[str]:
    """The API key by which a right was given; empty: this gateway's operator, or a gateway that did not keep it."""
    return Column("api_key", String(64), nullable=False, server_default="")


CALLS: Final = Table(
    "calls",
    METADATA,
    Column("cid", _CID, primary_key=True),
    Column("type", String(64), nullable=False, index=True),
    Column("id", String(64), nullable=False),
    Column("created_by_id", _USER, nullable=False, index=True),
    Column("created_at", Moment, nullable=False, index=True),
    Column("updated_at", Moment, nullable=False),
    Column("backstage", Boolean, nullable=False),
    Column("starts_at", Moment, index=True),
    Column("live_started_at", Moment),
    Column("live_ended_at", Moment),
    Column("ended_at", Moment),
    Column("broadcasting", Boolean, nullable=False),
    Column("settings_override", JSON, nullable=False),
    Column("custom", JSON, nullable=False),
    Column("blocked_user_ids", JSON, nullable=False),
    Column("muted_users", JSON, nullable=False, server_default="{}"),  # a gateway of before, on the same store, names none
    _given_by(),
)
MEMBERS: Final = Table(
    "members",
    METADATA,
    Column("call_cid", _CID, ForeignKey("calls.cid", ondelete="CASCADE"), primary_key=True),
    Column("user_id", _USER, primary_key=True, index=True),
    Column("role", String(64), nullable=False),
    Column("custom", JSON, nullable=False),
    Column("created_at", Moment, nullable=False),
    Column("updated_at", Moment, nullable=False),
    _given_by(),
)
USERS: Final = Table(
    "users",
    METADATA,
    Column("id", _USER, primary_key=True),
    Column("role", String(64), nullable=False),
    Column("name", String(MAX_NAME), nullable=False),
    Column("image", String(MAX_IMAGE), nullable=False),
    Column("custom", JSON, nullable=False),
    Column("created_at", Moment, nullable=False, index=True),
    Column("updated_at", Moment, nullable=False),
    _given_by(),
)
CALL_TYPES: Final = Table(
    "call_types",
    METADATA,
    Column("name", String(64), primary_key=True),
    Column("grants", JSON, nullable=False),
    Column("settings", JSON, nullable=False),
    Column("built_in", Boolean, nullable=False),
    Column("created_at", Moment, nullable=False),
    Column("updated_at", Moment, nullable=False),
)
API_KEYS: Final = Table(
    "api_keys",
    METADATA,
    Column("key", String(64), primary_key=True),
    Column("name", String(MAX_NAME), nullable=False),
    Column("created_at", Moment, nullable=False),
    Column("revoked_at", Moment),
)
API_SECRETS: Final = Table(
    "api_secrets",
    METADATA,
    Column("id", _SERIAL, primary_key=True, autoincrement=True),
    Column("api_key", String(64), ForeignKey("api_keys.key", ondelete="CASCADE"), nullable=False, index=True),
    Column("sealed", LargeBinary, nullable=False),
    Column("created_at", Moment, nullable=False),
    Column("expires_at", Moment),
)
STREAM_KEYS: Final = Table(
    "stream_keys",
    METADATA,
    Column("name", String(32), primary_key=True),
    Column("call_cid", _CID, ForeignKey("calls.cid", ondelete="CASCADE"), nullable=False, index=True),
    Column("user_id", _USER, nullable=False),
    Column("created_by_id", _USER, nullable=False),
    Column("created_at", Moment, nullable=False),
    Column("expires_at", Moment),
    Column("revoked_at", Moment),
    _given_by(),
    Column("rank", Integer, nullable=False, server_default="1"),  # a gateway of before, on the same store, names none
    Column("on_conflict", String(16), nullable=False, server_default=""),
    Column("picture", String(MAX_PICTURE_NAME), nullable=False, server_default=""),
)
# One row: whoever writes counts it up first, which puts all writers, of all processes, in one order.
CLOCK: Final = Table("clock", METADATA, Column("id", Integer, primary_key=True), Column("seq", BigInteger, nullable=False))
CHANGES: Final = Table(
    "changes",
    METADATA,
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("kind", String(16), nullable=False),
    Column("key", String(256), nullable=False),
)
OUTBOX: Final = Table(
    "outbox",
    METADATA,
    Column("seq", _SERIAL, primary_key=True, autoincrement=True),
    Column("call_cid", _CID, nullable=False),
    Column("type", String(64), nullable=False),
    Column("body", LargeBinary, nullable=False),
    Column("created_at", Moment, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("due_at", Moment),
    Index("ix_outbox_call_cid_seq", "call_cid", "seq"),
    sqlite_autoincrement=True,  # a number is never given twice
)
# One row for each live seat, written every two seconds by the node that has it; without a key to `calls`, which may go first.
SEATS: Final = Table(
    "seats",
    METADATA,
    Column("call_cid", _CID, primary_key=True),
    Column("user_id", _USER, primary_key=True),
    Column("session", String(64), nullable=False),
    Column("protocol", String(64), nullable=False),
    Column("started_at", Moment, nullable=False),
    Column("media", BigInteger, nullable=False),
    Column("reconnects", Integer, nullable=False),
    Column("grace_ms", BigInteger, nullable=False),
    Column("written_at", Moment, nullable=False),
    Column("since", Moment, nullable=False),
    Column("node", String(64), nullable=False, index=True),
    Column("epoch", BigInteger, nullable=False),
    Column("outputs", JSON, nullable=False),
)

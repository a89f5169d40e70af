"""Brings a database to the newest tables, in one transaction of the caller's.

A new one gets them as `models` names them; one of a gateway of before goes by Alembic's steps in `migrations/versions`, for which alone
Alembic is loaded: 12 MB and a tenth of a second of each start. Both make the same.
"""

from importlib.resources import files
from typing import TYPE_CHECKING, Final

from sqlalchemy import Column, MetaData, PrimaryKeyConstraint, String, Table, insert, inspect, select
from sqlalchemy.engine import Connection

from gateway.store.models import CLOCK, METADATA

if TYPE_CHECKING:
    from alembic.config import Config

_MIGRATIONS: Final = files("gateway.store") / "migrations"
_STEPS: Final = (each.name.partition("_")[0] for each in (_MIGRATIONS / "versions").iterdir())
NEWEST: Final = max(step for step in _STEPS if step.isdigit())
"""The last step, by the number that its file begins with."""
_VERSION: Final = Table(  # Alembic's own: which step the tables are at
    "alembic_version",
    MetaData(),
    Column("version_num", String(32), nullable=False),
    PrimaryKeyConstraint("version_num", name="alembic_version_pkc"),
)


def settings(connection: Connection) -> "Config":
    """Alembic's configuration for this connection."""
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS))
    config.attributes["connection"] = connection
    return config


def upgrade(connection: Connection) -> None:
    """Raises what the database says; nothing is changed then."""
    if not inspect(connection).has_table(_VERSION.name):
        _create(connection)
    elif connection.scalars(select(_VERSION.c.version_num)).all() != [NEWEST]:
        from alembic import command

        command.upgrade(settings(connection), "head")


def _create(connection: Connection) -> None:
    METADATA.create_all(connection, checkfirst=False)  # who has tables of these names has them of somebody else: that is said
    connection.execute(insert(CLOCK).values(id=1, seq=0))
    _VERSION.create(connection)
    connection.execute(insert(_VERSION).values(version_num=NEWEST))

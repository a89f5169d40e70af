"""Brings a database to the newest tables: Alembic's steps in `migrations/versions`, in one transaction of the caller's."""

from importlib.resources import files

from alembic import command
from alembic.config import Config
from sqlalchemy.engine import Connection


def settings(connection: Connection) -> Config:
    """Alembic's configuration for this connection."""
    config = Config()
    config.set_main_option("script_location", str(files("gateway.store") / "migrations"))
    config.attributes["connection"] = connection
    return config


def upgrade(connection: Connection) -> None:
    """Raises what the database says; nothing is changed then."""
    command.upgrade(settings(connection), "head")

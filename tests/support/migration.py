"""Writes the next step of the store's tables: `python -m tests.support.migration "what it does"`.

It compares `gateway/store/models.py` with what the steps so far make, and puts the difference into a new file, which is then to be read and
corrected by a person."""

import sys

import sqlalchemy
from alembic import command

from gateway.store.migrate import settings, upgrade


def main(words: str) -> None:
    with sqlalchemy.create_engine("sqlite://").begin() as connection:
        upgrade(connection)
        command.revision(settings(connection), words, autogenerate=True)


if __name__ == "__main__":
    main(sys.argv[1])

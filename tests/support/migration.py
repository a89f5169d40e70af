"""Writes the next step of the store's tables: `python -m tests.support.migration "what it does"`.

It compares `gateway/store/models.py` with what the steps so far make, and puts the difference into a new file, which is then to be read and
corrected by a person."""

import sys

import sqlalchemy
from alembic import command

from gateway.store.migrate import NEWEST, settings


def main(words: str) -> None:
    with sqlalchemy.create_engine("sqlite://").begin() as connection:
        steps = settings(connection)
        command.upgrade(steps, "head")
        command.revision(steps, words, autogenerate=True, rev_id=f"{int(NEWEST) + 1:04}")


if __name__ == "__main__":
    main(sys.argv[1])

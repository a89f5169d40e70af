"""What Alembic runs: the steps, on the connection and in the transaction that `gateway.store.migrate` was given.

A new step: `python -m tests.support.migration "what it does"`.
"""

from alembic import context

from gateway.store.models import METADATA

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=METADATA,
    user_module_prefix="models.",
    render_as_batch=True,  # SQLite cannot alter a column: the table is copied
)
context.run_migrations()

"""Of a stream key: the place of its encoder among those of the stream, and what becomes of another one that is there."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # The defaults are for the keys that there are, and for those that a gateway of before makes on the same store.
    op.add_column("stream_keys", sa.Column("rank", sa.Integer(), server_default="1", nullable=False))
    op.add_column("stream_keys", sa.Column("on_conflict", sa.String(length=16), server_default="", nullable=False))


def downgrade() -> None:
    op.drop_column("stream_keys", "on_conflict")
    op.drop_column("stream_keys", "rank")

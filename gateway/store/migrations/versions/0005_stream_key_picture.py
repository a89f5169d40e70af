"""Of a stream key: which picture stands in for its encoder while that is away."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # The default is for the keys that there are, and for those that a gateway of before makes on the same store.
    op.add_column("stream_keys", sa.Column("picture", sa.String(length=64), server_default="", nullable=False))


def downgrade() -> None:
    op.drop_column("stream_keys", "picture")

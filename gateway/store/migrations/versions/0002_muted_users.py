"""Who is muted in a call, and of what."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # The default is for the calls that there are, and for those that a gateway of before makes on the same store.
    op.add_column("calls", sa.Column("muted_users", sa.JSON(), server_default="{}", nullable=False))


def downgrade() -> None:
    op.drop_column("calls", "muted_users")

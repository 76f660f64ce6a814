"""A study may be held: nothing of it is deleted while somebody says why."""

import sqlalchemy as sa
from alembic import op

from node.errors import ConfigurationError

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("study", sa.Column("legal_hold", sa.Text(), nullable=False, server_default=""))
    op.add_column("study", sa.Column("legal_hold_at", sa.DateTime(timezone=True), nullable=True))


def downgrade() -> None:
    """raises   ConfigurationError   studies are held: an earlier release would delete them."""
    held = op.get_bind().scalar(sa.text("SELECT count(*) FROM study WHERE legal_hold <> ''"))
    if held:
        raise ConfigurationError(
            f"there is no way back: studies under a legal hold: {held}, and the earlier version would not keep them"
        )
    op.execute("ALTER TABLE study DROP COLUMN legal_hold_at")
    op.execute("ALTER TABLE study DROP COLUMN legal_hold")

"""An analysis may be switched off, or run on trial."""

import sqlalchemy as sa
from alembic import op

from node.errors import ConfigurationError

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "switch",
        sa.Column("analysis", sa.String(64), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("since", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("analysis", name=op.f("pk_switch")),
    )


def downgrade() -> None:
    """raises   ConfigurationError   an analysis is not on: an earlier release would run it and send its results."""
    names = list(op.get_bind().scalars(sa.text("SELECT analysis FROM switch ORDER BY analysis")))
    if names:
        raise ConfigurationError(
            f"there is no way back: {', '.join(names)} is not in service, and the earlier version would run it and "
            "send what it finds. Route without it first, and take its [[analysis]] out of the site file"
        )
    # nothing of these may be published: done again, or told as failed
    op.execute("UPDATE job SET state = 'failed' WHERE state = 'done' AND outcome IN ('switched off', 'on trial')")
    op.drop_table("switch")

"""A revision of which nothing was to go anywhere has a state of its own: "delivered" was said of it."""

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        "UPDATE revision SET state = 'unsent', delivered_at = NULL WHERE state = 'delivered'"
        " AND NOT EXISTS (SELECT 1 FROM delivery WHERE delivery.revision_id = revision.id)"
    )


def downgrade() -> None:
    op.execute("UPDATE revision SET state = 'delivered', delivered_at = reported_at WHERE state = 'unsent'")

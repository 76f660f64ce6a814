"""Files may be deleted and their rows live on: what is still held, and what was given up when."""

import sqlalchemy as sa
from alembic import op

from node.errors import ConfigurationError

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_WITH_FILES = ("instance", "conflict", "result")


def upgrade() -> None:
    for table in _WITH_FILES:
        op.add_column(table, sa.Column("purged_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("study", sa.Column("touched_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("study", sa.Column("purged_at", sa.DateTime(timezone=True), nullable=True))
    op.create_index("ix_study_purged_at_study_instance_uid", "study", ["purged_at", "study_instance_uid"])
    op.create_table(
        "purge",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("study_instance_uid", sa.String(length=64), nullable=False),
        sa.Column("purged_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("because", sa.Text(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("files", sa.Integer(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["study_instance_uid"], ["study.study_instance_uid"], name=op.f("fk_purge_study_instance_uid_study")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_purge")),
    )
    op.create_index(op.f("ix_purge_ended_at"), "purge", ["ended_at"])
    op.create_index(op.f("ix_purge_study_instance_uid"), "purge", ["study_instance_uid"])


def downgrade() -> None:
    """raises   ConfigurationError   files were deleted: an earlier release would take their rows for files."""
    purges = op.get_bind().scalar(sa.text("SELECT count(*) FROM purge"))
    if purges:
        raise ConfigurationError(
            f"there is no way back: files were deleted {purges} times, and the earlier version would look for them"
        )
    op.drop_index(op.f("ix_purge_study_instance_uid"), table_name="purge")
    op.drop_index(op.f("ix_purge_ended_at"), table_name="purge")
    op.drop_table("purge")
    op.drop_index("ix_study_purged_at_study_instance_uid", table_name="study")
    # column by column, not by a copy of the table: others refer to these, and a copy would drop the first one
    for table in ("study", *_WITH_FILES):
        op.execute(f"ALTER TABLE {table} DROP COLUMN purged_at")
    op.execute("ALTER TABLE study DROP COLUMN touched_at")

"""Image quality of every series, slice by slice."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "quality",
        sa.Column("job_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=False, nullable=False),
        sa.Column("series_instance_uid", sa.String(length=64), nullable=False),
        sa.Column("scanner", sa.Text(), nullable=False),
        sa.Column("protocol", sa.Text(), nullable=False),
        sa.Column("acquired_on", sa.Date(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("slices", sa.Integer(), nullable=False),
        sa.Column("median", sa.Double(), nullable=True),
        sa.Column("low", sa.Double(), nullable=True),
        sa.Column("poor", sa.Integer(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("levels", sa.JSON(), nullable=False),
        sa.Column("detail", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["job.id"], name=op.f("fk_quality_job_id_job")),
        sa.PrimaryKeyConstraint("job_id", name=op.f("pk_quality")),
    )
    with op.batch_alter_table("quality", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_quality_series_instance_uid"), ["series_instance_uid"], unique=False)
        batch_op.create_index("ix_quality_scanner_acquired_on", ["scanner", "acquired_on"], unique=False)


def downgrade() -> None:
    with op.batch_alter_table("quality", schema=None) as batch_op:
        batch_op.drop_index("ix_quality_scanner_acquired_on")
        batch_op.drop_index(batch_op.f("ix_quality_series_instance_uid"))

    op.drop_table("quality")

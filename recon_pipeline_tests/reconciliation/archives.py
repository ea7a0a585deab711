"""Archives as the command writes them, through the functions that it calls."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from recon_pipeline.assets.archiving import Archived, archive_month
from recon_pipeline.core.periods import BillingMonth
from recon_pipeline.settings import read_settings
from recon_pipeline_tests.reconciliation.billing import Billing
from recon_pipeline_tests.reconciliation.seals import MONTH, database


def archive(billing: Billing, to: object, month: str = MONTH) -> Archived:
    """Archive a month of the scope that the environment names."""
    with database(billing).connection() as connection:
        return archive_month(connection, read_settings(), BillingMonth.parse(month), str(to), archived_by="ada")


def rows_in(to: Path) -> pa.Table:
    """Every row of every file below a folder."""
    return pa.concat_tables([pq.ParquetFile(one).read() for one in sorted(to.rglob("*.parquet"))])

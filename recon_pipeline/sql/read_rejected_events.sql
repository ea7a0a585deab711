-- Rows of a batch that were not taken, in the order in which they were read.
-- Index: the primary key of recon.rejected_event.
select kind, source, line, reasons, raw_row, stays
from recon.rejected_event
where batch_id = cast(:batch_id as uuid)
order by ordinal
limit :rows

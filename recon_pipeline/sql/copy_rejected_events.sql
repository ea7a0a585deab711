-- Keeps the rows that were not taken.
copy recon.rejected_event (batch_id, ordinal, kind, source, line, reasons, raw_row, stays) from stdin

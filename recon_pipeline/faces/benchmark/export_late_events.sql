-- Gives late events out, as an export of the source's audit log.
copy pg_temp.late_event to stdout (format csv, header)

-- Takes an export in, as one does it by hand.
copy pg_temp.late_event from stdin (format csv, header)

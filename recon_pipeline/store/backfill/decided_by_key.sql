-- Part of insert_staged_events_singly: the unique key of the log decides whether a request id is new.
true

-- Part of other statements: every event there is, for a log without transaction ids.
true

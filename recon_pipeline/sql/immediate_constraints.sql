-- Has deferred constraints of the log checked where its rows are inserted, so that what they refuse is known of each row.
-- Invariant: ends with the transaction.
set constraints all immediate

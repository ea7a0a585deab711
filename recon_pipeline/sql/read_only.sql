-- Lets a transaction read and no more.
-- Invariant: ends with the transaction; must be its first statement but for settings.
set transaction read only

-- Tells the planner how many keys a large comparison has found: statistics of earlier runs make it expect one, and look through all
-- of them for each of them.
-- Invariant: never waits, and changes no row; where somebody else analyzes the table just now, that will do.
analyze (skip_locked) recon.counter_drift

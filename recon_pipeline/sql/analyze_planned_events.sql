-- Lets the planner know how much a dry run looks at: a guess can make it loop through all of the one for each of the other.
analyze pg_temp.planned_event

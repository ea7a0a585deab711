-- A function that returns a random-looking number from 0 (included) to 1 (excluded), the same for the same number and seed.
-- Invariant: it exists only in the session.
create function pg_temp.uniform(number bigint, seed bigint) returns double precision
language sql immutable parallel safe
return (hashint8extended(number, seed) & 9007199254740991)::double precision / 9007199254740992

-- A number from 0 (included) to 1 (excluded) that looks drawn by chance, the same for the same number and seed.
-- Invariant: lives in the session alone, and is gone with it.
create function pg_temp.uniform(number bigint, seed bigint) returns double precision
language sql immutable parallel safe
return (hashint8extended(number, seed) & 9007199254740991)::double precision / 9007199254740992

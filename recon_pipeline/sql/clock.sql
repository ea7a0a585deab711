-- What time it is to the database.
select clock_timestamp()

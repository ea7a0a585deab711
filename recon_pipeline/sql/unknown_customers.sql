-- Which customers a foreign key of the log would refuse, and the table that lacks them.
-- Index: the referenced key.
select customer, referenced from recon.unknown_customers(cast(:customers as text[]))

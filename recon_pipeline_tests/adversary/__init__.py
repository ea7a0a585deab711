"""Changes from outside that work against the product, without knowledge of its code.

Each file attacks a promise of the product by what production does on an ordinary day, through surfaces that stay: runs
as a whole, the Dagster job, the command line, the application's tables, and the ledger. Nothing here names a statement
or a function of the store, so that what is shown holds for any way in which the store may be made.
"""

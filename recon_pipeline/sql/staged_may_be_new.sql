-- Part of other statements: the unique key of the log decides.
true

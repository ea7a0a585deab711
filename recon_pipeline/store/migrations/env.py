"""How Alembic reaches the database: through the connection of `store.records.migrate`, or as printed SQL."""

from alembic import context

context.configure(
    connection=context.config.attributes.get("connection"),  # none where the SQL is only printed
    dialect_name="postgresql",
    dialect_opts={"paramstyle": "named"},  # or per cent signs are doubled where the SQL is printed
    literal_binds=context.is_offline_mode(),
    version_table_schema="recon",
    version_table="schema_version",
)
with context.begin_transaction():
    context.run_migrations()

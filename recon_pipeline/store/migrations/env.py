"""How Alembic reaches the database: through the connection that `store.migrate` hands over, or as printed SQL."""

from alembic import context

_options = {"version_table_schema": "recon", "version_table": "schema_version"}

if context.is_offline_mode():
    context.configure(dialect_name="postgresql", literal_binds=True, **_options)
else:
    context.configure(connection=context.config.attributes["connection"], **_options)
with context.begin_transaction():
    context.run_migrations()

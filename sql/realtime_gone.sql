-- After the last migration is undone: its book-keeping and the schema.
DROP TABLE realtime._sqlx_migrations;
DROP SCHEMA realtime;

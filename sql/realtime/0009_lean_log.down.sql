-- The functions that write the log, and the log itself, go with the migrations before. They look up how events reach the
-- servers, and the log is realtime.events again.

DROP TRIGGER ingest_changes ON realtime.state;
DROP TRIGGER state_changed ON realtime.state;
DROP VIEW realtime.events;
DROP FUNCTION realtime.ingest_changes, realtime.state_changed, realtime.insert_event, realtime.set_ingest,
    realtime.settle_ingest, realtime.make_writers, realtime.make_announce, realtime.announce_text, realtime.notifies,
    realtime.make_source_function,
    realtime.announce(smallint, uuid, "char", bigint, text[], boolean), realtime.emit(smallint, uuid, "char", text[]),
    realtime.emit(smallint, uuid, "char", text[], bigint[], boolean), realtime.make_large_writer, realtime.kept_fields,
    realtime.truncated_fields, realtime.fields_bytes, realtime.demand_read_committed;
DROP FUNCTION realtime.presets();
ALTER FUNCTION realtime.presets_of_tables() RENAME TO presets;
ALTER TABLE realtime.sources DROP COLUMN layout, DROP COLUMN truncated_layout;
ALTER TABLE realtime.state DROP COLUMN user_type;
DROP FUNCTION realtime.user_key(uuid), realtime.user_key(bigint), realtime.user_key(text), realtime.audience_type,
    realtime.fix_user_type, realtime.source_layout, realtime.truncated_layout, realtime.key_columns, realtime.compose,
    realtime.quoted;
ALTER TABLE realtime.log RENAME COLUMN user_key TO user_id;
ALTER TABLE realtime.log RENAME TO events;

-- The triggers of sources of one's own go with the migrations before.
CREATE OR REPLACE FUNCTION realtime.state_changed() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM realtime.make_writers();
    RETURN NULL;
END $$;
DROP FUNCTION realtime.rows_text, realtime.make_change_writer, realtime.write(smallint, boolean, realtime.change[]),
    realtime.user_keys(uuid[]), realtime.user_keys(bigint[]), realtime.user_keys(text[]), realtime.changes,
    realtime.write_failed, realtime.may_write, realtime.column_json, realtime.add_source, realtime.wrong_table, realtime.seen_columns;
DO $$
DECLARE
    dropped regprocedure;
BEGIN
    FOR dropped IN
        SELECT oid FROM pg_proc WHERE pronamespace = 'realtime'::regnamespace AND proname ~ '^write_[0-9]+$'
    LOOP
        EXECUTE format('DROP FUNCTION %s', dropped);
    END LOOP;
END $$;
REVOKE USAGE ON SCHEMA realtime FROM PUBLIC;
DROP TYPE realtime.change;

CREATE FUNCTION realtime.add_source(
    kind text, relation regclass, audience text, operations text[] DEFAULT '{insert,update,delete}',
    fields text[] DEFAULT '{}', condition text DEFAULT NULL)
RETURNS smallint LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    added smallint;
BEGIN
    INSERT INTO realtime.sources (kind, relation, audience, operations, fields, condition)
    VALUES (add_source.kind, add_source.relation::text, add_source.audience, add_source.operations, add_source.fields,
            add_source.condition)
    RETURNING number INTO added;
    PERFORM realtime.repair_triggers();
    RETURN added;
END $$;

CREATE OR REPLACE VIEW realtime.events AS
SELECT slot, id, xid, user_key AS user_id,
       CASE WHEN payload IS NULL THEN (SELECT s.kind FROM realtime.sources AS s WHERE s.number = source)
            ELSE kind END AS kind,
       CASE WHEN payload IS NULL THEN (
                SELECT realtime.compose(
                    CASE WHEN op IN ('I', 'U', 'D') THEN s.truncated_layout ELSE s.layout END, user_key, op, id,
                    CASE WHEN body IS NULL THEN log.fields ELSE realtime.kept_fields(slot, body, log.fields) END, asynchronous)
                FROM realtime.sources AS s WHERE s.number = source)
            WHEN octet_length(payload) <= 1 << 20 THEN payload
            ELSE concat('{"type" : ', to_json(kind), ', "user_id" : ', to_json(user_key), ', "truncated" : true, "id" : ', id,
                        '}') END AS payload,
       created_at, source, op,
       CASE WHEN body IS NULL THEN log.fields ELSE realtime.kept_fields(slot, body, log.fields) END AS fields,
       asynchronous, payload IS NULL AS is_composed, bytes, body, CASE WHEN body IS NOT NULL THEN log.fields END AS own_fields
FROM realtime.log;

CREATE OR REPLACE FUNCTION realtime.own_triggers()
RETURNS TABLE (name name, relation text, required boolean, function regprocedure, fires text)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $own$
    WITH source AS MATERIALIZED (
        SELECT * FROM realtime.expected_sources()
    ), users AS MATERIALIZED (
        -- Users whose devices are told of a deletion.
        SELECT 'public.users' AS relation FROM source
        WHERE function = 'on_device' AND EXISTS (
            SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
            JOIN pg_attribute a ON a.attrelid = c.oid
            WHERE n.nspname = 'public' AND c.relname = 'users' AND c.relkind IN ('r', 'p')
              AND a.attname = 'id' AND a.atttypid = 'uuid'::regtype)
    ), wanted (name, relation, required, function, fires) AS (
        SELECT CASE WHEN number < 16 THEN 'realtime_' || substr(relation, 8) ELSE 'realtime_source_' || number END,
               relation, true, function,
               CASE function
                   WHEN 'on_messages' THEN
                       format('AFTER INSERT ON %s REFERENCING NEW TABLE AS inserted FOR EACH STATEMENT', relation)
                   ELSE format('AFTER %s ON %s FOR EACH ROW', (
                       SELECT string_agg(DISTINCT upper(operation), ' OR ') FROM unnest(operations) AS operation), relation)
               END
        FROM source
        UNION ALL
        SELECT 'realtime_users', relation, false, 'on_user_deleted', 'AFTER DELETE ON public.users FOR EACH ROW' FROM users
        UNION ALL
        SELECT CASE
                   WHEN relation IN ('public.messages', 'public.sessions', 'public.devices', 'public.pending_sessions',
                                     'public.users') THEN 'realtime_' || substr(relation, 8) || '_truncate'
                   ELSE 'realtime_truncate'
               END,
               relation, bool_or(required), 'on_truncate', format('AFTER TRUNCATE ON %s', relation)
        FROM (SELECT relation, true FROM source UNION ALL SELECT relation, false FROM users) AS each (relation, required)
        GROUP BY relation
    )
    SELECT name::name, relation, required, to_regprocedure(format('realtime.%I()', function)), fires FROM wanted
$own$;

DROP FUNCTION realtime.fires_for_rows, realtime.are_unique, realtime.source_layout, realtime.update_layout,
    realtime.delete_layout, realtime.key_layout, realtime.first_field, realtime.keys_of;
ALTER FUNCTION realtime.source_layout_9 RENAME TO source_layout;
ALTER TABLE realtime.sources DROP COLUMN for_rows, DROP COLUMN keys, DROP COLUMN changed, DROP COLUMN users_max,
    DROP COLUMN update_layout, DROP COLUMN delete_layout;

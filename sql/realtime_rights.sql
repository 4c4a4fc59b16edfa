-- The rights in schema realtime that the role $1 (null: the present one) needs for the purpose $2: what each is on, the
-- statement that grants it, and whether the role has it. What this database does not have is left out. An older schema
-- has fewer functions: the application's tables are read instead. Looked up in the catalogue by OID, which needs no right
-- on the schema. A schema without a log is another product's, or empty: nothing in it is needed.
WITH role AS (
    SELECT coalesce($1::pg_catalog.name, current_user) AS name
), wanted (purpose, kind, place, name, privilege, columns) AS (
    VALUES ('backend', 'SCHEMA', 'realtime', NULL, 'USAGE', NULL::pg_catalog.name[]),
           ('backend', 'FUNCTION', 'realtime', 'cursor', 'EXECUTE', NULL),
           ('serve', 'SCHEMA', 'realtime', NULL, 'USAGE', NULL),
           ('serve', 'TABLE', 'realtime', 'events', 'SELECT', NULL),
           ('serve', 'TABLE', 'realtime', 'sources', 'SELECT', NULL),
           ('serve', 'TABLE', 'realtime', 'state', 'SELECT', NULL)
    UNION ALL
    SELECT 'serve', 'TABLE', 'realtime', 'state', 'UPDATE', '{ingest,ingest_since}'::pg_catalog.name[]
    WHERE NOT EXISTS (
        SELECT FROM pg_catalog.pg_proc AS p JOIN pg_catalog.pg_namespace AS n ON n.oid = p.pronamespace
        WHERE n.nspname = 'realtime' AND p.proname = 'set_ingest')
    UNION ALL
    SELECT 'serve', 'FUNCTION', 'realtime', name, 'EXECUTE', NULL
    FROM pg_catalog.unnest(ARRAY[
        -- Positions and barriers.
        'epoch', 'history', 'cursor', 'unflushed_cursor', 'is_flushed', 'flush', 'barrier', 'stream_barrier', 'doorbell',
        -- Histories and retention.
        'begin_history', 'claim_history', 'renew_history', 'rotate', 'expired', 'forget', 'maintain',
        'forget_sources',
        -- Many nodes.
        'leader_lock', 'lead', 'leader_now', 'ask_to_step_down', 'announce_node', 'node_states',
        'leave_node',
        -- What an event is, and the way of ingest.
        'compose', 'kept_fields', 'set_ingest', 'propose_ingest',
        -- State and identity.
        'pending_messages', 'pending_handshakes', 'devices_of', 'devices_with_key', 'existing_devices', 'existing_users'
    ]) AS name
    UNION ALL
    SELECT 'serve', 'TABLE', 'public', name, 'SELECT', NULL
    FROM pg_catalog.unnest(ARRAY['messages', 'pending_sessions', 'devices', 'users']) AS name
    WHERE NOT EXISTS (
        SELECT FROM pg_catalog.pg_proc AS p JOIN pg_catalog.pg_namespace AS n ON n.oid = p.pronamespace
        WHERE n.nspname = 'realtime' AND p.proname = 'pending_messages')
), needed AS (
    SELECT * FROM wanted
    WHERE purpose = $2 AND (place = 'public' OR EXISTS (
        SELECT FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
        WHERE n.nspname = 'realtime' AND c.relname = 'state'))
), found AS (
    SELECT kind, privilege, columns, pg_catalog.format('%I', n.nspname) AS object,
           pg_catalog.has_schema_privilege(role.name, n.oid, privilege) AS is_held
    FROM role, needed JOIN pg_catalog.pg_namespace AS n ON n.nspname = place
    WHERE kind = 'SCHEMA'
    UNION ALL
    SELECT kind, privilege, columns, pg_catalog.format('%I.%I', n.nspname, c.relname),
           CASE WHEN columns IS NULL THEN pg_catalog.has_table_privilege(role.name, c.oid, privilege)
                ELSE (SELECT pg_catalog.bool_and(
                          pg_catalog.has_column_privilege(role.name, c.oid, one::pg_catalog.text, privilege))
                      FROM pg_catalog.unnest(columns) AS one) END
    FROM role, needed JOIN pg_catalog.pg_namespace AS n ON n.nspname = place
        JOIN pg_catalog.pg_class AS c ON c.relnamespace = n.oid AND c.relname = needed.name
    WHERE kind = 'TABLE'
    UNION ALL
    SELECT kind, privilege, columns,
           pg_catalog.format('%I.%I(%s)', n.nspname, p.proname, pg_catalog.oidvectortypes(p.proargtypes)),
           pg_catalog.has_function_privilege(role.name, p.oid, privilege)
    FROM role, needed JOIN pg_catalog.pg_namespace AS n ON n.nspname = place
        JOIN pg_catalog.pg_proc AS p ON p.pronamespace = n.oid AND p.proname = needed.name
    WHERE kind = 'FUNCTION'
), named AS (
    SELECT *, pg_catalog.concat(
               privilege, ' (' || pg_catalog.array_to_string(columns, ', ') || ')', ' ON ', kind, ' ', object) AS what
    FROM found
)
SELECT what, pg_catalog.format('GRANT %s TO %I', what, role.name), is_held FROM role, named
ORDER BY kind = 'SCHEMA' DESC, kind = 'TABLE' DESC, object, privilege

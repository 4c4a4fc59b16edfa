-- Triggers with names of their own: the application's next deployment does not replace them. They fire whatever
-- `session_replication_role` is, so that a restored or copied row is an event too. TRUNCATE, which fires no trigger for
-- its rows, has triggers too.

-- A table was emptied without an event for any row. One row of the log, for all users, records it. Only servers
-- receive the notification, which makes them read the log.
CREATE FUNCTION realtime.on_truncate() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    event_id bigint := nextval('realtime.events_id_seq');
BEGIN
    INSERT INTO realtime.events (id, user_id, kind, payload)
    VALUES (event_id, NULL, 'truncated',
            json_build_object('type', 'truncated', 'table', TG_TABLE_NAME, 'id', event_id));
    IF realtime.silent() IS NOT TRUE THEN
        PERFORM pg_notify('realtime_control', 'changed');
    END IF;
    RETURN NULL;
END $$;
REVOKE EXECUTE ON FUNCTION realtime.on_truncate FROM PUBLIC;

COMMENT ON COLUMN realtime.events.kind IS 'message, session, device, revocation or truncated.';

-- The triggers that write the log, each with its table and what CREATE TRIGGER says of it.
CREATE FUNCTION realtime.own_triggers()
RETURNS TABLE (name name, relation text, required boolean, function regprocedure, fires text)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    VALUES
        ('realtime_messages'::name, 'public.messages', true, 'realtime.on_messages()'::regprocedure,
         'AFTER INSERT ON public.messages REFERENCING NEW TABLE AS inserted FOR EACH STATEMENT'),
        ('realtime_sessions', 'public.sessions', true, 'realtime.on_session()',
         'AFTER INSERT ON public.sessions FOR EACH ROW'),
        ('realtime_devices', 'public.devices', true, 'realtime.on_device()',
         'AFTER INSERT OR UPDATE OR DELETE ON public.devices FOR EACH ROW'),
        ('realtime_users', 'public.users', false, 'realtime.on_user_deleted()',
         'AFTER DELETE ON public.users FOR EACH ROW'),
        ('realtime_messages_truncate', 'public.messages', true, 'realtime.on_truncate()',
         'AFTER TRUNCATE ON public.messages'),
        ('realtime_sessions_truncate', 'public.sessions', true, 'realtime.on_truncate()',
         'AFTER TRUNCATE ON public.sessions'),
        ('realtime_devices_truncate', 'public.devices', true, 'realtime.on_truncate()',
         'AFTER TRUNCATE ON public.devices'),
        ('realtime_users_truncate', 'public.users', false, 'realtime.on_truncate()',
         'AFTER TRUNCATE ON public.users')
$$;

-- The application's own notifying triggers on these tables, known by their names or by their functions.
CREATE FUNCTION realtime.application_triggers() RETURNS SETOF pg_trigger
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT t.* FROM pg_trigger t JOIN pg_proc p ON p.oid = t.tgfoid
    WHERE NOT t.tgisinternal AND t.tgparentid = 0
      AND t.tgrelid IN (SELECT to_regclass(relation) FROM realtime.own_triggers())
      AND p.pronamespace <> 'realtime'::regnamespace
      AND (t.tgname IN ('messages_notify_trigger', 'sessions_notify_trigger', 'devices_notify_trigger')
           OR p.proname IN ('notify_new_message', 'notify_new_session', 'notify_device_update'))
$$;

-- Removes them, and remembers them for the way back.
CREATE FUNCTION realtime.replace_application_triggers() RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    replaced record;
BEGIN
    FOR replaced IN
        SELECT pg_get_triggerdef(oid) AS definition, tgrelid, tgname, tgenabled FROM realtime.application_triggers()
    LOOP
        DELETE FROM realtime.replaced_triggers r
        WHERE r.definition = replaced.definition
           OR r.table_name = replaced.tgrelid AND r.name = replaced.tgname;
        INSERT INTO realtime.replaced_triggers (definition, table_name, name, enabled)
        VALUES (replaced.definition, replaced.tgrelid, replaced.tgname, replaced.tgenabled);
        EXECUTE format('DROP TRIGGER %I ON %s', replaced.tgname, replaced.tgrelid::regclass);
    END LOOP;
END $$;

-- Locks the tables for a change of their triggers. Each attempt ends within 0.2 s for each table, before PostgreSQL's
-- search for deadlocks (deadlock_timeout, 1 s) could end a transaction of the application, and gives its locks back.
CREATE FUNCTION realtime.lock_application_tables() RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    give_up timestamptz := clock_timestamp() + interval '10 seconds';
    tables  text := (
        SELECT string_agg(DISTINCT to_regclass(relation)::text, ', ') FROM realtime.own_triggers()
        WHERE to_regclass(relation) IS NOT NULL);
BEGIN
    PERFORM set_config('lock_timeout', '200ms', true);
    LOOP
        BEGIN
            EXECUTE format('LOCK TABLE %s IN ACCESS EXCLUSIVE MODE', tables);
            EXIT;
        EXCEPTION WHEN lock_not_available THEN
            IF clock_timestamp() > give_up THEN
                RAISE EXCEPTION USING ERRCODE = 'lock_not_available',
                    MESSAGE = 'the application''s tables are in use by a transaction that does not end',
                    HINT = 'See pg_locks and pg_prepared_xacts for ' || tables || '; then run it again.';
            END IF;
        END;
        PERFORM pg_sleep(0.1);
    END LOOP;
END $$;

-- Whether this trigger is one of ours, in its place and enabled.
CREATE FUNCTION realtime.is_in_place(t pg_trigger) RETURNS boolean
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT t.tgenabled = 'A' AND EXISTS (
        SELECT FROM realtime.own_triggers() o
        WHERE o.function = t.tgfoid AND to_regclass(o.relation) = t.tgrelid AND o.name = t.tgname)
$$;

-- Puts every trigger of ours in its place, enabled; returns the tables where one was not. Changes nothing, and takes
-- no lock, where all are in their places. A trigger of ours on another table goes: a table that was renamed has taken
-- it along.
CREATE FUNCTION realtime.repair_triggers() RETURNS text[]
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    own      record;
    wrong    record;
    repaired text[] := '{}';
BEGIN
    IF NOT EXISTS (SELECT FROM realtime.application_triggers())
       AND NOT EXISTS (
           SELECT FROM pg_trigger t
           WHERE t.tgparentid = 0 AND t.tgfoid IN (SELECT function FROM realtime.own_triggers())
             AND NOT realtime.is_in_place(t))
       AND NOT EXISTS (
           SELECT FROM realtime.own_triggers() o
           WHERE (o.required OR to_regclass(o.relation) IS NOT NULL) AND NOT EXISTS (
               SELECT FROM pg_trigger WHERE tgrelid = to_regclass(o.relation) AND tgfoid = o.function))
    THEN
        RETURN repaired;
    END IF;
    PERFORM realtime.lock_application_tables();
    PERFORM realtime.replace_application_triggers();
    FOR wrong IN
        SELECT t.tgname, t.tgrelid FROM pg_trigger t
        WHERE t.tgparentid = 0 AND t.tgfoid IN (SELECT function FROM realtime.own_triggers())
          AND NOT realtime.is_in_place(t)
    LOOP
        EXECUTE format('DROP TRIGGER %I ON %s', wrong.tgname, wrong.tgrelid::regclass);
    END LOOP;
    FOR own IN
        SELECT *, to_regclass(relation) AS table_oid FROM realtime.own_triggers()
    LOOP
        CONTINUE WHEN own.table_oid IS NULL AND NOT own.required;
        IF NOT EXISTS (SELECT FROM pg_trigger WHERE tgrelid = own.table_oid AND tgfoid = own.function) THEN
            EXECUTE format('CREATE TRIGGER %I %s EXECUTE FUNCTION %s', own.name, own.fires, own.function);
            EXECUTE format('ALTER TABLE %s ENABLE ALWAYS TRIGGER %I', own.relation, own.name);
            repaired := repaired || own.relation;
        END IF;
    END LOOP;
    RETURN repaired;
END $$;

REVOKE EXECUTE ON FUNCTION realtime.own_triggers, realtime.application_triggers,
    realtime.replace_application_triggers, realtime.lock_application_tables, realtime.is_in_place,
    realtime.repair_triggers FROM PUBLIC;

SELECT realtime.repair_triggers();

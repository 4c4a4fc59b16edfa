-- Triggers with names of their own: the application's next deployment does not replace them. They fire whatever
-- `session_replication_role` is, so that a restored or copied row is an event too. TRUNCATE, which fires no trigger for
-- its rows, has triggers too.

SET LOCAL lock_timeout = '10s';

-- A table was emptied without an event for any row. One row of the log, for all users, tells of it. Only servers hear
-- the notification, which makes them read the log.
CREATE FUNCTION realtime.on_truncate() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    event_id bigint := nextval('realtime.events_id_seq');
BEGIN
    INSERT INTO realtime.events (id, user_id, kind, payload)
    VALUES (event_id, NULL, 'truncated',
            json_build_object('type', 'truncated', 'table', TG_TABLE_NAME, 'id', event_id));
    IF NOT realtime.silent() THEN
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

-- Removes the application's own notifying triggers, known by their names or by their functions, and remembers
-- them for the way back.
CREATE FUNCTION realtime.replace_application_triggers() RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    replaced record;
BEGIN
    FOR replaced IN
        SELECT pg_get_triggerdef(t.oid) AS definition, t.tgrelid, t.tgname, t.tgenabled
        FROM pg_trigger t JOIN pg_proc p ON p.oid = t.tgfoid
        WHERE NOT t.tgisinternal AND t.tgparentid = 0
          AND t.tgrelid IN (SELECT to_regclass(relation) FROM realtime.own_triggers())
          AND p.pronamespace <> 'realtime'::regnamespace
          AND (t.tgname IN ('messages_notify_trigger', 'sessions_notify_trigger', 'devices_notify_trigger')
               OR p.proname IN ('notify_new_message', 'notify_new_session', 'notify_device_update'))
    LOOP
        DELETE FROM realtime.replaced_triggers r
        WHERE r.definition = replaced.definition
           OR r.table_name = replaced.tgrelid AND r.name = replaced.tgname;
        INSERT INTO realtime.replaced_triggers (definition, table_name, name, enabled)
        VALUES (replaced.definition, replaced.tgrelid, replaced.tgname, replaced.tgenabled);
        EXECUTE format('DROP TRIGGER %I ON %s', replaced.tgname, replaced.tgrelid::regclass);
    END LOOP;
END $$;

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
    PERFORM realtime.replace_application_triggers();
    FOR wrong IN
        SELECT t.tgname, t.tgrelid FROM pg_trigger t
        WHERE t.tgparentid = 0 AND t.tgfoid IN (SELECT function FROM realtime.own_triggers())
          AND NOT EXISTS (
              SELECT FROM realtime.own_triggers() o
              WHERE o.function = t.tgfoid AND to_regclass(o.relation) = t.tgrelid AND o.name = t.tgname
                AND t.tgenabled = 'A')
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

REVOKE EXECUTE ON FUNCTION realtime.own_triggers, realtime.replace_application_triggers,
    realtime.repair_triggers FROM PUBLIC;

SELECT realtime.repair_triggers();

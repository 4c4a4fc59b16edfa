-- Sources: which changes of which tables are events, of which kind, and of which users. A kind is a row of data.
-- HushNet's kinds are a preset: functions of this schema, each on the table that it was written for.

SET TRANSACTION ISOLATION LEVEL READ COMMITTED;

-- The functions run with the rights of their owner, who owns the log. Those of the triggers' places belong to the role
-- that applied migration 3.
DO $$
DECLARE
    owner name := (SELECT pg_get_userbyid(relowner) FROM pg_class WHERE oid = 'realtime.events'::regclass);
    moved regprocedure;
BEGIN
    FOR moved IN
        SELECT oid FROM pg_proc WHERE pronamespace = 'realtime'::regnamespace AND pg_get_userbyid(proowner) <> owner
        AND proname IN ('own_triggers', 'application_triggers', 'lock_application_tables', 'repair_triggers')
    LOOP
        EXECUTE format('ALTER FUNCTION %s OWNER TO %I', moved, owner);
    END LOOP;
    EXECUTE format('SET LOCAL ROLE %I', owner);
END $$;

-- Writers and readers of the log wait for this, and it rewrites nothing.
SET LOCAL lock_timeout = '10s';
ALTER TABLE realtime.events ADD COLUMN source smallint;
COMMENT ON COLUMN realtime.events.source IS
    'The number of the source, see realtime.sources. Null: a revocation, a truncation, or written by the schema before.';
COMMENT ON COLUMN realtime.events.kind IS 'The kind of the event''s source; or revocation, or truncated.';

-- The numbers from 1 to 15 are the preset's.
CREATE SEQUENCE realtime.source_numbers AS bigint;

CREATE FUNCTION realtime.free_source_number() RETURNS smallint
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    numbers_max constant integer := 32752;
    drawn       bigint;
    candidate   smallint;
BEGIN
    FOR attempt IN 1..numbers_max LOOP
        drawn := nextval('realtime.source_numbers');
        candidate := 16 + (drawn - 1) % numbers_max;
        IF NOT EXISTS (SELECT FROM realtime.sources WHERE number = candidate)
           -- Only a number that was in use before can be in the log.
           AND (drawn <= numbers_max OR NOT EXISTS (SELECT FROM realtime.events WHERE source = candidate)) THEN
            RETURN candidate;
        END IF;
    END LOOP;
    RAISE EXCEPTION USING ERRCODE = 'program_limit_exceeded',
        MESSAGE = 'each number of a source is in use in realtime.sources or in the log';
END $$;

CREATE TABLE realtime.sources (
    number     smallint    PRIMARY KEY DEFAULT realtime.free_source_number() CHECK (number > 0),
    kind       text        NOT NULL CHECK (kind ~ '^[A-Za-z0-9_.-]{1,32}$'),
    relation   text        NOT NULL,
    operations text[]      NOT NULL DEFAULT '{insert,update,delete}'
        CHECK (operations <> '{}' AND operations <@ '{insert,update,delete}'),
    audience   text        NOT NULL,
    fields     text[]      NOT NULL DEFAULT '{}',
    condition  text,
    channel    text        NOT NULL DEFAULT 'realtime_events',
    function   text        NOT NULL,
    preset     boolean     NOT NULL DEFAULT false CHECK (preset = (number < 16)),
    retired_at timestamptz,
    CHECK (preset OR channel = 'realtime_events'),
    CHECK (preset OR function = 'source_' || number)
);
CREATE UNIQUE INDEX sources_in_force ON realtime.sources (kind) WHERE retired_at IS NULL;
COMMENT ON TABLE realtime.sources IS
    'Which changes of which tables are events. A row is one version of a source: it is never changed, only retired, and '
    'another row takes its place. realtime.repair_triggers() makes functions and triggers from the rows.';
COMMENT ON COLUMN realtime.sources.number IS
    'Written into the log with each event of the source. Used again only when no row of the log has it.';
COMMENT ON COLUMN realtime.sources.kind IS 'The events'' type. At most 256 different ones, retired sources included.';
COMMENT ON COLUMN realtime.sources.relation IS 'The table, with its schema, each quoted where it has to be.';
COMMENT ON COLUMN realtime.sources.operations IS 'Which changes of a row are events: insert, update, delete.';
COMMENT ON COLUMN realtime.sources.audience IS
    'Whose event it is: the name of a column of type uuid, or a query that returns users'' ids and may use NEW and OLD.';
COMMENT ON COLUMN realtime.sources.fields IS 'The columns that the event shows besides the primary key.';
COMMENT ON COLUMN realtime.sources.condition IS
    'An expression over NEW and OLD; a change for which it is not true is no event. Null: each change is one.';
COMMENT ON COLUMN realtime.sources.channel IS 'The channel that the events notify.';
COMMENT ON COLUMN realtime.sources.function IS 'The trigger''s function in schema realtime.';
COMMENT ON COLUMN realtime.sources.preset IS 'Whether it is one of HushNet''s, whose functions come with this schema.';
COMMENT ON COLUMN realtime.sources.retired_at IS
    'When it ceased to make events; the row stays while the log may have some. Null: it is in force.';

-- HushNet's sources. `missing` is what keeps one from being installed in this database: an application's own table may
-- have the name of one of HushNet's and another shape. The program reads the text between the marks too, for a database
-- that does not have this function yet (`src/store/sources.rs`).
CREATE FUNCTION realtime.presets()
RETURNS TABLE (number smallint, kind text, relation text, operations text[], audience text, channel text,
               function text, missing text)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $presets$
    SELECT preset.number::smallint, preset.kind, preset.relation, preset.operations::text[], preset.audience,
           preset.channel, preset.function, (
        SELECT CASE
                   WHEN c.oid IS NULL THEN format('there is no table public.%s', used.table_name)
                   WHEN a.attname IS NULL THEN
                       format('public.%s has no column %s', used.table_name, used.column_name)
                   ELSE format('public.%s.%s is not of type %s', used.table_name, used.column_name, used.type_name)
               END
        FROM (VALUES
            (1, 'messages', 'chat_id', NULL), (1, 'messages', 'to_user_id', 'uuid'),
            (2, 'sessions', 'sender_device_id', 'uuid'), (2, 'sessions', 'receiver_device_id', 'uuid'),
            (2, 'devices', 'id', 'uuid'), (2, 'devices', 'user_id', 'uuid'),
            (3, 'devices', 'id', 'uuid'), (3, 'devices', 'user_id', 'uuid'), (3, 'devices', 'identity_pubkey', NULL),
            (4, 'pending_sessions', 'id', NULL), (4, 'pending_sessions', 'sender_device_id', NULL),
            (4, 'pending_sessions', 'recipient_device_id', 'uuid'), (4, 'pending_sessions', 'created_at', NULL),
            (4, 'devices', 'id', 'uuid'), (4, 'devices', 'user_id', 'uuid')
        ) AS used (number, table_name, column_name, type_name)
        LEFT JOIN (pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace)
            ON n.nspname = 'public' AND c.relname = used.table_name AND c.relkind IN ('r', 'p')
        LEFT JOIN pg_attribute a
            ON a.attrelid = c.oid AND a.attname = used.column_name AND a.attnum > 0 AND NOT a.attisdropped
        LEFT JOIN pg_type t ON t.oid = a.atttypid
        WHERE used.number = preset.number
          AND (a.attname IS NULL
               OR coalesce(nullif(t.typbasetype, 0), t.oid) <> to_regtype(used.type_name))
        ORDER BY c.oid IS NULL DESC, used.table_name DESC, used.column_name LIMIT 1)
    FROM (VALUES
        (1, 'message', 'public.messages', '{insert}', 'to_user_id', 'messages_channel', 'on_messages'),
        (2, 'session', 'public.sessions', '{insert}',
         'SELECT user_id FROM public.devices WHERE id IN (NEW.sender_device_id, NEW.receiver_device_id)',
         'sessions_channel', 'on_session'),
        (3, 'device', 'public.devices', '{insert,update,delete}', 'user_id', 'devices_channel', 'on_device'),
        (4, 'pending_session', 'public.pending_sessions', '{insert}',
         'SELECT user_id FROM public.devices WHERE id = NEW.recipient_device_id',
         'pending_sessions_channel', 'on_pending_session')
    ) AS preset (number, kind, relation, operations, audience, channel, function)
$presets$;

-- The sources that are to have triggers: those in force, and those of the preset that can be installed.
CREATE FUNCTION realtime.expected_sources()
RETURNS TABLE (number smallint, relation text, operations text[], function text)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT number, relation, operations, function FROM realtime.sources WHERE retired_at IS NULL
    UNION ALL
    SELECT number, relation, operations, function FROM realtime.presets() AS preset
    WHERE missing IS NULL AND NOT EXISTS (
        SELECT FROM realtime.sources AS s WHERE s.kind = preset.kind AND s.retired_at IS NULL)
$$;

-- The triggers that write the log, each with its table and what CREATE TRIGGER says of it. A table that is required and
-- not there is a fault. The program reads the text between the marks too.
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

-- What realtime.repair_triggers() changes. A trigger of ours on another table goes: a table that was renamed has taken
-- it along. It stays while nothing has its table's name. The program reads the text between the marks too.
CREATE FUNCTION realtime.misplaced_triggers()
RETURNS TABLE (change text, name text, relation text, trigger_oid oid)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $misplaced$
    WITH own AS MATERIALIZED (
        SELECT name, relation, function::oid AS function_oid, to_regclass(relation)::oid AS table_oid
        FROM realtime.own_triggers()
    ), placed AS MATERIALIZED (
        SELECT t.oid, t.tgrelid, t.tgname FROM pg_trigger t
        JOIN own ON own.function_oid = t.tgfoid AND own.table_oid = t.tgrelid AND own.name = t.tgname
        WHERE t.tgenabled = 'A'
    ), found AS (
        SELECT t.oid, t.tgname::text AS name, format('%s.%I', c.relnamespace::regnamespace, c.relname) AS relation,
               t.tgrelid AS table_oid, p.proname, p.oid AS function_oid, n.nspname = 'realtime' AS is_ours
        FROM pg_trigger t JOIN pg_proc p ON p.oid = t.tgfoid JOIN pg_namespace n ON n.oid = p.pronamespace
        JOIN pg_class c ON c.oid = t.tgrelid
        WHERE NOT t.tgisinternal AND t.tgparentid = 0 AND c.relnamespace::regnamespace::text <> 'realtime'
    )
    -- The application's own notifying triggers on the preset's tables, known by their names or by their functions.
    SELECT 'removed' AS change, found.name, found.relation, found.oid
    FROM found JOIN own USING (table_oid)
    WHERE NOT is_ours
      AND own.name IN ('realtime_messages', 'realtime_sessions', 'realtime_devices', 'realtime_pending_sessions')
      AND (found.name IN ('messages_notify_trigger', 'sessions_notify_trigger', 'devices_notify_trigger',
                          'pending_sessions_notify_trigger')
           OR proname IN ('notify_new_message', 'notify_new_session', 'notify_device_update',
                          'notify_new_pending_session'))
    UNION ALL
    SELECT 'dropped', found.name, found.relation, found.oid FROM found
    WHERE is_ours AND oid NOT IN (SELECT oid FROM placed)
      AND NOT EXISTS (SELECT FROM own WHERE own.function_oid = found.function_oid AND own.table_oid IS NULL)
    UNION ALL
    SELECT 'created', name::text, relation, NULL FROM own
    WHERE table_oid IS NOT NULL AND NOT EXISTS (
        SELECT FROM placed WHERE placed.tgrelid = own.table_oid AND placed.tgname = own.name)
    ORDER BY relation, change DESC, name
$misplaced$;

CREATE OR REPLACE FUNCTION realtime.application_triggers() RETURNS SETOF pg_trigger
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT * FROM pg_trigger
    WHERE oid IN (SELECT trigger_oid FROM realtime.misplaced_triggers() WHERE change = 'removed')
$$;

-- Locks the tables whose triggers are to be changed. Each attempt ends within 0.2 s for each table, before PostgreSQL's
-- search for deadlocks (deadlock_timeout, 1 s) could end a transaction of the application, and gives its locks back.
CREATE OR REPLACE FUNCTION realtime.lock_application_tables() RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET lock_timeout = '200ms' AS $$
DECLARE
    give_up timestamptz := clock_timestamp() + interval '10 seconds';
    tables  text := (SELECT string_agg(DISTINCT relation, ', ') FROM realtime.misplaced_triggers());
BEGIN
    WHILE tables IS NOT NULL LOOP
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

CREATE FUNCTION realtime.has_audience_column(s realtime.sources) RETURNS boolean
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT EXISTS (
        SELECT FROM pg_attribute WHERE attrelid = to_regclass(s.relation) AND attname = s.audience
        AND attnum > 0 AND NOT attisdropped)
$$;

-- The query for the users whom the row of this name concerns.
CREATE FUNCTION realtime.audience_query(s realtime.sources, row_name text) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT CASE WHEN realtime.has_audience_column(s) THEN format('SELECT %s.%I', row_name, s.audience) ELSE s.audience END
$$;

-- What a source of one's own says of its table must hold: PostgreSQL itself reads the audience and the condition here,
-- as the trigger's function reads them, with two rows of the table for NEW and OLD. Nothing of them is executed.
CREATE FUNCTION realtime.check_definition(s realtime.sources) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    table_oid oid := to_regclass(s.relation);
    wrong     text;
    hint      text;
    query     text := 'SELECT pg_typeof(checked.it)::text FROM (VALUES (1)) AS one LEFT JOIN (SELECT '
        || E'%2$s(%3$s\n) AS it FROM %1$s AS new, %1$s AS old) AS checked ON false';
BEGIN
    IF NOT EXISTS (
        SELECT FROM pg_class WHERE oid = table_oid AND relkind IN ('r', 'p') AND relpersistence <> 't'
        AND relnamespace::regnamespace::text NOT IN ('realtime', 'pg_catalog', 'information_schema'))
    THEN
        wrong := format('%s is no table whose changes can be events', s.relation);
    ELSIF NOT EXISTS (SELECT FROM pg_index WHERE indrelid = table_oid AND indisprimary) THEN
        wrong := format('%s has no primary key, which the event would show', s.relation);
    ELSE
        SELECT format('%s has no column %I', s.relation, field) INTO wrong FROM unnest(s.fields) AS field
        WHERE field IS NULL OR NOT EXISTS (
            SELECT FROM pg_attribute
            WHERE attrelid = table_oid AND attname = field AND attnum > 0 AND NOT attisdropped);
        IF NOT realtime.has_audience_column(s) AND s.audience !~* '^[\s(]*(select|with|values|table)\y' THEN
            wrong := format('the audience %L is neither a column of %s nor a query', s.audience, s.relation);
        END IF;
    END IF;
    IF wrong IS NULL THEN
        BEGIN
            EXECUTE format(query, s.relation, 'ARRAY', realtime.audience_query(s, 'NEW')) INTO wrong;
            wrong := CASE WHEN wrong <> 'uuid[]' THEN
                format('the audience returns %s, and users'' ids are of type uuid', left(wrong, -2)) END;
            IF wrong IS NULL AND s.condition IS NOT NULL THEN
                EXECUTE format(query, s.relation, '', s.condition) INTO wrong;
                wrong := CASE WHEN wrong <> 'boolean' THEN
                    format('the condition is of type %s, not boolean', wrong) END;
            END IF;
        EXCEPTION WHEN OTHERS THEN
            wrong := format('PostgreSQL does not take its audience or its condition: %s', SQLERRM);
            hint := 'Columns are named as NEW.x or OLD.x; tables, and functions that are not PostgreSQL''s, with their schema.';
        END;
    END IF;
    IF wrong IS NOT NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
            MESSAGE = format('the source of the kind %s: %s', s.kind, wrong),
            HINT = coalesce(hint, 'Nothing has been changed.');
    END IF;
END $$;

CREATE FUNCTION realtime.check_source() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    same  realtime.sources;
    wrong text;
BEGIN
    IF TG_OP = 'UPDATE' THEN
        same := NEW;
        same.retired_at := OLD.retired_at;
        IF same OPERATOR(pg_catalog.*<>) OLD THEN
            RAISE EXCEPTION USING ERRCODE = 'object_not_in_prerequisite_state',
                MESSAGE = 'a source is never changed',
                HINT = 'Retire it with realtime.remove_source() and add another in its place.';
        END IF;
        RETURN NEW;
    END IF;
    -- Of two that are added at once each counts the other.
    PERFORM pg_advisory_xact_lock(hashtextextended('realtime.sources', 0));
    wrong := CASE
        WHEN NEW.kind !~ '^[A-Za-z0-9_.-]{1,32}$' THEN
            'it has 1 to 32 characters, each a letter, a digit, or one of _ . -'
        WHEN NEW.kind IN ('hello', 'reset', 'cursor', 'ping', 'pong', 'error', 'goaway', 'auth', 'authenticated',
                          'revocation', 'truncated', 'barrier', 'typing', 'presence', 'receipt', 'ack', 'other') THEN
            'the protocol uses the name itself'
        WHEN EXISTS (SELECT FROM realtime.sources WHERE kind = NEW.kind AND retired_at IS NULL) THEN
            'a source of this kind is in force; retire it with realtime.remove_source() first'
        WHEN (SELECT count(DISTINCT kind) FROM realtime.sources WHERE kind <> NEW.kind) >= 256 THEN
            'there are 256 different kinds already, those of retired sources included, and there can be no more'
    END;
    IF wrong IS NOT NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = format('the kind %L: %s', NEW.kind, wrong);
    END IF;
    IF NOT NEW.preset THEN
        NEW.function := 'source_' || NEW.number;
        NEW.relation := coalesce((
            SELECT format('%s.%I', relnamespace::regnamespace, relname) FROM pg_class
            WHERE oid = to_regclass(NEW.relation)), NEW.relation);
        PERFORM realtime.check_definition(NEW);
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER check_source BEFORE INSERT OR UPDATE ON realtime.sources
    FOR EACH ROW EXECUTE FUNCTION realtime.check_source();

-- Expressions for the row of this name: a JSON object of its columns.
CREATE FUNCTION realtime.json_of_columns(row_name text, columns name[]) RETURNS text
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT format('(SELECT row_to_json(realtime_columns) FROM (SELECT %s) AS realtime_columns)',
        string_agg(format('%1$s.%2$I AS %2$I', row_name, column_name), ', ' ORDER BY position))
    FROM unnest(columns) WITH ORDINALITY AS listed (column_name, position)
$$;

-- The text of the trigger's function of a source of one's own. The variables have names that no column will have.
CREATE FUNCTION realtime.source_text(s realtime.sources) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    key_columns name[] := ARRAY(
        SELECT a.attname FROM pg_index i, unnest(i.indkey) WITH ORDINALITY AS listed (attnum, position)
        JOIN pg_attribute a USING (attnum)
        WHERE i.indrelid = to_regclass(s.relation) AND i.indisprimary AND a.attrelid = i.indrelid ORDER BY position);
    event text := format('PERFORM realtime.emit(%1$L, realtime_user, %2$L, %3$s::smallint, json_build_object('
            '''type'', %2$L, ''op'', realtime_op, ''user_id'', realtime_user, ''key'', %4$s%5$s));',
        s.channel, s.kind, s.number, realtime.json_of_columns('realtime_row', key_columns),
        CASE WHEN s.fields <> '{}' THEN ', ''row'', ' || realtime.json_of_columns('realtime_row', s.fields::name[]) END);
BEGIN
    RETURN format($body$
#variable_conflict use_column
DECLARE
    realtime_op   text := lower(TG_OP);
    realtime_row  record;
    realtime_user uuid;
BEGIN
    IF (%1$s
    ) IS NOT TRUE THEN
        RETURN NULL;
    END IF;
    IF TG_OP = 'DELETE' THEN
        realtime_row := OLD;
    ELSE
        realtime_row := NEW;
    END IF;
    FOR realtime_user IN SELECT DISTINCT u FROM unnest(ARRAY(%2$s
    )) AS u WHERE u IS NOT NULL LOOP
        %3$s
    END LOOP;%4$s
    RETURN NULL;
END $body$,
        coalesce(s.condition, 'true'), realtime.audience_query(s, 'realtime_row'), event,
        CASE WHEN realtime.has_audience_column(s) THEN format($moved$
    -- For the user whose row it was, it is gone: the new one is not theirs to see.
    IF TG_OP = 'UPDATE' AND OLD.%1$I IS DISTINCT FROM NEW.%1$I AND OLD.%1$I IS NOT NULL THEN
        realtime_op := 'delete';
        realtime_row := OLD;
        realtime_user := OLD.%1$I;
        %2$s
    END IF;$moved$, s.audience, event) END);
END $$;

-- Makes the functions that are missing.
CREATE FUNCTION realtime.make_source_functions() RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    s     realtime.sources;
    owner name := (SELECT pg_get_userbyid(relowner) FROM pg_class WHERE oid = 'realtime.events'::regclass);
BEGIN
    FOR s IN SELECT * FROM realtime.sources WHERE NOT preset AND retired_at IS NULL LOOP
        CONTINUE WHEN to_regclass(s.relation) IS NULL
            OR to_regprocedure(format('realtime.%I()', s.function)) IS NOT NULL;
        EXECUTE format('CREATE FUNCTION realtime.%I() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER '
            'SET search_path = pg_catalog, pg_temp AS %L', s.function, realtime.source_text(s));
        EXECUTE format('REVOKE ALL ON FUNCTION realtime.%I() FROM PUBLIC', s.function);
        EXECUTE format('ALTER FUNCTION realtime.%I() OWNER TO %I', s.function, owner);
    END LOOP;
END $$;

-- Drops the functions of sources that are not in force.
CREATE FUNCTION realtime.drop_source_functions() RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    dropped name;
BEGIN
    FOR dropped IN
        SELECT proname FROM pg_proc AS p
        WHERE pronamespace = 'realtime'::regnamespace AND proname ~ '^source_[0-9]+$'
          AND NOT EXISTS (SELECT FROM realtime.sources WHERE function = proname AND retired_at IS NULL)
          AND NOT EXISTS (SELECT FROM pg_trigger WHERE tgfoid = p.oid)
    LOOP
        EXECUTE format('DROP FUNCTION realtime.%I()', dropped);
    END LOOP;
END $$;

-- Puts the preset's sources in force whose tables are here.
CREATE FUNCTION realtime.install_presets() RETURNS void
LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
    UPDATE realtime.sources SET retired_at = NULL
    WHERE retired_at IS NOT NULL AND number IN (SELECT number FROM realtime.expected_sources());
    INSERT INTO realtime.sources (number, kind, relation, operations, audience, channel, function, preset)
    SELECT number, kind, relation, operations, audience, channel, function, true
    FROM realtime.presets() JOIN realtime.expected_sources() USING (number, relation, operations, function)
    WHERE number NOT IN (SELECT number FROM realtime.sources)
$$;

-- Puts every trigger of ours in its place, enabled, and makes the functions of sources that were added; returns the
-- tables where a trigger was not in its place. Changes nothing, and takes no lock, where all are.
CREATE OR REPLACE FUNCTION realtime.repair_triggers() RETURNS text[]
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    own      record;
    wrong    record;
    repaired text[] := '{}';
BEGIN
    PERFORM realtime.install_presets();
    PERFORM realtime.make_source_functions();
    PERFORM realtime.lock_application_tables();
    PERFORM realtime.replace_application_triggers();
    FOR wrong IN SELECT name, relation FROM realtime.misplaced_triggers() WHERE change = 'dropped' LOOP
        EXECUTE format('DROP TRIGGER %I ON %s', wrong.name, wrong.relation);
    END LOOP;
    FOR own IN
        SELECT o.* FROM realtime.own_triggers() AS o, realtime.misplaced_triggers() AS m
        WHERE m.change = 'created' AND m.relation = o.relation AND m.name = o.name
    LOOP
        EXECUTE format('CREATE TRIGGER %I %s EXECUTE FUNCTION %s', own.name, own.fires, own.function);
        EXECUTE format('ALTER TABLE %s ENABLE ALWAYS TRIGGER %I', own.relation, own.name);
        IF own.relation <> ALL (repaired) THEN
            repaired := repaired || own.relation;
        END IF;
    END LOOP;
    PERFORM realtime.drop_source_functions();
    RETURN repaired;
END $$;

-- Adds a source and puts its trigger on the table; returns the source's number. An audience or a condition that fails
-- makes the application's statement fail.
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

-- Retires the source of the kind, and drops its trigger and its function. Its events stay in the log.
CREATE FUNCTION realtime.remove_source(kind text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    removed smallint;
BEGIN
    UPDATE realtime.sources AS s SET retired_at = clock_timestamp()
    WHERE s.kind = remove_source.kind AND s.retired_at IS NULL
    RETURNING s.number INTO removed;
    IF removed IS NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'undefined_object',
            MESSAGE = format('no source of the kind %s is in force', remove_source.kind);
    END IF;
    IF removed IN (SELECT number FROM realtime.expected_sources()) THEN
        RAISE EXCEPTION USING ERRCODE = 'object_not_in_prerequisite_state',
            MESSAGE = format('the kind %s is of the preset, and its table is here: migrate up would put it back',
                remove_source.kind);
    END IF;
    PERFORM realtime.repair_triggers();
END $$;

-- For servers, after a partition of the log was opened: deletes the retired sources of which the log has no event.
CREATE FUNCTION realtime.forget_sources() RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    oldest  timestamptz := (SELECT min(opened_at) FROM realtime.partitions);
    retired smallint;
BEGIN
    FOR retired IN SELECT number FROM realtime.sources WHERE retired_at < oldest LOOP
        IF NOT EXISTS (SELECT FROM realtime.events WHERE source = retired) THEN
            DELETE FROM realtime.sources WHERE number = retired AND retired_at < oldest;
        END IF;
    END LOOP;
END $$;

-- What the triggers of the schema before tell of, whether or not its table is still there.
INSERT INTO realtime.sources (number, kind, relation, operations, audience, channel, function, preset)
SELECT number, kind, relation, operations, audience, channel, function, true FROM realtime.presets() WHERE number <= 3;

-- What can be installed besides.
SELECT realtime.install_presets();

-- Writes one event of a source to the log and, unless a server reads the log anyway, notifies its channel. `body` is
-- the event's JSON object without its id. The id makes equal events of one transaction different, so that PostgreSQL
-- does not collapse their notifications.
CREATE FUNCTION realtime.emit(channel text, user_id uuid, kind text, source smallint, body json) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    event_id bigint := nextval('realtime.events_id_seq');
    event_payload text := left(body::text, -1) || ', "id" : ' || event_id
        || CASE current_setting('synchronous_commit') WHEN 'off' THEN ', "asynchronous" : true}' ELSE '}' END;
    way text;
    open_slot smallint;
BEGIN
    SELECT ingest, slot INTO way, open_slot FROM realtime.state;
    INSERT INTO realtime.events (slot, id, user_id, kind, payload, source)
    VALUES (coalesce(open_slot, 0), event_id, emit.user_id, emit.kind, event_payload, emit.source);
    -- The mode is null to a transaction whose snapshot is older than the log: its events notify.
    IF (way = 'tail'
        OR way = 'adaptive' AND NOT pg_try_advisory_xact_lock_shared(realtime.doorbell())) IS NOT TRUE THEN
        PERFORM realtime.announce(channel, kind, user_id, event_id, event_payload);
    END IF;
END $$;

-- A revocation is no source's.
CREATE OR REPLACE FUNCTION realtime.emit(channel text, user_id uuid, kind text, body json) RETURNS void
LANGUAGE sql AS $$
    SELECT realtime.emit(channel, user_id, kind, NULL, body)
$$;

CREATE OR REPLACE FUNCTION realtime.on_messages() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    way text;
    open_slot smallint;
    silent boolean;
    ending text := CASE current_setting('synchronous_commit') WHEN 'off' THEN ', "asynchronous" : true}' ELSE '}' END;
    event record;
BEGIN
    SELECT ingest, slot INTO way, open_slot FROM realtime.state;
    silent := way = 'tail'
        OR way = 'adaptive' AND NOT pg_try_advisory_xact_lock_shared(realtime.doorbell());
    FOR event IN
        INSERT INTO realtime.events (slot, id, user_id, kind, payload, source)
        SELECT coalesce(open_slot, 0), id, to_user_id, 'message', left(json_build_object(
            'type', 'message', 'chat_id', chat_id, 'user_id', to_user_id, 'id', id)::text, -1) || ending, 1
        FROM (SELECT nextval('realtime.events_id_seq') AS id, chat_id, to_user_id
              FROM inserted WHERE to_user_id IS NOT NULL) AS messages
        RETURNING user_id, id, payload
    LOOP
        -- All rows have been written when the first is returned.
        EXIT WHEN silent;
        PERFORM realtime.announce(
            'messages_channel', 'message', event.user_id, event.id, event.payload);
    END LOOP;
    RETURN NULL;
END $$;

CREATE OR REPLACE FUNCTION realtime.on_session() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    device_owner uuid;
BEGIN
    -- One event for each user, also when both devices are the same user's.
    FOR device_owner IN
        SELECT DISTINCT d.user_id FROM public.devices d
        WHERE d.id IN (NEW.sender_device_id, NEW.receiver_device_id)
    LOOP
        PERFORM realtime.emit('sessions_channel', device_owner, 'session', 2::smallint, json_build_object(
            'type', 'session', 'user_id', device_owner,
            'sender_device_id', NEW.sender_device_id,
            'receiver_device_id', NEW.receiver_device_id));
    END LOOP;
    RETURN NULL;
END $$;

-- Of the table's type it needs no name: the function is made where there is no such table.
CREATE OR REPLACE FUNCTION realtime.on_device() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    changed record;
    device_owner uuid;
BEGIN
    IF TG_OP = 'UPDATE' THEN
        changed := NEW;
        BEGIN
            changed.last_seen := OLD.last_seen;
        EXCEPTION WHEN undefined_column THEN
            -- These devices have none.
        END;
        -- Compared byte by byte: no column's type needs an equality operator, as json has none.
        IF NOT (changed OPERATOR(pg_catalog.*<>) OLD) THEN
            RETURN NULL;
        END IF;
    END IF;
    -- A device that changes hands concerns both users. OLD is null on INSERT, NEW on DELETE.
    FOR device_owner IN
        SELECT DISTINCT u FROM unnest(ARRAY[OLD.user_id, NEW.user_id]) AS u WHERE u IS NOT NULL
    LOOP
        PERFORM realtime.emit('devices_channel', device_owner, 'device', 3::smallint,
            json_build_object('type', 'device', 'user_id', device_owner));
    END LOOP;
    -- Whose it no longer is, no longer listens with it.
    IF OLD.user_id IS DISTINCT FROM NEW.user_id AND OLD.user_id IS NOT NULL THEN
        PERFORM realtime.revoke(OLD.user_id, OLD.id);
    END IF;
    RETURN NULL;
END $$;

CREATE FUNCTION realtime.on_pending_session() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    device_owner uuid := (SELECT d.user_id FROM public.devices d WHERE d.id = NEW.recipient_device_id);
BEGIN
    IF device_owner IS NOT NULL THEN
        PERFORM realtime.emit('pending_sessions_channel', device_owner, 'pending_session', 4::smallint,
            json_build_object(
                'type', 'pending_session', 'user_id', device_owner, 'recipient_device_id', NEW.recipient_device_id,
                'sender_device_id', NEW.sender_device_id, 'pending_session_id', NEW.id,
                'created_at', NEW.created_at));
    END IF;
    RETURN NULL;
END $$;

RESET ROLE;

-- What no role was granted, none has.
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA realtime FROM PUBLIC;

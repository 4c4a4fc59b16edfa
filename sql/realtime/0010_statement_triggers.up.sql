-- Sources of one's own have a trigger for each statement instead of each row. The row as it was and the row as it is are
-- judged by the same audience and the same condition: who gains a row gets `insert`, and who loses it gets `delete`, which
-- shows the key alone. Audience, condition and casts run with the rights of the table's owner, and where they fail the
-- application's statement does not: the log has it that an event has failed, and every client fetches its state anew.
-- Sources that are in force already keep their triggers and their functions until they are retired and added again.

SET TRANSACTION ISOLATION LEVEL READ COMMITTED;

DO $$
BEGIN
    EXECUTE format('SET LOCAL ROLE %I', (
        SELECT pg_get_userbyid(relowner) FROM pg_class WHERE oid = 'realtime.log'::regclass));
END $$;

-- Servers that read the sources wait for this, and it rewrites nothing.
SET LOCAL lock_timeout = '10s';
ALTER TABLE realtime.sources
    ADD COLUMN for_rows      boolean NOT NULL DEFAULT false,
    ADD COLUMN keys          text[]  NOT NULL DEFAULT '{}',
    ADD COLUMN changed       boolean NOT NULL DEFAULT false,
    ADD COLUMN users_max     integer NOT NULL DEFAULT 10000 CHECK (users_max BETWEEN 1 AND 1000000),
    ADD COLUMN update_layout text[],
    ADD COLUMN delete_layout text[];
COMMENT ON COLUMN realtime.sources.keys IS
    'The columns that the event shows as its key: those named when the source was added, or those of the primary key then. '
    'Empty: it is not known.';
COMMENT ON COLUMN realtime.sources.for_rows IS
    'Whether its trigger fires for each row, whatever its table is, as logical replication needs it. Otherwise it has a '
    'trigger of statements for each operation, and one of rows only where these would err: see realtime.fires_for_rows().';
COMMENT ON COLUMN realtime.sources.changed IS
    'Whether an update shows only those of its fields that have changed, and is no event where none has.';
COMMENT ON COLUMN realtime.sources.users_max IS
    'The most users whom one row may concern, where a query names them. The event of a row that concerns more has failed.';
COMMENT ON COLUMN realtime.sources.update_layout IS 'The JSON of its updates; null: as that of the others.';
COMMENT ON COLUMN realtime.sources.delete_layout IS 'The JSON of its deletions; null: as that of the others.';
COMMENT ON COLUMN realtime.sources.audience IS
    'Whose event it is: the name of a column of the users'' type, or a query that returns users'' ids and may use NEW, which '
    'is the row as it is and, for UPDATE and DELETE, the row as it was.';
COMMENT ON COLUMN realtime.sources.condition IS
    'An expression over NEW, which is the row as it is or as it was; a row for which it is not true concerns nobody. Null: '
    'each row concerns its audience.';

-- As before, without the columns that an index merely includes.
CREATE OR REPLACE FUNCTION realtime.key_columns(relation text) RETURNS name[]
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT ARRAY(
        SELECT a.attname FROM pg_index i, unnest(i.indkey) WITH ORDINALITY AS listed (attnum, position)
        JOIN pg_attribute a USING (attnum)
        WHERE i.indrelid = to_regclass(relation) AND i.indisprimary AND a.attrelid = i.indrelid
          AND position <= i.indnkeyatts
        ORDER BY position)
$$;

ALTER TABLE realtime.sources DISABLE TRIGGER check_source;
UPDATE realtime.sources AS s SET for_rows = true, keys = CASE
    WHEN layout = realtime.source_layout(s) THEN realtime.key_columns(relation)::text[] ELSE '{}' END
WHERE NOT preset;
ALTER TABLE realtime.sources ENABLE TRIGGER check_source;

-- The columns that the event shows as its key. Of a table that was not there when the source was added it is not known.
CREATE FUNCTION realtime.keys_of(s realtime.sources) RETURNS text[]
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT CASE WHEN s.keys = '{}' THEN realtime.key_columns(s.relation)::text[] ELSE s.keys END
$$;

-- Whether no two rows of the table have these values, but for a moment in a transaction where a constraint is deferred.
CREATE FUNCTION realtime.are_unique(relation text, columns text[]) RETURNS boolean
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT EXISTS (
        SELECT FROM pg_index AS i WHERE indrelid = to_regclass(relation) AND indisunique AND indisvalid
            AND indpred IS NULL AND 0 <> ALL (indkey)
            AND ARRAY(SELECT attname::text FROM unnest(indkey) WITH ORDINALITY AS listed (attnum, position)
                      JOIN pg_attribute AS a USING (attnum) WHERE attrelid = indrelid AND position <= indnkeyatts) <@ columns
            AND NOT EXISTS (SELECT FROM pg_attribute AS a
                            WHERE attrelid = indrelid AND attnum = ANY (indkey) AND NOT attnotnull))
$$;

-- Whether the source has a trigger for each row:
-- - A statement that names another table than the partition or the child fires no trigger of statements there.
-- - Foreign keys with actions may write a row twice in one statement, or delete it after it was updated.
-- - The application's own triggers of rows fire before those of statements, and may write the row again.
-- - Without a unique key the rows of before and after make no pairs.
CREATE FUNCTION realtime.fires_for_rows(s realtime.sources) RETURNS boolean
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT s.for_rows OR NOT realtime.are_unique(s.relation, realtime.keys_of(s)) OR EXISTS (
        SELECT FROM pg_class WHERE oid = to_regclass(s.relation) AND (relkind = 'p' OR relispartition))
        OR EXISTS (SELECT FROM pg_inherits WHERE to_regclass(s.relation) IN (inhrelid, inhparent))
        OR EXISTS (SELECT FROM pg_constraint WHERE conrelid = to_regclass(s.relation) AND contype = 'f'
                   AND (confupdtype IN ('c', 'n', 'd') OR confdeltype IN ('c', 'n', 'd')))
        OR EXISTS (SELECT FROM pg_trigger JOIN pg_proc ON pg_proc.oid = tgfoid
                   WHERE tgrelid = to_regclass(s.relation) AND NOT tgisinternal AND tgtype & 3 = 1
                     AND pronamespace <> 'realtime'::regnamespace)
$$;

-- As before, with a trigger for each operation where a source has triggers of statements.
CREATE OR REPLACE FUNCTION realtime.own_triggers()
RETURNS TABLE (name name, relation text, required boolean, function regprocedure, fires text)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $own$
    WITH source AS MATERIALIZED (
        SELECT e.*, number < 16 OR coalesce((
            SELECT realtime.fires_for_rows(s) FROM realtime.sources AS s WHERE s.number = e.number), true) AS for_rows
        FROM realtime.expected_sources() AS e
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
        FROM source WHERE for_rows
        UNION ALL
        SELECT format('realtime_source_%s_%s', number, operation), relation, true, function,
               format('AFTER %s ON %s REFERENCING %s FOR EACH STATEMENT', upper(operation), relation, concat_ws(' ',
                   CASE WHEN operation <> 'insert' THEN 'OLD TABLE AS realtime_before' END,
                   CASE WHEN operation <> 'delete' THEN 'NEW TABLE AS realtime_after' END))
        FROM source, LATERAL (SELECT DISTINCT unnest(operations)) AS each (operation) WHERE NOT for_rows
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

-- As before, with one row, which is the row as it was, too. It has the type of no table, as in the trigger. A policy of row
-- security would be executed while PostgreSQL plans, with the rights of whoever adds the source: it is refused instead.
CREATE OR REPLACE FUNCTION realtime.audience_type(s realtime.sources, OUT user_type text, OUT wrong text)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET row_security = off AS $$
DECLARE
    -- Nothing of the audience is executed.
    users       text := realtime.audience_query(s, 'NEW');
    rows        text := format('(SELECT %s FROM %s)', realtime.seen_columns(s.relation), s.relation);
    query       text := format(E'(VALUES (1)) AS one LEFT JOIN (SELECT ARRAY(%2$s\n) AS it FROM %1$s AS new)'
        ' AS checked ON false', rows, users);
    type_oid    oid;
    base        oid;
    found       oid;
BEGIN
    -- It returns one column. An array of arrays has the type of an array, so that the type is asked of the column.
    EXECUTE 'SELECT FROM ' || query;
    EXECUTE format(E'SELECT pg_typeof(checked.it)::oid FROM (VALUES (1)) AS one LEFT JOIN (SELECT audience.it '
        'FROM %1$s AS new, LATERAL (%2$s\n) AS audience (it)) AS checked ON false', rows, users)
    INTO type_oid;
    WITH RECURSIVE domain (oid, depth) AS (
        SELECT type_oid, 0
        UNION ALL
        SELECT t.typbasetype, depth + 1 FROM domain JOIN pg_type AS t USING (oid) WHERE t.typtype = 'd'
    )
    SELECT domain.oid INTO base FROM domain ORDER BY depth DESC LIMIT 1;
    user_type := CASE
        WHEN base = 'uuid'::regtype THEN 'uuid'
        WHEN base IN ('smallint'::regtype, 'integer'::regtype, 'bigint'::regtype) THEN 'bigint'
        WHEN base IN ('text'::regtype, 'varchar'::regtype) THEN 'text'
    END;
    IF user_type IS NULL THEN
        wrong := CASE WHEN (SELECT typname FROM pg_type WHERE oid = base) = 'citext' THEN
                'the audience returns citext, to which different texts are equal; a user''s id is known by its bytes'
            WHEN EXISTS (SELECT FROM pg_type WHERE oid = base AND typcategory = 'A') THEN
                format('the audience returns arrays (%s); a query returns their elements: SELECT unnest(NEW.users)',
                    format_type(type_oid, NULL))
            ELSE format('the audience returns %s, and users'' ids are of type uuid, bigint or text',
                format_type(type_oid, NULL)) END;
    ELSIF user_type = 'text' THEN
        EXECUTE 'SELECT to_regcollation(pg_collation_for(checked.it))::oid FROM ' || query INTO found;
        SELECT format('the audience has the collation %s, which is nondeterministic: different texts are equal to it; a '
                'user''s id is known by its bytes', found::regcollation)
        INTO wrong FROM pg_collation AS c WHERE c.oid = found AND NOT collisdeterministic;
    END IF;
END $$;

-- Why changes of the table cannot be events; null if they can be. A statement's trigger sees no rows of children, and a
-- virtual generated column has no value there.
CREATE FUNCTION realtime.wrong_table(s realtime.sources) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    table_oid oid := to_regclass(s.relation);
    shown     text[] := s.fields || realtime.keys_of(s) || CASE WHEN realtime.has_audience_column(s) THEN s.audience END;
BEGIN
    IF NOT EXISTS (
        SELECT FROM pg_class WHERE oid = table_oid AND relkind IN ('r', 'p') AND relpersistence <> 't'
        AND relnamespace::regnamespace::text NOT IN ('realtime', 'pg_catalog', 'information_schema'))
    THEN
        RETURN CASE WHEN table_oid IS NULL THEN format('there is no table %s', s.relation)
                    ELSE format('%s is no table whose changes can be events', s.relation) END;
    END IF;
    RETURN CASE
        WHEN realtime.keys_of(s) = '{}' THEN
            format('%s has no primary key, which the event would show, and no columns are named as its key', s.relation)
        WHEN EXISTS (
            SELECT FROM pg_inherits JOIN pg_class AS parent ON parent.oid = inhparent
            WHERE table_oid IN (inhrelid, inhparent) AND parent.relkind <> 'p') THEN
            format('%s inherits from a table, or another inherits from it: a statement that names the one changes rows of '
                   'the other', s.relation)
        WHEN NOT s.for_rows AND EXISTS (SELECT FROM pg_subscription_rel WHERE srrelid = table_oid) THEN
            format('%s is fed by a subscription, whose changes fire triggers of rows alone: name it as a replica', s.relation)
        WHEN EXISTS (SELECT FROM pg_subscription_rel WHERE srrelid = table_oid AND srsubstate <> 'r') THEN
            format('the initial copy of %s by its subscription has not ended, and would be events', s.relation)
        WHEN cardinality(s.fields) <> (SELECT count(DISTINCT field) FROM unnest(s.fields) AS field)
          OR cardinality(s.keys) <> (SELECT count(DISTINCT key) FROM unnest(s.keys) AS key) THEN
            'a column is named twice, or is null'
        WHEN s.changed AND s.fields = '{}' THEN
            'updates are to show what has changed of the fields, and there are no fields'
        ELSE (
            SELECT CASE WHEN attname IS NULL THEN format('%s has no column %I', s.relation, name)
                        ELSE format('%s.%I is a virtual generated column, which a trigger does not see', s.relation, name) END
            FROM unnest(shown) AS name LEFT JOIN pg_attribute
                ON attrelid = table_oid AND attname = name AND attnum > 0 AND NOT attisdropped
            WHERE name IS NOT NULL AND (attname IS NULL OR attgenerated = 'v') LIMIT 1)
    END;
END $$;

-- The columns of the table that a trigger sees.
CREATE FUNCTION realtime.seen_columns(relation text) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT coalesce(string_agg(format('%I', attname), ', ' ORDER BY attnum), '') FROM pg_attribute
    WHERE attrelid = to_regclass(relation) AND attnum > 0 AND NOT attisdropped AND attgenerated <> 'v'
$$;

CREATE OR REPLACE FUNCTION realtime.check_definition(s realtime.sources) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET row_security = off SET standard_conforming_strings = on AS $$
DECLARE
    wrong text := realtime.wrong_table(s);
    hint  text;
    rows  text := format('(SELECT %s FROM %s)', realtime.seen_columns(s.relation), s.relation);
BEGIN
    IF wrong IS NULL AND NOT realtime.has_audience_column(s) AND s.audience !~* '^[\s(]*(select|with|values|table)\y' THEN
        wrong := format('the audience %L is neither a column of %s nor a query', s.audience, s.relation);
    END IF;
    IF wrong IS NULL THEN
        BEGIN
            wrong := (realtime.audience_type(s)).wrong;
            IF wrong IS NULL AND s.condition IS NOT NULL THEN
                EXECUTE format(E'SELECT pg_typeof(checked.it)::text FROM (VALUES (1)) AS one LEFT JOIN (SELECT '
                    '(%2$s\n) AS it FROM %1$s AS new) AS checked ON false', rows, s.condition)
                INTO wrong;
                wrong := CASE WHEN wrong <> 'boolean' THEN
                    format('the condition is of type %s, not boolean', wrong) END;
            END IF;
            IF wrong IS NULL AND s.condition IS NOT NULL THEN
                EXECUTE format(E'SELECT FROM (VALUES (1)) AS one LEFT JOIN (SELECT FROM %1$s AS new '
                    'WHERE (%2$s\n)) AS checked ON false', rows, s.condition);
            END IF;
        EXCEPTION WHEN OTHERS THEN
            wrong := format('PostgreSQL does not take its audience or its condition: %s', SQLERRM);
            hint := 'Columns are named as NEW.x, which is asked of the row as it was, too, so that there is no OLD; tables, and '
                'functions that are not PostgreSQL''s, with their schema.';
        END;
    END IF;
    IF wrong IS NOT NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
            MESSAGE = format('the source of the kind %s: %s', s.kind, wrong),
            HINT = coalesce(hint, 'Nothing has been changed.');
    END IF;
END $$;

-- The JSON of a source's events: type, op, user and key, and then the ending. The fields of one's own are the user where
-- users are text, the key's columns, and what the ending shows.
CREATE FUNCTION realtime.key_layout(s realtime.sources, ending text[]) RETURNS text[]
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    keys      text[] := realtime.keys_of(s);
    user_type text := (SELECT coalesce(state.user_type, 'uuid') FROM realtime.state);
    before    integer := CASE user_type WHEN 'text' THEN 1 ELSE 0 END;
    literal   text := ', "key" : {';
    layout    text[];
BEGIN
    layout := ARRAY[format('{"type" : %s, "op" : ', to_json(s.kind)), 'op', ', "user_id" : ',
        CASE user_type WHEN 'uuid' THEN 'user' WHEN 'bigint' THEN 'bigint' ELSE '1' END];
    FOR number IN 1..cardinality(keys) LOOP
        layout := layout || (literal || to_json(keys[number]) || ':') || (before + number)::text;
        literal := ',';
    END LOOP;
    ending[1] := CASE keys WHEN '{}' THEN literal ELSE '' END || '}' || ending[1];
    RETURN layout || ending;
END $$;

-- The number of the first field after the key.
CREATE FUNCTION realtime.first_field(s realtime.sources) RETURNS integer
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT cardinality(realtime.keys_of(s)) + CASE user_type WHEN 'text' THEN 2 ELSE 1 END FROM realtime.state
$$;

-- As before, with the keys that are named.
ALTER FUNCTION realtime.source_layout(realtime.sources) RENAME TO source_layout_9;
CREATE FUNCTION realtime.source_layout(s realtime.sources) RETURNS text[]
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    literal text := ', "row" : {';
    ending  text[] := '{}';
BEGIN
    IF s.preset THEN
        RETURN realtime.source_layout_9(s);
    END IF;
    FOR number IN 1..cardinality(s.fields) LOOP
        ending := ending || (literal || to_json(s.fields[number]) || ':')
            || (realtime.first_field(s) + number - 1)::text;
        literal := ',';
    END LOOP;
    RETURN realtime.key_layout(s, ending || ARRAY[CASE s.fields WHEN '{}' THEN '' ELSE '}' END || ', "id" : ', 'id', '}']);
END $$;

CREATE OR REPLACE FUNCTION realtime.truncated_layout(s realtime.sources) RETURNS text[]
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT CASE WHEN s.preset THEN ARRAY[
                    format('{"type" : %s, "user_id" : ', to_json(s.kind)), 'user', ', "truncated" : true, "id" : ', 'id', '}']
                ELSE realtime.key_layout(s, ARRAY[', "truncated" : true, "id" : ', 'id', '}']) END
$$;

-- Null: as the others.
CREATE FUNCTION realtime.update_layout(s realtime.sources) RETURNS text[]
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT realtime.key_layout(s, ARRAY[', "changed" : ', realtime.first_field(s)::text, ', "id" : ', 'id', '}'])
    WHERE s.changed
$$;

CREATE FUNCTION realtime.delete_layout(s realtime.sources) RETURNS text[]
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT realtime.key_layout(s, ARRAY[', "id" : ', 'id', '}']) WHERE NOT s.preset AND s.fields <> '{}'
$$;

-- As before, with the keys that are named, and with layouts of updates and of deletions.
CREATE OR REPLACE FUNCTION realtime.check_source() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    same  realtime.sources;
    wrong text;
BEGIN
    IF TG_OP = 'UPDATE' THEN
        same := NEW;
        same.retired_at := OLD.retired_at;
        same.keys := OLD.keys;
        same.layout := OLD.layout;
        same.truncated_layout := OLD.truncated_layout;
        same.update_layout := OLD.update_layout;
        same.delete_layout := OLD.delete_layout;
        IF same OPERATOR(pg_catalog.*<>) OLD THEN
            RAISE EXCEPTION USING ERRCODE = 'object_not_in_prerequisite_state',
                MESSAGE = 'a source is never changed',
                HINT = 'Retire it with realtime.remove_source() and add another in its place.';
        END IF;
        RETURN NEW;
    END IF;
    PERFORM realtime.demand_read_committed();
    -- Of two that are added at once each counts the other.
    PERFORM pg_advisory_xact_lock(hashtextextended('realtime.sources', 0));
    wrong := CASE
        WHEN NEW.kind !~ '^[A-Za-z0-9_.-]{1,32}$' THEN
            'it has 1 to 32 characters, each a letter, a digit, or one of _ . -'
        WHEN NEW.kind IN ('hello', 'reset', 'cursor', 'ping', 'pong', 'error', 'goaway', 'auth', 'authenticated',
                          'revocation', 'truncated', 'event_failed', 'barrier', 'typing', 'presence', 'receipt', 'ack',
                          'other') THEN
            'the protocol uses the name itself'
        WHEN EXISTS (SELECT FROM realtime.sources WHERE kind = NEW.kind AND retired_at IS NULL) THEN
            format('a source of this kind is in force, of %s; end it with hushnet-realtime detach, or with '
                   'realtime.remove_source(), or name another kind',
                   (SELECT relation FROM realtime.sources WHERE kind = NEW.kind AND retired_at IS NULL LIMIT 1))
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
        NEW.keys := realtime.keys_of(NEW);
        PERFORM realtime.check_definition(NEW);
    END IF;
    PERFORM realtime.fix_user_type(NEW.kind,
        CASE WHEN NEW.preset THEN 'uuid' ELSE (realtime.audience_type(NEW)).user_type END);
    NEW.layout := realtime.source_layout(NEW);
    NEW.truncated_layout := realtime.truncated_layout(NEW);
    NEW.update_layout := realtime.update_layout(NEW);
    NEW.delete_layout := realtime.delete_layout(NEW);
    RETURN NEW;
END $$;

-- As before, by the layout of the operation.
CREATE OR REPLACE FUNCTION realtime.truncated_fields(
    source smallint, user_key uuid, op "char", id bigint, fields text[], bytes bigint
) RETURNS text[] LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    bytes_max CONSTANT integer := 1 << 20;
    s         realtime.sources;
    none      text[] := array_fill(''::text, ARRAY[cardinality(fields)]);
    kept      text[];
BEGIN
    SELECT * INTO s FROM realtime.sources WHERE number = source;
    IF op IS NULL OR s.number IS NULL
       OR bytes + octet_length(realtime.compose(
            CASE op WHEN 'u' THEN coalesce(s.update_layout, s.layout) WHEN 'd' THEN coalesce(s.delete_layout, s.layout)
                    ELSE s.layout END, user_key, op, id, none, false)) <= bytes_max THEN
        RETURN NULL;
    END IF;
    kept := ARRAY(
        SELECT CASE WHEN position::text = ANY (s.truncated_layout) THEN value END
        FROM unnest(fields) WITH ORDINALITY AS listed (value, position) ORDER BY position);
    IF octet_length(realtime.compose(s.truncated_layout, user_key, op, id, kept, false)) > bytes_max THEN
        -- Of a user whose id is text, it is the first of the values.
        kept := CASE s.truncated_layout[4] WHEN '1' THEN fields[1:1] ELSE array_fill(NULL::text, ARRAY[1]) END
            || array_fill(NULL::text, ARRAY[cardinality(fields) - 1]);
    END IF;
    RETURN kept;
END $$;

-- As before, by the layout of the operation.
CREATE OR REPLACE FUNCTION realtime.announce_text() RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $text$
    SELECT format($body$
BEGIN
    CASE number
    WHEN 0 THEN -- No source has it; CASE needs one.
        NULL;%s
    ELSE
        PERFORM pg_notify('realtime_control', 'changed');
    END CASE;
END $body$, string_agg(format($when$
    WHEN %s THEN
        PERFORM realtime.announce(%L, %L, user_key, id, %s);$when$,
        number, channel, kind, format(
            CASE WHEN user_type <> 'uuid' THEN 'left(%s, -1) || '', "user_key" : "'' || user_key || ''"}''' ELSE '%s' END,
            format('realtime.compose(%s, user_key, op, id, fields, asynchronous)',
                CASE WHEN coalesce(update_layout, delete_layout) IS NULL THEN quote_literal(layout)
                     ELSE format('CASE op WHEN ''u'' THEN %L WHEN ''d'' THEN %L ELSE %L::text[] END',
                                 coalesce(update_layout, layout), coalesce(delete_layout, layout), layout) END))),
        '' ORDER BY number))
    FROM realtime.sources, realtime.state
$text$;

-- As before, by the layout of the operation.
CREATE OR REPLACE VIEW realtime.events AS
SELECT slot, id, xid, user_key AS user_id,
       CASE WHEN payload IS NULL THEN (SELECT s.kind FROM realtime.sources AS s WHERE s.number = source)
            ELSE kind END AS kind,
       CASE WHEN payload IS NULL THEN (
                SELECT realtime.compose(
                    CASE WHEN op IN ('I', 'U', 'D') THEN s.truncated_layout
                         WHEN op = 'u' THEN coalesce(s.update_layout, s.layout)
                         WHEN op = 'd' THEN coalesce(s.delete_layout, s.layout)
                         ELSE s.layout END, user_key, op, id,
                    CASE WHEN body IS NULL THEN log.fields ELSE realtime.kept_fields(slot, body, log.fields) END, asynchronous)
                FROM realtime.sources AS s WHERE s.number = source)
            WHEN octet_length(payload) <= 1 << 20 THEN payload
            ELSE concat('{"type" : ', to_json(kind), ', "user_id" : ', to_json(user_key), ', "truncated" : true, "id" : ', id,
                        '}') END AS payload,
       created_at, source, op,
       CASE WHEN body IS NULL THEN log.fields ELSE realtime.kept_fields(slot, body, log.fields) END AS fields,
       asynchronous, payload IS NULL AS is_composed, bytes, body, CASE WHEN body IS NOT NULL THEN log.fields END AS own_fields
FROM realtime.log;

-- An event of a row, and of the users whom it concerns.
CREATE TYPE realtime.change AS (op "char", user_keys uuid[], users text[], fields text[]);
COMMENT ON TYPE realtime.change IS
    'What a trigger hands to realtime.write(): the operation, the users'' keys, where users'' ids are text their ids as JSON, '
    'and the values that the event shows.';

CREATE FUNCTION realtime.user_keys(users uuid[]) RETURNS uuid[]
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS 'SELECT users';
CREATE FUNCTION realtime.user_keys(users bigint[]) RETURNS uuid[]
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS 'SELECT ARRAY(SELECT realtime.user_key(id) FROM pg_catalog.unnest(users) AS id)';
CREATE FUNCTION realtime.user_keys(users text[]) RETURNS uuid[]
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS 'SELECT ARRAY(SELECT realtime.user_key(id) FROM pg_catalog.unnest(users) AS id)';

-- What an UPDATE of a row is to each user, where those who have the row now are not those who had it. No `both_fields`:
-- for those who had it before nothing has changed.
CREATE FUNCTION realtime.changes(
    now_keys uuid[], now_users text[], now_fields text[], both_fields text[],
    was_keys uuid[], was_users text[], was_fields text[]
) RETURNS realtime.change[] LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT coalesce(array_agg(ROW(op, user_keys, users, fields)::realtime.change), '{}') FROM (
        SELECT 'u' AS op, array_agg(key) AS user_keys, array_agg(id) AS users, both_fields AS fields
        FROM unnest(now_keys, now_users) AS u (key, id) WHERE key IN (SELECT unnest(was_keys)) AND both_fields IS NOT NULL
        UNION ALL
        SELECT 'i', array_agg(key), array_agg(id), now_fields
        FROM unnest(now_keys, now_users) AS u (key, id) WHERE key NOT IN (SELECT unnest(was_keys))
        UNION ALL
        SELECT 'd', array_agg(key), array_agg(id), was_fields
        FROM unnest(was_keys, was_users) AS u (key, id) WHERE key NOT IN (SELECT unnest(now_keys))
    ) AS each WHERE user_keys IS NOT NULL
$$;

-- Writes that an event of the source has failed: whoever reads it fetches the state anew.
CREATE FUNCTION realtime.write_failed(source smallint, sqlstate text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    event_id bigint := nextval('realtime.events_id_seq');
BEGIN
    INSERT INTO realtime.log (id, user_key, kind, payload)
    VALUES (event_id, NULL, 'event_failed',
            json_build_object('type', 'event_failed', 'source', write_failed.source, 'sqlstate', write_failed.sqlstate,
                              'id', event_id));
    IF realtime.notifies() THEN
        PERFORM pg_notify('realtime_control', 'changed');
    END IF;
END $$;

-- Makes the function that writes the changes of a source for the open partition: in one INSERT, or, where one of them is
-- long, one by one, so that a long body is written once. One event alone is written at half the cost. `has_user`: users'
-- ids are text.
CREATE FUNCTION realtime.make_change_writer() RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $make$
BEGIN
    EXECUTE (
        SELECT format($text$
CREATE OR REPLACE FUNCTION realtime.write(source smallint, has_user boolean, changes realtime.change[]) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    change realtime.change;
    kept   bigint[];
    event  record;
BEGIN
    IF cardinality(write.changes) = 1 AND cardinality(write.changes[1].user_keys) = 1 THEN
        change := write.changes[1];
        kept := realtime.emit(write.source, change.user_keys[1], change.op,
            CASE WHEN has_user THEN change.users[1] || change.fields ELSE change.fields END, NULL, has_user);
        RETURN;
    END IF;
    IF EXISTS (
        SELECT FROM unnest(write.changes) AS c
        WHERE pg_column_size(c.fields)
            + CASE WHEN has_user THEN (SELECT max(octet_length(id)) FROM unnest(c.users) AS id) ELSE 0 END > 1000)
    THEN
        FOREACH change IN ARRAY write.changes LOOP
            kept := NULL;
            FOR number IN 1..cardinality(change.user_keys) LOOP
                kept := realtime.emit(write.source, change.user_keys[number], change.op,
                    CASE WHEN has_user THEN change.users[number] || change.fields ELSE change.fields END, kept, has_user);
            END LOOP;
        END LOOP;
        RETURN;
    END IF;
    FOR event IN
        INSERT INTO realtime.%2$I (slot, id, user_key, source, op, fields, asynchronous)
        SELECT %1$s, nextval('realtime.events_id_seq'), u.user_key, write.source, c.op,
               CASE WHEN has_user THEN u.id || c.fields ELSE c.fields END, current_setting('synchronous_commit') = 'off'
        FROM unnest(write.changes) AS c, unnest(c.user_keys, c.users) AS u (user_key, id)
        RETURNING user_key, op, id, fields, asynchronous
    LOOP
        -- All rows have been written when the first is returned.
        EXIT WHEN NOT realtime.notifies();
        PERFORM realtime.announce(write.source, event.user_key, event.op, event.id, event.fields, event.asynchronous);
    END LOOP;
END $$
$text$, state.slot, name) FROM realtime.state JOIN realtime.partitions ON partitions.slot = state.slot);
END $make$;

CREATE OR REPLACE FUNCTION realtime.state_changed() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM realtime.make_writers();
    PERFORM realtime.make_change_writer();
    -- Before the notification of any transaction that may depend on a silent event.
    IF NEW.ingest <> OLD.ingest AND NEW.ingest <> 'notify' THEN
        PERFORM pg_notify('realtime_control', 'awake');
    END IF;
    RETURN NULL;
END $$;

-- The JSON of a column of the row NEW. Of a type that anyone may make (enums, ranges, composite types, arrays of these) it is
-- that of its text, or of an array of texts. Casts to json and to text may be anyone's, and would have the rights of the
-- table's owner; concat() calls the type's output function, which only a superuser makes.
CREATE FUNCTION realtime.column_json(relation text, name text) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    shown     text := 'new.' || realtime.quoted(name);
    of_column oid := (SELECT atttypid FROM pg_attribute
                      WHERE attrelid = to_regclass(relation) AND attname = name AND attnum > 0 AND NOT attisdropped);
    as_array  text := '';
    found     pg_type;
BEGIN
    LOOP
        SELECT * INTO found FROM pg_type WHERE oid = of_column;
        IF found.typtype = 'd' THEN
            of_column := found.typbasetype;
        ELSIF found.typcategory = 'A' AND found.typelem <> 0 THEN
            of_column := found.typelem;
            as_array := '::text[]';
        ELSE
            RETURN CASE WHEN found.typtype IN ('e', 'r', 'm', 'c') THEN
                    format('CASE num_nulls(%1$s) WHEN 0 THEN to_json(concat(%1$s)%2$s)::text END', shown, as_array)
                ELSE format('to_json(%s)::text', shown) END;
        END IF;
    END LOOP;
END $$;

-- The rows of this relation that concern somebody: n (their place in the statement, if `numbered`), user_keys, users (ids
-- of text as JSON), keys, fields (the keys' values and the source's). The window keeps a query from being asked twice of a
-- row. What was checked within parentheses is no other expression within two pairs.
CREATE FUNCTION realtime.rows_text(s realtime.sources, relation text, numbered boolean) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    user_type text := (SELECT coalesce(state.user_type, 'uuid') FROM realtime.state);
    is_text   boolean := user_type = 'text';
    is_column boolean := realtime.has_audience_column(s);
    id        text := format('new.%s::%s', realtime.quoted(s.audience), user_type);
    condition text := coalesce(s.condition, 'true');
    keys      text[] := ARRAY(SELECT realtime.column_json(s.relation, name)
                              FROM unnest(realtime.keys_of(s))
                                  WITH ORDINALITY AS listed (name, position)
                              ORDER BY position);
    fields    text[] := keys || ARRAY(SELECT realtime.column_json(s.relation, name)
                                      FROM unnest(s.fields) WITH ORDINALITY AS listed (name, position) ORDER BY position);
    shown     text := format('ARRAY[%s]::text[] AS keys, ARRAY[%s]::text[] AS fields',
                             array_to_string(keys, ', '), array_to_string(fields, ', '));
BEGIN
    IF is_column THEN
        RETURN format($rows$(
                SELECT %6$s AS n, ARRAY[realtime.user_key(%1$s)] AS user_keys, %2$s AS users,
                       %3$s
                FROM %4$s AS new WHERE ((%5$s
                )) AND %1$s IS NOT NULL
            )$rows$, id, CASE WHEN is_text THEN format('ARRAY[to_json(%s)::text]', id) ELSE 'NULL::text[]' END, shown,
            relation, condition, CASE WHEN numbered THEN 'row_number() OVER ()' ELSE '0' END);
    END IF;
    RETURN format($rows$(
                SELECT n, realtime.user_keys(ids) AS user_keys, %1$s AS users, keys, fields FROM (
                    SELECT row_number() OVER () AS n, ARRAY(SELECT DISTINCT u::%2$s FROM (%3$s
                           ) AS audience (u) WHERE u IS NOT NULL LIMIT %7$s) AS ids,
                           %4$s
                    FROM %5$s AS new WHERE (%6$s
                    )
                ) AS realtime_asked WHERE ids <> '{}'
            )$rows$, CASE WHEN is_text THEN 'ARRAY(SELECT to_json(id)::text FROM unnest(ids) AS id)' ELSE 'NULL::text[]' END,
        user_type || CASE WHEN is_text THEN ' COLLATE "C"' ELSE '' END, s.audience, shown, relation, condition,
        s.users_max + 1);
END $$;

-- The text of the trigger's function of a source of one's own. The variables have names that no column will have. Rows are
-- paired by what the event shows of their keys, so that a key that changes is one that goes and one that comes. What goes is
-- told first: to the client the two may be one key.
--
-- What fails is not the application's fault: the log has a row of it instead. What PostgreSQL raises for the statement itself
-- goes through: serialization and deadlocks (40), resources (53), an operator (57), the system (58), and lock_timeout.
CREATE OR REPLACE FUNCTION realtime.source_text(s realtime.sources) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    for_rows boolean := realtime.fires_for_rows(s);
    after    text := CASE WHEN for_rows THEN '(SELECT NEW.*)' ELSE 'realtime_after' END;
    before   text := CASE WHEN for_rows THEN '(SELECT OLD.*)' ELSE 'realtime_before' END;
    -- The schema before has no layout of deletions.
    gone     text := CASE WHEN s.delete_layout IS NULL THEN 'fields' ELSE 'keys' END;
    updated  text := 'realtime_now.fields';
    limited  text := '';
BEGIN
    IF s.changed THEN
        -- The values as they are, of those that are others than they were, as the members of a JSON object.
        updated := format($updated$CASE WHEN realtime_now.fields <> realtime_was.fields THEN realtime_now.keys || ('{' || substr(concat(VARIADIC ARRAY[%s]), 2) || '}') END$updated$, (
            SELECT string_agg(format(
                'CASE WHEN realtime_now.fields[%1$s] IS DISTINCT FROM realtime_was.fields[%1$s] '
                'THEN concat(%2$L, coalesce(realtime_now.fields[%1$s], ''null'')) END',
                cardinality(realtime.keys_of(s)) + position, ',' || to_json(name) || ':'), ', ' ORDER BY position)
            FROM unnest(s.fields) WITH ORDINALITY AS listed (name, position)));
    END IF;
    IF NOT realtime.has_audience_column(s) THEN
        limited := format($limited$
            IF cardinality(realtime_row.now_keys) > %1$s OR cardinality(realtime_row.was_keys) > %1$s THEN
                RAISE EXCEPTION USING ERRCODE = 'program_limit_exceeded',
                    MESSAGE = 'a row concerns more than %1$s users';
            END IF;$limited$, s.users_max);
    END IF;
    RETURN format($body$
#variable_conflict use_column
DECLARE
    realtime_bytes_max CONSTANT integer := 64 << 20;
    realtime_rows      refcursor;
    realtime_row       record;
    realtime_change    realtime.change;
    realtime_changes   realtime.change[] := '{}';
    realtime_bytes     bigint := 0;
    realtime_failed    text;
BEGIN
    BEGIN
        IF TG_OP = 'INSERT' THEN
            OPEN realtime_rows NO SCROLL FOR
                SELECT user_keys AS now_keys, users AS now_users, fields AS now_fields, NULL::text[] AS both_fields,
                       NULL::uuid[] AS was_keys, NULL::text[] AS was_users, NULL::text[] AS was_fields
                FROM %1$s AS realtime_now;
        ELSIF TG_OP = 'DELETE' THEN
            OPEN realtime_rows NO SCROLL FOR
                SELECT NULL::uuid[] AS now_keys, NULL::text[] AS now_users, NULL::text[] AS now_fields,
                       NULL::text[] AS both_fields, user_keys AS was_keys, users AS was_users, %7$s AS was_fields
                FROM %2$s AS realtime_was;
        ELSE
            OPEN realtime_rows NO SCROLL FOR
                SELECT realtime_now.user_keys AS now_keys, realtime_now.users AS now_users,
                       realtime_now.fields AS now_fields, %8$s AS both_fields,
                       realtime_was.user_keys AS was_keys, realtime_was.users AS was_users,
                       realtime_was.%7$s AS was_fields
                FROM %5$s AS realtime_now
                FULL JOIN %6$s AS realtime_was ON realtime_now.keys = realtime_was.keys
                ORDER BY realtime_now.n IS NOT NULL, coalesce(realtime_now.n, realtime_was.n);
        END IF;
        LOOP
            FETCH realtime_rows INTO realtime_row;
            EXIT WHEN NOT FOUND;%9$s
            IF realtime_row.was_keys IS NULL THEN
                realtime_changes := array_append(realtime_changes,
                    ROW('i', realtime_row.now_keys, realtime_row.now_users, realtime_row.now_fields)::realtime.change);
            ELSIF realtime_row.now_keys IS NULL THEN
                realtime_changes := array_append(realtime_changes,
                    ROW('d', realtime_row.was_keys, realtime_row.was_users, realtime_row.was_fields)::realtime.change);
            ELSIF realtime_row.now_keys = realtime_row.was_keys THEN
                IF realtime_row.both_fields IS NOT NULL THEN
                    realtime_changes := array_append(realtime_changes,
                        ROW('u', realtime_row.now_keys, realtime_row.now_users, realtime_row.both_fields)::realtime.change);
                END IF;
            ELSE
                -- One after another: joining two arrays copies both.
                FOREACH realtime_change IN ARRAY realtime.changes(
                    realtime_row.now_keys, realtime_row.now_users, realtime_row.now_fields, realtime_row.both_fields,
                    realtime_row.was_keys, realtime_row.was_users, realtime_row.was_fields)
                LOOP
                    realtime_changes := array_append(realtime_changes, realtime_change);
                END LOOP;
            END IF;
            realtime_bytes := realtime_bytes + pg_column_size(realtime_row);
            IF realtime_bytes > realtime_bytes_max THEN
                PERFORM realtime.write_%3$s(realtime_changes, NULL);
                realtime_changes := '{}';
                realtime_bytes := 0;
            END IF;
        END LOOP;
        CLOSE realtime_rows;
    EXCEPTION WHEN OTHERS OR ASSERT_FAILURE THEN
        IF left(SQLSTATE, 2) IN ('40', '53', '57', '58') OR SQLSTATE = '55P03' THEN
            RAISE;
        END IF;
        realtime_failed := SQLSTATE;
        realtime_changes := '{}';
        RAISE WARNING USING ERRCODE = SQLSTATE, MESSAGE = format('the event of %%s has failed: %%s', %4$L, SQLERRM),
            HINT = 'The statement goes on, and every client fetches its state anew. Mend what the source says of its table, '
                'or attach the table again.';
    END;
    IF realtime_failed IS NOT NULL OR realtime_changes <> '{}' THEN
        IF has_function_privilege('realtime.write_%3$s(realtime.change[], text)', 'EXECUTE') THEN
            PERFORM realtime.write_%3$s(realtime_changes, realtime_failed);
        ELSE
            RAISE WARNING USING ERRCODE = 'insufficient_privilege', MESSAGE = format('no event of %%s is written: %%I, who owns '
                    'the trigger''s function, has no right to realtime.write_%3$s()', %4$L, current_user),
                HINT = 'Run hushnet-realtime migrate up, which grants it; every client then fetches its state anew.';
        END IF;
    END IF;
    RETURN NULL;
END $body$, realtime.rows_text(s, after, false), realtime.rows_text(s, before, false), s.number, s.kind,
        realtime.rows_text(s, after, NOT for_rows), realtime.rows_text(s, before, NOT for_rows), gone, updated, limited);
END $$;

-- The functions of a source: the trigger's, which has the rights of the table's owner, and the one that writes events of
-- this source and no other, which has those of the log's. Values are written in UTC, ISO and hex, whatever the session is
-- set to. A query that row security would restrict fails.
CREATE OR REPLACE FUNCTION realtime.make_source_function(s realtime.sources) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    has_user    text := (SELECT coalesce(user_type = 'text', false) FROM realtime.state)::text;
    log_owner   name := (SELECT pg_get_userbyid(relowner) FROM pg_class WHERE oid = 'realtime.log'::regclass);
    table_owner name := (SELECT pg_get_userbyid(relowner) FROM pg_class WHERE oid = to_regclass(s.relation));
    may_create  boolean := has_schema_privilege(table_owner, 'realtime', 'CREATE');
    former      name;
    called      regprocedure;
BEGIN
    EXECUTE format('CREATE OR REPLACE FUNCTION realtime.write_%1$s(changes realtime.change[], failed text) RETURNS void '
        'LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS %2$L', s.number, format($body$
BEGIN
    IF failed IS NULL THEN
        PERFORM realtime.write(%1$s::smallint, %2$s, changes);
    ELSE
        PERFORM realtime.write_failed(%1$s::smallint, failed);
    END IF;
END $body$, s.number, has_user));
    EXECUTE format('REVOKE ALL ON FUNCTION realtime.write_%s FROM PUBLIC', s.number);
    EXECUTE format('ALTER FUNCTION realtime.write_%s OWNER TO %I', s.number, log_owner);
    EXECUTE format('CREATE OR REPLACE FUNCTION realtime.%I() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER '
        'SET search_path = pg_catalog, pg_temp SET row_security = off SET timezone = ''UTC'' SET datestyle = ''ISO'' '
        'SET intervalstyle = ''postgres'' SET bytea_output = ''hex'' SET extra_float_digits = 1 '
        'SET standard_conforming_strings = on SET transform_null_equals = off SET quote_all_identifiers = off AS %L',
        s.function, realtime.source_text(s));
    EXECUTE format('REVOKE ALL ON FUNCTION realtime.%I() FROM PUBLIC', s.function);
    -- Of an owner of before.
    FOR former IN
        SELECT DISTINCT pg_get_userbyid(acl.grantee)
        FROM pg_proc, aclexplode(proacl) AS acl
        WHERE oid = to_regprocedure(format('realtime.write_%s(realtime.change[], text)', s.number))
          AND acl.grantee NOT IN (0, proowner)
    LOOP
        EXECUTE format('REVOKE ALL ON FUNCTION realtime.write_%s FROM %I', s.number, former);
    END LOOP;
    IF table_owner = log_owner THEN
        EXECUTE format('ALTER FUNCTION realtime.%I() OWNER TO %I', s.function, log_owner);
        RETURN;
    END IF;
    -- To all: the function of a role without it, as after REASSIGN OWNED, could not be compiled, and would fail the
    -- application's statement. It lets nobody read, write or execute anything.
    GRANT USAGE ON SCHEMA realtime TO PUBLIC;
    -- Only who may create a function may be given one.
    IF NOT may_create THEN
        EXECUTE format('GRANT CREATE ON SCHEMA realtime TO %I', table_owner);
    END IF;
    EXECUTE format('ALTER FUNCTION realtime.%I() OWNER TO %I', s.function, table_owner);
    IF NOT may_create THEN
        EXECUTE format('REVOKE CREATE ON SCHEMA realtime FROM %I', table_owner);
    END IF;
    FOR called IN
        SELECT oid FROM pg_proc WHERE pronamespace = 'realtime'::regnamespace
            AND proname IN ('user_key', 'user_keys', 'changes', 'write_' || s.number)
    LOOP
        EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO %I', called, table_owner);
    END LOOP;
END $$;

CREATE OR REPLACE FUNCTION realtime.drop_source_functions() RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    dropped record;
BEGIN
    FOR dropped IN
        SELECT p.oid::regprocedure AS function, to_regprocedure(format(
            'realtime.write_%s(realtime.change[], text)', substr(proname, 8))) AS writer
        FROM pg_proc AS p
        WHERE pronamespace = 'realtime'::regnamespace AND proname ~ '^source_[0-9]+$'
          AND NOT EXISTS (SELECT FROM realtime.sources WHERE function = proname AND retired_at IS NULL)
          AND NOT EXISTS (SELECT FROM pg_trigger WHERE tgfoid = p.oid)
    LOOP
        EXECUTE format('DROP FUNCTION %s', concat_ws(', ', dropped.function, dropped.writer));
    END LOOP;
END $$;

-- Whether the owner of the trigger's function of this source may call the one that writes. Null: there is no such function.
CREATE FUNCTION realtime.may_write(s realtime.sources) RETURNS boolean
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT has_schema_privilege(proowner, 'realtime', 'USAGE') AND coalesce(has_function_privilege(proowner,
        to_regprocedure(format('realtime.write_%s(realtime.change[], text)', s.number)), 'EXECUTE'), false)
    FROM pg_proc
    WHERE oid = to_regprocedure(format('realtime.%I()', s.function)) AND prosrc LIKE '%realtime.write\_%'
$$;

-- Makes the functions that are missing, those of tables whose triggers fired for statements and are to fire for rows, or the
-- other way round, and those of tables that have another owner by now, or one without the rights; of these events may be
-- missing. The log may have events by the layouts, so that these stay, and so do the keys, unless they were not known
-- because the table was not there.
CREATE OR REPLACE FUNCTION realtime.make_source_functions() RETURNS void
LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
    UPDATE realtime.sources AS s SET layout = realtime.source_layout(s), truncated_layout = realtime.truncated_layout(s),
        update_layout = realtime.update_layout(s), delete_layout = realtime.delete_layout(s)
    WHERE NOT preset AND retired_at IS NULL AND to_regclass(relation) IS NOT NULL AND keys = '{}'
      AND to_regprocedure(format('realtime.%I()', function)) IS NULL AND layout <> realtime.source_layout(s);
    SELECT realtime.write_failed(number, '42501') FROM realtime.sources AS s
    WHERE NOT preset AND retired_at IS NULL AND realtime.may_write(s) IS FALSE;
    SELECT realtime.make_source_function(s)
    FROM realtime.sources AS s JOIN pg_class AS c ON c.oid = to_regclass(relation)
        LEFT JOIN pg_proc AS p ON p.oid = to_regprocedure(format('realtime.%I()', function))
    WHERE NOT preset AND retired_at IS NULL
      AND (p.oid IS NULL
           OR p.prosrc LIKE '%FROM realtime\_after AS new%' AND realtime.fires_for_rows(s)
           OR p.prosrc LIKE '%FROM (SELECT NEW.*) AS new%' AND NOT realtime.fires_for_rows(s)
           OR p.prosrc LIKE '%realtime.write\_%' AND p.proowner <> c.relowner OR realtime.may_write(s) IS FALSE);
    SELECT realtime.make_announce();
$$;

DROP FUNCTION realtime.add_source;
-- Adds a source and puts its triggers on the table; returns the source's number.
CREATE FUNCTION realtime.add_source(
    kind text, relation regclass, audience text, operations text[] DEFAULT '{insert,update,delete}',
    fields text[] DEFAULT '{}', condition text DEFAULT NULL, keys text[] DEFAULT '{}', changed boolean DEFAULT false,
    for_rows boolean DEFAULT false, users_max integer DEFAULT 10000)
RETURNS smallint LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    added smallint;
BEGIN
    INSERT INTO realtime.sources (kind, relation, audience, operations, fields, condition, keys, changed, for_rows, users_max)
    VALUES (add_source.kind, add_source.relation::text, add_source.audience, add_source.operations, add_source.fields,
            add_source.condition, add_source.keys, add_source.changed, add_source.for_rows, add_source.users_max)
    RETURNING number INTO added;
    PERFORM realtime.repair_triggers();
    RETURN added;
END $$;

SELECT realtime.make_change_writer();

RESET ROLE;

-- What no role was granted, none has.
DO $$
DECLARE
    made regprocedure;
BEGIN
    FOR made IN
        SELECT oid FROM pg_proc
        WHERE pronamespace = 'realtime'::regnamespace
          AND (proacl IS NULL OR EXISTS (SELECT FROM aclexplode(proacl) AS acl WHERE acl.grantee = 0))
    LOOP
        EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', made);
    END LOOP;
END $$;

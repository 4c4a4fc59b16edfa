-- A log that costs writers little. It keeps what an event is made of, and servers compose the JSON: the number of the
-- source, the user, the operation and the values of the fields. No statement looks up how events reach the servers: the
-- functions that write the log are made anew when that changes, and when another partition is opened.

SET TRANSACTION ISOLATION LEVEL READ COMMITTED;

-- The functions run with the rights of their owner, who owns the log. Some belong to the role that applied the migration
-- which made them. Others' functions stay theirs.
DO $$
DECLARE
    owner name := (SELECT pg_get_userbyid(relowner) FROM pg_class WHERE oid = 'realtime.events'::regclass);
    moved regprocedure;
BEGIN
    FOR moved IN
        SELECT oid FROM pg_proc
        WHERE pg_get_userbyid(proowner) <> owner AND oid = ANY (ARRAY[
            'realtime.check_source()', 'realtime.begin_history()', 'realtime.barrier(text)', 'realtime.on_messages()',
            'realtime.on_session()', 'realtime.on_device()', 'realtime.on_pending_session()', 'realtime.on_truncate()',
            'realtime.revoke(uuid, uuid)', 'realtime.audience_query(realtime.sources, text)',
            'realtime.source_text(realtime.sources)', 'realtime.make_source_functions()',
            'realtime.replace_application_triggers()', 'realtime.is_in_place(pg_trigger)']::regprocedure[])
    LOOP
        EXECUTE format('ALTER FUNCTION %s OWNER TO %I', moved, owner);
    END LOOP;
    EXECUTE format('SET LOCAL ROLE %I', owner);
END $$;

-- Writers and readers of the log wait for this, and it rewrites nothing.
SET LOCAL lock_timeout = '10s';

ALTER TABLE realtime.events RENAME TO log;
ALTER TABLE realtime.log RENAME COLUMN user_id TO user_key;
ALTER TABLE realtime.log
    ALTER COLUMN kind DROP NOT NULL,
    ALTER COLUMN payload DROP NOT NULL,
    ADD COLUMN op           "char",
    ADD COLUMN fields       text[],
    ADD COLUMN asynchronous boolean NOT NULL DEFAULT false,
    ADD COLUMN bytes        integer,
    ADD COLUMN body         bigint;
COMMENT ON TABLE realtime.log IS
    'Every event, in the transaction of the row change that it tells of. The order of ids is not the order of commits: '
    'read by snapshot, never by the highest id. realtime.events shows each with its JSON.';
COMMENT ON COLUMN realtime.log.user_key IS 'The key of the user whom the event concerns; null: all users.';
COMMENT ON COLUMN realtime.log.source IS
    'The number of the source, see realtime.sources. Null: a revocation or a truncation, or written before migration 8.';
COMMENT ON COLUMN realtime.log.op IS
    'What was done to the row: i, u or d, in capitals where the event is too long and has only its key; null where the '
    'event does not tell.';
COMMENT ON COLUMN realtime.log.fields IS
    'The values that the event shows, each as JSON, in the order that the layout of its source numbers them in.';
COMMENT ON COLUMN realtime.log.bytes IS
    'The length of the values in all; null where they are short.';
COMMENT ON COLUMN realtime.log.body IS
    'The id of the row that has the values, of the same partition and transaction. This row''s own are the first of them, '
    'in the place of the other row''s. Null: this row has all.';
COMMENT ON COLUMN realtime.log.asynchronous IS
    'Whether its transaction committed without waiting for the disk (synchronous_commit = off).';
COMMENT ON COLUMN realtime.log.kind IS 'revocation or truncated; of an event that was written before migration 9, its kind.';
COMMENT ON COLUMN realtime.log.payload IS
    'The JSON of a revocation, of a truncation, and of an event that was written before migration 9. Null: it is composed.';

-- Users.

ALTER TABLE realtime.state ADD COLUMN user_type text CHECK (user_type IN ('uuid', 'bigint', 'text'));
COMMENT ON COLUMN realtime.state.user_type IS
    'The type of the users'' ids, fixed by the first source. Null: there has been none, and ids are uuids.';
UPDATE realtime.state SET user_type = 'uuid' WHERE EXISTS (SELECT FROM realtime.sources);
COMMENT ON COLUMN realtime.sources.audience IS
    'Whose event it is: the name of a column of the users'' type, or a query that returns users'' ids and may use NEW and OLD.';

-- The key of a user: what the log has of the user, and what the servers know the user by. Servers make it in the same way
-- (`src/protocol/user.rs`). Text is taken as it is: two spellings are two users. PostgreSQL writes the text of the first
-- two in the place of each call.
CREATE FUNCTION realtime.user_key(user_id uuid) RETURNS uuid
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS 'SELECT user_id';

CREATE FUNCTION realtime.user_key(user_id bigint) RETURNS uuid
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS
    $$ SELECT pg_catalog.lpad(pg_catalog.to_hex(user_id), 32, '0')::pg_catalog.uuid $$;

CREATE FUNCTION realtime.user_key(user_id text) RETURNS uuid
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
DECLARE
    encoded pg_catalog.bytea := pg_catalog.convert_to(user_id, 'UTF8');
BEGIN
    IF pg_catalog.length(encoded) NOT BETWEEN 1 AND 255 THEN
        RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
            MESSAGE = pg_catalog.format('a user''s id has 1 to 255 bytes of UTF-8, and this one has %s',
                pg_catalog.length(encoded)),
            HINT = 'A row that concerns nobody has null for its user.';
    END IF;
    RETURN pg_catalog.encode(pg_catalog.substr(pg_catalog.sha256(encoded), 1, 16), 'hex')::pg_catalog.uuid;
END $$;

-- The type of the users whom the audience of a source names, or what is wrong with it. A text that equals another of other
-- bytes would be one user to the application and two here.
CREATE FUNCTION realtime.audience_type(s realtime.sources, OUT user_type text, OUT wrong text)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    -- Nothing of the audience is executed.
    users       text := realtime.audience_query(s, 'NEW');
    query       text := format(E'(VALUES (1)) AS one LEFT JOIN (SELECT ARRAY(%2$s\n) AS it FROM %1$s AS new, %1$s AS old)'
        ' AS checked ON false', s.relation, users);
    type_oid    oid;
    base        oid;
    found       oid;
BEGIN
    -- It returns one column. An array of arrays has the type of an array, so that the type is asked of the column.
    EXECUTE 'SELECT FROM ' || query;
    EXECUTE format(E'SELECT pg_typeof(checked.it)::oid FROM (VALUES (1)) AS one LEFT JOIN (SELECT audience.it '
        'FROM %1$s AS new, %1$s AS old, LATERAL (%2$s\n) AS audience (it)) AS checked ON false', s.relation, users)
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

-- As before, with users of each type.
CREATE OR REPLACE FUNCTION realtime.check_definition(s realtime.sources) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    table_oid oid := to_regclass(s.relation);
    wrong     text;
    hint      text;
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
            wrong := (realtime.audience_type(s)).wrong;
            IF wrong IS NULL AND s.condition IS NOT NULL THEN
                EXECUTE format(E'SELECT pg_typeof(checked.it)::text FROM (VALUES (1)) AS one LEFT JOIN (SELECT '
                    '(%2$s\n) AS it FROM %1$s AS new, %1$s AS old) AS checked ON false', s.relation, s.condition)
                INTO wrong;
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

-- A source's users are of the database's type. The first source fixes it: while there is another, retired ones included,
-- the log may have events of that type's users. Servers are told, and read it.
CREATE FUNCTION realtime.fix_user_type(kind text, wanted text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    present text := (SELECT user_type FROM realtime.state);
BEGIN
    IF present IS NOT DISTINCT FROM wanted THEN
        RETURN;
    END IF;
    IF EXISTS (SELECT FROM realtime.sources) THEN
        RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
            MESSAGE = format('the source of the kind %s: its users'' ids are of type %s, and those of this database are '
                'of type %s', kind, wanted, present),
            HINT = 'The first source has fixed the type. The audience can be a query that returns ids of that type. A retired '
                'source counts while the log may have events of it.';
    END IF;
    UPDATE realtime.state SET user_type = wanted;
    PERFORM pg_notify('realtime_control', 'sources');
END $$;

-- Composing.

ALTER TABLE realtime.sources ADD COLUMN layout text[], ADD COLUMN truncated_layout text[];
COMMENT ON COLUMN realtime.sources.layout IS
    'The JSON of the events: text, value, text, value and so on, text. A value is user, bigint, op, id, or the number of '
    'one of realtime.log.fields. The first two are the user, from the key of a uuid and from that of a bigint.';
COMMENT ON COLUMN realtime.sources.truncated_layout IS
    'The JSON of an event that is too long: with its key and without the rest of its values.';

-- The JSON of an event, with the member by which the schema before marked asynchronous commits.
CREATE FUNCTION realtime.compose(layout text[], user_key uuid, op "char", id bigint, fields text[], asynchronous boolean)
RETURNS text LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    composed text := '';
    is_text  boolean := false;
    piece    text;
BEGIN
    FOREACH piece IN ARRAY layout LOOP
        is_text := NOT is_text;
        composed := composed || CASE
            WHEN is_text THEN piece
            WHEN piece = 'user' THEN '"' || user_key || '"'
            WHEN piece = 'bigint' THEN
                '"' || ('x' || right(replace(user_key::text, '-', ''), 16))::bit(64)::bigint || '"'
            WHEN piece = 'id' THEN id::text
            WHEN piece = 'op' THEN CASE WHEN op IN ('i', 'I') THEN '"insert"' WHEN op IN ('u', 'U') THEN '"update"'
                                        ELSE '"delete"' END
            ELSE coalesce(fields[piece::integer], 'null')
        END;
    END LOOP;
    IF asynchronous THEN
        RETURN left(composed, -1) || ', "asynchronous" : true}';
    END IF;
    RETURN composed;
END $$;

-- The columns of the primary key, in its order.
CREATE FUNCTION realtime.key_columns(relation text) RETURNS name[]
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT ARRAY(
        SELECT a.attname FROM pg_index i, unnest(i.indkey) WITH ORDINALITY AS listed (attnum, position)
        JOIN pg_attribute a USING (attnum)
        WHERE i.indrelid = to_regclass(relation) AND i.indisprimary AND a.attrelid = i.indrelid ORDER BY position)
$$;

-- The layout of a source's events. The fields of one's own are the user where users are text, the key's columns and then
-- those of the source. A table may have lost its key since the source was added.
CREATE FUNCTION realtime.source_layout(s realtime.sources) RETURNS text[]
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    shown     name[] := realtime.key_columns(s.relation) || s.fields::name[];
    keys      integer := cardinality(realtime.key_columns(s.relation));
    user_type text := (SELECT coalesce(state.user_type, 'uuid') FROM realtime.state);
    before    integer := CASE user_type WHEN 'text' THEN 1 ELSE 0 END;
    literal   text := ', "key" : {';
    layout    text[];
BEGIN
    IF s.preset THEN
        RETURN CASE s.function
            WHEN 'on_messages' THEN ARRAY[
                '{"type" : "message", "chat_id" : ', '1', ', "user_id" : ', 'user', ', "id" : ', 'id', '}']
            WHEN 'on_session' THEN ARRAY[
                '{"type" : "session", "user_id" : ', 'user', ', "sender_device_id" : ', '1',
                ', "receiver_device_id" : ', '2', ', "id" : ', 'id', '}']
            WHEN 'on_device' THEN ARRAY[
                '{"type" : "device", "user_id" : ', 'user', ', "id" : ', 'id', '}']
            WHEN 'on_pending_session' THEN ARRAY[
                '{"type" : "pending_session", "user_id" : ', 'user', ', "recipient_device_id" : ', '1',
                ', "sender_device_id" : ', '2', ', "pending_session_id" : ', '3', ', "created_at" : ', '4',
                ', "id" : ', 'id', '}']
        END;
    END IF;
    layout := ARRAY[format('{"type" : %s, "op" : ', to_json(s.kind)), 'op', ', "user_id" : ',
        CASE user_type WHEN 'uuid' THEN 'user' WHEN 'bigint' THEN 'bigint' ELSE '1' END];
    FOR number IN 1..cardinality(shown) LOOP
        IF number = keys + 1 THEN
            literal := CASE keys WHEN 0 THEN literal ELSE '' END || '}, "row" : {';
        END IF;
        layout := layout || (literal || to_json(shown[number]::text) || ':') || (before + number)::text;
        literal := ',';
    END LOOP;
    RETURN layout || ARRAY[CASE shown WHEN '{}' THEN literal ELSE '' END || '}, "id" : ', 'id', '}'];
END $$;

-- The layout of its events that are too long. The fields have the same numbers.
CREATE FUNCTION realtime.truncated_layout(s realtime.sources) RETURNS text[]
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    keys      name[] := realtime.key_columns(s.relation);
    user_type text := (SELECT coalesce(state.user_type, 'uuid') FROM realtime.state);
    before    integer := CASE user_type WHEN 'text' THEN 1 ELSE 0 END;
    literal   text := ', "key" : {';
    layout    text[];
BEGIN
    IF s.preset THEN
        RETURN ARRAY[format('{"type" : %s, "user_id" : ', to_json(s.kind)), 'user', ', "truncated" : true, "id" : ',
                     'id', '}'];
    END IF;
    layout := ARRAY[format('{"type" : %s, "op" : ', to_json(s.kind)), 'op', ', "user_id" : ',
        CASE user_type WHEN 'uuid' THEN 'user' WHEN 'bigint' THEN 'bigint' ELSE '1' END];
    FOR number IN 1..cardinality(keys) LOOP
        layout := layout || (literal || to_json(keys[number]::text) || ':') || (before + number)::text;
        literal := ',';
    END LOOP;
    RETURN layout || ARRAY[CASE keys WHEN '{}' THEN literal ELSE '' END || '}, "truncated" : true, "id" : ', 'id', '}'];
END $$;

-- An older snapshot does not see a source, and a type of users, that another session has added meanwhile.
CREATE FUNCTION realtime.demand_read_committed() RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF current_setting('transaction_isolation') NOT IN ('read committed', 'read uncommitted') THEN
        RAISE EXCEPTION USING ERRCODE = 'object_not_in_prerequisite_state',
            MESSAGE = 'sources are added in a transaction that is READ COMMITTED',
            HINT = 'BEGIN ISOLATION LEVEL READ COMMITTED first.';
    END IF;
END $$;

-- As before, with the type of the users and the layouts.
CREATE OR REPLACE FUNCTION realtime.check_source() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    same  realtime.sources;
    wrong text;
BEGIN
    IF TG_OP = 'UPDATE' THEN
        same := NEW;
        same.retired_at := OLD.retired_at;
        same.layout := OLD.layout;
        same.truncated_layout := OLD.truncated_layout;
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
    PERFORM realtime.fix_user_type(NEW.kind,
        CASE WHEN NEW.preset THEN 'uuid' ELSE (realtime.audience_type(NEW)).user_type END);
    NEW.layout := realtime.source_layout(NEW);
    NEW.truncated_layout := realtime.truncated_layout(NEW);
    RETURN NEW;
END $$;

ALTER TABLE realtime.sources DISABLE TRIGGER check_source;
UPDATE realtime.sources AS s SET layout = realtime.source_layout(s), truncated_layout = realtime.truncated_layout(s);
ALTER TABLE realtime.sources ENABLE TRIGGER check_source,
    ALTER COLUMN layout SET NOT NULL, ALTER COLUMN truncated_layout SET NOT NULL;

-- Large events.

-- The length of these values in an event's JSON.
CREATE FUNCTION realtime.fields_bytes(fields text[]) RETURNS bigint
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT coalesce(sum(coalesce(octet_length(value), 4)), 0) FROM unnest(fields) AS value
$$;

-- The values that the log keeps of an event of more than 1 MiB, which no server sends: those of its key, or none where
-- these alone are as long. Null for any other event. A transaction whose snapshot is older than the source does not see
-- its row, and keeps all values.
CREATE FUNCTION realtime.truncated_fields(
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
       OR bytes + octet_length(realtime.compose(s.layout, user_key, op, id, none, false)) <= bytes_max THEN
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

-- A row's values, of which another row of its partition has all but the first, which are its own.
CREATE FUNCTION realtime.kept_fields(slot smallint, body bigint, own text[]) RETURNS text[]
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN (SELECT CASE WHEN own IS NULL THEN kept.fields ELSE own || kept.fields[cardinality(own) + 1:] END
            FROM realtime.log AS kept WHERE kept.slot = kept_fields.slot AND kept.id = kept_fields.body);
END $$;

-- As before: the preset's users are uuids, so it is not installed where others are.
ALTER FUNCTION realtime.presets() RENAME TO presets_of_tables;
CREATE FUNCTION realtime.presets()
RETURNS TABLE (number smallint, kind text, relation text, operations text[], audience text, channel text,
               function text, missing text)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT p.number, p.kind, p.relation, p.operations, p.audience, p.channel, p.function,
           coalesce(p.missing, CASE WHEN s.user_type <> 'uuid' THEN
               format('its users are uuids, and this database''s are of type %s', s.user_type) END)
    FROM realtime.presets_of_tables() AS p, realtime.state AS s
$$;

-- For people, for the service, and for servers of the release before, which read the JSON.
CREATE VIEW realtime.events AS
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
COMMENT ON VIEW realtime.events IS 'The log, with the JSON of each event as clients are sent it.';

-- Rows by hand, and those of statements that began before this schema.
CREATE FUNCTION realtime.insert_event() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    INSERT INTO realtime.log (slot, id, xid, user_key, kind, payload, created_at, source, op, fields, asynchronous, bytes)
    VALUES (coalesce(NEW.slot, realtime.open_slot()), coalesce(NEW.id, nextval('realtime.events_id_seq')),
            coalesce(NEW.xid, pg_current_xact_id()), NEW.user_id, NEW.kind, NEW.payload,
            coalesce(NEW.created_at, clock_timestamp()), NEW.source, NEW.op, NEW.fields,
            coalesce(NEW.asynchronous, false), realtime.fields_bytes(NEW.fields))
    RETURNING slot, id, xid, created_at INTO NEW.slot, NEW.id, NEW.xid, NEW.created_at;
    RETURN NEW;
END $$;
CREATE TRIGGER insert_event INSTEAD OF INSERT ON realtime.events
    FOR EACH ROW EXECUTE FUNCTION realtime.insert_event();

-- What other roles were granted on the log. Reading the JSON takes the function's right.
DO $$
DECLARE
    granted record;
    grantee text;
BEGIN
    FOR granted IN
        SELECT acl.*, NULL AS columns, relowner FROM pg_class, aclexplode(relacl) AS acl
        WHERE oid = 'realtime.log'::regclass AND acl.grantee <> relowner
        UNION ALL
        SELECT acl.*, format(' (%I)', CASE attname WHEN 'user_key' THEN 'user_id' ELSE attname END), relowner
        FROM pg_class AS c JOIN pg_attribute ON attrelid = c.oid, aclexplode(attacl) AS acl
        WHERE c.oid = 'realtime.log'::regclass AND NOT attisdropped AND acl.grantee <> relowner
    LOOP
        grantee := CASE granted.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(granted.grantee)) END
            || CASE WHEN granted.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END;
        EXECUTE format('GRANT %s%s ON realtime.events TO %s', granted.privilege_type, granted.columns, grantee);
        -- Who may read the JSON. The functions show values of any row.
        IF granted.privilege_type = 'SELECT' AND (granted.columns IS NULL OR granted.columns = ' (payload)') THEN
            EXECUTE format('GRANT EXECUTE ON FUNCTION realtime.compose, realtime.kept_fields TO %s', grantee);
        END IF;
    END LOOP;
END $$;

-- Cursors name the history, and the history is bound to what has the name realtime.events.
SELECT realtime.bind_history();

CREATE OR REPLACE FUNCTION realtime.begin_history() RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '200ms' AS $$
BEGIN
    IF realtime.is_bound() THEN
        RETURN false;
    END IF;
    -- A migration that replaces the log holds this lock until the history is bound to the new table.
    LOCK TABLE realtime.log IN ACCESS EXCLUSIVE MODE;
    IF realtime.is_bound() THEN
        RETURN false;
    END IF;
    TRUNCATE realtime.log;
    -- The numbers of transactions in the state are another database's too.
    UPDATE realtime.state SET dropped_to = '0', dropped_running = '{}', retained_from = '0',
        ingest_since = '9223372036854775807', ingest_awaits = '{}';
    PERFORM realtime.bind_history();
    PERFORM realtime.renew_history();
    RETURN true;
END $$;

-- The way of ingest.

ALTER TABLE realtime.state ADD COLUMN ingest_awaits text[] NOT NULL DEFAULT '{}';
COMMENT ON COLUMN realtime.state.ingest_since IS
    'A transaction that began after the way of ingest was changed last: older ones may still go by what was before. The '
    'highest number: none has begun yet.';
COMMENT ON COLUMN realtime.state.ingest_awaits IS
    'Virtual transactions that ran after the way of ingest was changed last and may still go by what was before.';

-- Makes the function that writes an event of a row that goes to several users. A long body is written once: each call is
-- handed what the one before has returned, which says where the body is. A partition that was opened meanwhile gets a
-- body of its own, since each is dropped without regard to the others. Where users' ids are text, the first of the values
-- is the user's id, and each row has its own. What NOTIFY has no room for is read from the log: of a transaction's equal
-- notifications PostgreSQL sends one.
--
-- `kept` is the body's partition and id, the length of its values without the user's id, and whether they are those of an
-- event of more than 1 MiB. For users whose ids are text that is asked for the first of them.
CREATE FUNCTION realtime.make_large_writer(written text, open_slot smallint) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $make$
BEGIN
    EXECUTE format($text$
CREATE OR REPLACE FUNCTION realtime.emit(
    source smallint, user_key uuid, op "char", fields text[], kept bigint[], has_user boolean
) RETURNS bigint[] LANGUAGE plpgsql AS $$
DECLARE
    event_id     bigint := nextval('realtime.events_id_seq');
    asynchronous boolean := current_setting('synchronous_commit') = 'off';
    user_bytes   integer := CASE WHEN has_user THEN octet_length(fields[1]) ELSE 0 END;
    length       bigint;
    short        text[];
BEGIN
    IF pg_column_size(emit.fields) > 1000 THEN
        IF kept[1] = %2$s THEN
            length := kept[3] + user_bytes;
            op := CASE kept[4] WHEN 1 THEN upper(op::text)::"char" ELSE op END;
            INSERT INTO %1$s
            VALUES (%2$s, event_id, emit.user_key, emit.source, emit.op,
                    CASE WHEN has_user THEN ARRAY[emit.fields[1]] END, asynchronous, length, kept[2]);
        ELSE
            length := realtime.fields_bytes(emit.fields);
            IF length > 500000 THEN
                short := realtime.truncated_fields(emit.source, emit.user_key, emit.op, event_id, emit.fields, length);
                IF short IS NOT NULL THEN
                    op := upper(op::text)::"char";
                    length := realtime.fields_bytes(short);
                END IF;
            END IF;
            INSERT INTO %1$s
            VALUES (%2$s, event_id, emit.user_key, emit.source, emit.op, coalesce(short, emit.fields), asynchronous,
                    length, NULL);
            kept := ARRAY[%2$s, event_id, length - user_bytes, (short IS NOT NULL)::integer];
        END IF;
        IF realtime.notifies() THEN
            IF length > 8000 OR kept[4] = 1 THEN
                PERFORM pg_notify('realtime_control', 'changed');
            ELSE
                PERFORM realtime.announce(emit.source, emit.user_key, emit.op, event_id, emit.fields, asynchronous);
            END IF;
        END IF;
        RETURN kept;
    END IF;
    INSERT INTO %1$s
    VALUES (%2$s, event_id, emit.user_key, emit.source, emit.op, emit.fields, asynchronous, NULL, NULL);
    IF realtime.notifies() THEN
        PERFORM realtime.announce(emit.source, emit.user_key, emit.op, event_id, emit.fields, asynchronous);
    END IF;
    RETURN kept;
END $$
$text$, written, open_slot);
END $make$;

-- Makes the functions that write the log for the present way of ingest and the open partition. realtime.notifies() says
-- whether this transaction's events notify. PostgreSQL writes its text in the place of each call. With `adaptive` they
-- do unless a server is awake, or waits to be: it has, or wants, the lock exclusively.
--
-- on_messages() has no search path of its own: setting one is an eighth of what an INSERT pays for the log. It names each
-- function, type and operator with its schema instead, so that the writer's search path means nothing to it.
CREATE FUNCTION realtime.make_writers() RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $make$
DECLARE
    way       text;
    open_slot smallint;
    written   text;
BEGIN
    SELECT ingest, slot INTO STRICT way, open_slot FROM realtime.state;
    written := format('realtime.%I (slot, id, user_key, source, op, fields, asynchronous)', (
        SELECT name FROM realtime.partitions WHERE slot = open_slot));
    PERFORM realtime.make_large_writer(replace(written, ')', ', bytes, body)'), open_slot);
    EXECUTE format('CREATE OR REPLACE FUNCTION realtime.notifies() RETURNS boolean LANGUAGE sql AS $$ SELECT %s $$',
        CASE way WHEN 'notify' THEN 'true' WHEN 'tail' THEN 'false'
                 ELSE format('pg_catalog.pg_try_advisory_xact_lock_shared(%s)', realtime.doorbell()) END);
    EXECUTE format($text$
CREATE OR REPLACE FUNCTION realtime.emit(source smallint, user_key uuid, op "char", fields text[]) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    event_id     bigint := nextval('realtime.events_id_seq');
    asynchronous boolean := current_setting('synchronous_commit') = 'off';
BEGIN
    INSERT INTO %1$s
    VALUES (%2$s, event_id, emit.user_key, emit.source, emit.op, emit.fields, asynchronous);
    IF realtime.notifies() THEN
        PERFORM realtime.announce(emit.source, emit.user_key, emit.op, event_id, emit.fields, asynchronous);
    END IF;
END $$
$text$, written, open_slot);
    EXECUTE format($text$
CREATE OR REPLACE FUNCTION realtime.on_messages() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER AS $$
DECLARE
    event record;
BEGIN
    IF realtime.notifies() THEN
        FOR event IN
            INSERT INTO %1$s
            SELECT %2$s, pg_catalog.nextval('realtime.events_id_seq'), to_user_id, 1, NULL,
                   ARRAY[pg_catalog.to_json(chat_id)::pg_catalog.text],
                   pg_catalog.current_setting('synchronous_commit') OPERATOR(pg_catalog.=) 'off'
            FROM inserted WHERE to_user_id IS NOT NULL
            RETURNING user_key, id, fields, asynchronous
        LOOP
            -- All rows have been written when the first is returned.
            PERFORM realtime.announce(
                1::pg_catalog.int2, event.user_key, NULL, event.id, event.fields, event.asynchronous);
        END LOOP;
    ELSE
        INSERT INTO %1$s
        SELECT %2$s, pg_catalog.nextval('realtime.events_id_seq'), to_user_id, 1, NULL,
               ARRAY[pg_catalog.to_json(chat_id)::pg_catalog.text],
               pg_catalog.current_setting('synchronous_commit') OPERATOR(pg_catalog.=) 'off'
        FROM inserted WHERE to_user_id IS NOT NULL;
    END IF;
    RETURN NULL;
END $$
$text$, written, open_slot);
END $make$;

-- The text of the function that notifies an event that is in the log. It knows the sources without a look-up: a
-- transaction whose snapshot is older than a source does not see its row. An event of a source that it does not know
-- makes servers read the log. Where a user's id is no uuid, the key is at the end, which only servers read.
CREATE FUNCTION realtime.announce_text() RETURNS text
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
            format('realtime.compose(%L, user_key, op, id, fields, asynchronous)', layout))), '' ORDER BY number))
    FROM realtime.sources, realtime.state
$text$;

-- Makes that function where its text would be another.
CREATE FUNCTION realtime.make_announce() RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF realtime.announce_text() = (
        SELECT prosrc FROM pg_proc
        WHERE oid = to_regprocedure('realtime.announce(smallint, uuid, "char", bigint, text[], boolean)')
    ) THEN
        RETURN;
    END IF;
    PERFORM realtime.demand_read_committed();
    -- One session at a time, as for a source that is added.
    PERFORM pg_advisory_xact_lock(hashtextextended('realtime.sources', 0));
    EXECUTE format('CREATE OR REPLACE FUNCTION realtime.announce('
        'number smallint, user_key uuid, op "char", id bigint, fields text[], asynchronous boolean) '
        'RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS %L', realtime.announce_text());
END $$;

-- A change of the way of ingest, or of the open partition, makes the functions anew. No lock is taken of the
-- application's tables: a transaction that runs may go by what was before until it ends.
CREATE FUNCTION realtime.ingest_changes() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF NEW.ingest <> OLD.ingest THEN
        -- Given back after other sessions have been told that the functions are others.
        PERFORM pg_advisory_xact_lock(hashtextextended('realtime.ingest', 0));
        NEW.ingest_since := '9223372036854775807';
        NEW.ingest_awaits := '{}';
    ELSE
        NEW.ingest_since := OLD.ingest_since;
        NEW.ingest_awaits := OLD.ingest_awaits;
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER ingest_changes BEFORE UPDATE OF ingest ON realtime.state
    FOR EACH ROW EXECUTE FUNCTION realtime.ingest_changes();

CREATE FUNCTION realtime.state_changed() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM realtime.make_writers();
    RETURN NULL;
END $$;
CREATE TRIGGER state_changed AFTER UPDATE OF ingest, slot ON realtime.state
    FOR EACH ROW WHEN (OLD.ingest <> NEW.ingest OR OLD.slot <> NEW.slot) EXECUTE FUNCTION realtime.state_changed();
-- Whatever `session_replication_role` is: functions and state never disagree.
ALTER TABLE realtime.state ENABLE ALWAYS TRIGGER ingest_changes, ENABLE ALWAYS TRIGGER state_changed;

-- For servers: how events are to reach them from now on.
CREATE FUNCTION realtime.set_ingest(way text) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    UPDATE realtime.state SET ingest = way WHERE ingest <> way
$$;

-- After a change of the way of ingest: notes a transaction that began after the change, which is this one, and every
-- virtual transaction that runs. A statement that is running may have no number yet and go by the functions of before.
-- Later, when these have ended: notes that. One of them may have been prepared (PREPARE TRANSACTION), and then runs on
-- by its number alone: this transaction is noted anew. Its number is taken after the look at those that run, so that it
-- is above the numbers of all that are not among them. Skipped while another session does it, while the change has not
-- told all sessions, and in a transaction that has a number.
CREATE FUNCTION realtime.settle_ingest() RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    since   xid8;
    awaits  text[];
    running text[];
BEGIN
    SELECT ingest_since, ingest_awaits INTO since, awaits FROM realtime.state;
    IF since < '9223372036854775807' AND awaits = '{}' OR pg_current_xact_id_if_assigned() IS NOT NULL
       OR NOT pg_try_advisory_xact_lock(hashtextextended('realtime.ingest', 0)) THEN
        RETURN;
    END IF;
    running := ARRAY(
        SELECT l.virtualxid FROM pg_locks AS l JOIN pg_stat_activity AS a USING (pid)
        WHERE l.locktype = 'virtualxid' AND l.granted AND l.mode = 'ExclusiveLock' AND pid <> pg_backend_pid()
          AND a.datid = (SELECT oid FROM pg_database WHERE datname = current_database())
          AND a.backend_type IS DISTINCT FROM 'autovacuum worker');
    SELECT ingest_since, ingest_awaits INTO since, awaits FROM realtime.state FOR UPDATE SKIP LOCKED;
    IF since = '9223372036854775807' THEN
        UPDATE realtime.state SET ingest_since = pg_current_xact_id(), ingest_awaits = running;
    ELSIF awaits <> '{}' AND NOT awaits && running THEN
        UPDATE realtime.state SET ingest_awaits = '{}', ingest_since = CASE
            WHEN EXISTS (SELECT FROM pg_prepared_xacts WHERE database = current_database()) THEN pg_current_xact_id()
            ELSE ingest_since END;
    END IF;
END $$;

-- As before. Events may be silent while transactions run that may go by another way of ingest. What is found out of
-- them in the same statement is told by the next barrier: this one's snapshot is older, and its number is taken after.
CREATE OR REPLACE FUNCTION realtime.barrier(nonce text) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT pg_notify('realtime_control', format('barrier %s %s %s %s %s %s %s %s',
        nonce, realtime.epoch(), realtime.snapshot_text(s, 7000), ingest,
        CASE ingest WHEN 'notify' THEN false WHEN 'tail' THEN true
                    ELSE NOT pg_try_advisory_xact_lock_shared(realtime.doorbell()) END
            OR pg_snapshot_xmin(s) <= ingest_since OR ingest_awaits <> '{}',
        pg_notification_queue_usage(), realtime.history(), pg_current_xact_id()))
    FROM realtime.settle_ingest() AS settled, realtime.state, pg_current_snapshot() AS s;
    SELECT realtime.flush()
$$;

-- The functions of the triggers. Those of statements that run while this schema comes call the functions of before,
-- realtime.emit(text, ...), which write the log with its JSON.

SELECT realtime.make_announce();
SELECT realtime.make_writers();

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
        PERFORM realtime.emit(2::smallint, device_owner, NULL::"char",
            ARRAY[to_json(NEW.sender_device_id)::text, to_json(NEW.receiver_device_id)::text]);
    END LOOP;
    RETURN NULL;
END $$;

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
        PERFORM realtime.emit(3::smallint, device_owner, NULL::"char", NULL::text[]);
    END LOOP;
    -- Whose it no longer is, no longer listens with it.
    IF OLD.user_id IS DISTINCT FROM NEW.user_id AND OLD.user_id IS NOT NULL THEN
        PERFORM realtime.revoke(OLD.user_id, OLD.id);
    END IF;
    RETURN NULL;
END $$;

-- The session's settings have no say in how values are written.
CREATE OR REPLACE FUNCTION realtime.on_pending_session() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET timezone = 'UTC' SET datestyle = 'ISO' SET intervalstyle = 'postgres' SET bytea_output = 'hex'
SET extra_float_digits = 1 AS $$
DECLARE
    device_owner uuid := (SELECT d.user_id FROM public.devices d WHERE d.id = NEW.recipient_device_id);
BEGIN
    IF device_owner IS NOT NULL THEN
        PERFORM realtime.emit(4::smallint, device_owner, NULL::"char", ARRAY[
            to_json(NEW.recipient_device_id)::text, to_json(NEW.sender_device_id)::text, to_json(NEW.id)::text,
            to_json(NEW.created_at)::text]);
    END IF;
    RETURN NULL;
END $$;

-- A revocation and a truncation are no source's.
CREATE OR REPLACE FUNCTION realtime.revoke(user_id uuid, device_id uuid) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    event_id bigint := nextval('realtime.events_id_seq');
    body     text := json_build_object('type', 'revocation', 'user_id', user_id, 'device_id', device_id, 'id', event_id);
BEGIN
    IF current_setting('synchronous_commit') = 'off' THEN
        body := left(body, -1) || ', "asynchronous" : true}';
    END IF;
    INSERT INTO realtime.log (id, user_key, kind, payload) VALUES (event_id, revoke.user_id, 'revocation', body);
    IF realtime.notifies() THEN
        PERFORM realtime.announce('realtime_revocations', 'revocation', revoke.user_id, event_id, body);
    END IF;
END $$;

CREATE OR REPLACE FUNCTION realtime.on_truncate() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    event_id bigint := nextval('realtime.events_id_seq');
BEGIN
    INSERT INTO realtime.log (id, user_key, kind, payload)
    VALUES (event_id, NULL, 'truncated',
            json_build_object('type', 'truncated', 'table', TG_TABLE_NAME, 'id', event_id));
    IF realtime.notifies() THEN
        PERFORM pg_notify('realtime_control', 'changed');
    END IF;
    RETURN NULL;
END $$;

-- The name of a row's column in PL/pgSQL, which takes none of its own keywords there unless it is quoted.
CREATE FUNCTION realtime.quoted(name text) RETURNS text
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT '"' || replace(name, '"', '""') || '"'
$$;

-- The query for the users whom the row of this name concerns.
CREATE OR REPLACE FUNCTION realtime.audience_query(s realtime.sources, row_name text) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT CASE WHEN realtime.has_audience_column(s) THEN format('SELECT %s.%s', row_name, realtime.quoted(s.audience))
                ELSE s.audience END
$$;

-- The text of the trigger's function of a source of one's own. The variables have names that no column will have.
CREATE OR REPLACE FUNCTION realtime.source_text(s realtime.sources) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    user_type text := (SELECT coalesce(state.user_type, 'uuid') FROM realtime.state);
    user_key  text := CASE user_type WHEN 'uuid' THEN 'realtime_user' ELSE 'realtime.user_key(realtime_user)' END;
    fields    text := format('realtime_fields := ARRAY[%s]::text[];', concat_ws(', ',
        CASE user_type WHEN 'text' THEN 'NULL' END, (
            SELECT string_agg(format('to_json(realtime_row.%s)::text', realtime.quoted(column_name)), ', ' ORDER BY position)
            FROM unnest(realtime.key_columns(s.relation) || s.fields::name[])
                WITH ORDINALITY AS shown (column_name, position))));
    event     text := CASE user_type WHEN 'text' THEN 'realtime_fields[1] := to_json(realtime_user)::text; ' ELSE '' END
        || format('realtime_kept := realtime.emit(%s::smallint, %s, realtime_op, realtime_fields, realtime_kept, %s);',
            s.number, user_key, (user_type = 'text')::text);
BEGIN
    RETURN format($body$
#variable_conflict use_column
DECLARE
    realtime_op     "char" := lower(left(TG_OP, 1));
    realtime_row    record;
    realtime_user   %6$s;
    realtime_fields text[];
    realtime_kept   bigint[];
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
    FOR realtime_user IN SELECT DISTINCT u%7$s FROM unnest(ARRAY(%2$s
    )) AS u WHERE u IS NOT NULL LOOP
        IF realtime_fields IS NULL THEN
            %4$s
        END IF;
        %3$s
    END LOOP;%5$s
    RETURN NULL;
END $body$,
        coalesce(s.condition, 'true'), realtime.audience_query(s, 'realtime_row'), event, fields,
        CASE WHEN realtime.has_audience_column(s) THEN format($moved$
    -- For the user whose row it was, it is gone: the new one is not theirs to see.
    IF TG_OP = 'UPDATE' AND OLD.%1$s IS DISTINCT FROM NEW.%1$s AND OLD.%1$s IS NOT NULL THEN
        realtime_op := 'd';
        realtime_row := OLD;
        realtime_user := OLD.%1$s;
        realtime_kept := NULL;
        %3$s
        %2$s
    END IF;$moved$, realtime.quoted(s.audience), event, fields) END,
        user_type, CASE user_type WHEN 'text' THEN ' COLLATE "C"' END);
END $$;

DROP FUNCTION realtime.json_of_columns;

-- Makes the function of a source of one's own. Values are written in UTC, ISO and hex, whatever the session is set to.
CREATE FUNCTION realtime.make_source_function(s realtime.sources) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    EXECUTE format('CREATE OR REPLACE FUNCTION realtime.%I() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER '
        'SET search_path = pg_catalog, pg_temp SET timezone = ''UTC'' SET datestyle = ''ISO'' '
        'SET intervalstyle = ''postgres'' SET bytea_output = ''hex'' SET extra_float_digits = 1 AS %L',
        s.function, realtime.source_text(s));
    EXECUTE format('REVOKE ALL ON FUNCTION realtime.%I() FROM PUBLIC', s.function);
    EXECUTE format('ALTER FUNCTION realtime.%I() OWNER TO %I', s.function, (
        SELECT pg_get_userbyid(relowner) FROM pg_class WHERE oid = 'realtime.log'::regclass));
END $$;

-- Makes the functions that are missing. Of a table that was not there until now the key was not known.
CREATE OR REPLACE FUNCTION realtime.make_source_functions() RETURNS void
LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
    UPDATE realtime.sources AS s SET layout = realtime.source_layout(s), truncated_layout = realtime.truncated_layout(s)
    WHERE NOT preset AND retired_at IS NULL AND to_regclass(relation) IS NOT NULL
      AND to_regprocedure(format('realtime.%I()', function)) IS NULL AND layout <> realtime.source_layout(s);
    SELECT realtime.make_source_function(s) FROM realtime.sources AS s
    WHERE NOT preset AND retired_at IS NULL AND to_regclass(relation) IS NOT NULL
      AND to_regprocedure(format('realtime.%I()', function)) IS NULL;
    SELECT realtime.make_announce();
$$;

SELECT realtime.make_source_function(s) FROM realtime.sources AS s
WHERE NOT preset AND retired_at IS NULL AND to_regclass(relation) IS NOT NULL;

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

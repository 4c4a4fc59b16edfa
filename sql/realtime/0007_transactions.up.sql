-- An event carries its transaction. Each part of a server that has a position then drops the events that this position
-- sees. The log has the number in a column; a notification has it as the last member of its JSON, which the server
-- removes before clients are sent it.
--
-- An event is marked if its transaction commits without waiting for the disk (`synchronous_commit = off`): a crash of
-- PostgreSQL may take it back and give its number and its id out again. The server routes it when it is on disk.

SET TRANSACTION ISOLATION LEVEL READ COMMITTED;

-- The functions run with the rights of their owner, who owns the log.
DO $$
BEGIN
    EXECUTE format('SET LOCAL ROLE %I', (
        SELECT pg_get_userbyid(relowner) FROM pg_class WHERE oid = 'realtime.events'::regclass));
END $$;

COMMENT ON COLUMN realtime.events.payload IS
    'The event''s JSON. Where its transaction committed without waiting for the disk, "asynchronous" is its last member, '
    'which clients are not sent.';

-- Notifies an event that is in the log. A payload that NOTIFY would refuse (it takes less than 8,000 bytes) goes by
-- reference: the server reads it from the log.
CREATE OR REPLACE FUNCTION realtime.announce(channel text, kind text, user_id uuid, id bigint, payload text)
RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    transaction text := ', "xid" : ' || pg_current_xact_id() || '}';
BEGIN
    IF octet_length(payload) + octet_length(transaction) > 8000 THEN
        payload := json_build_object(
            'type', kind, 'user_id', user_id, 'id', id, 'by_reference', true);
    END IF;
    PERFORM pg_notify(channel, left(payload, -1) || transaction);
END $$;

CREATE OR REPLACE FUNCTION realtime.emit(channel text, user_id uuid, kind text, body json) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    event_id bigint := nextval('realtime.events_id_seq');
    event_payload text := left(body::text, -1) || ', "id" : ' || event_id
        || CASE current_setting('synchronous_commit') WHEN 'off' THEN ', "asynchronous" : true}' ELSE '}' END;
    way text;
    open_slot smallint;
BEGIN
    SELECT ingest, slot INTO way, open_slot FROM realtime.state;
    INSERT INTO realtime.events (slot, id, user_id, kind, payload)
    VALUES (coalesce(open_slot, 0), event_id, emit.user_id, emit.kind, event_payload);
    -- The mode is null to a transaction whose snapshot is older than the log: its events notify.
    IF (way = 'tail'
        OR way = 'adaptive' AND NOT pg_try_advisory_xact_lock_shared(realtime.doorbell())) IS NOT TRUE THEN
        PERFORM realtime.announce(channel, kind, user_id, event_id, event_payload);
    END IF;
END $$;

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
        INSERT INTO realtime.events (slot, id, user_id, kind, payload)
        SELECT coalesce(open_slot, 0), id, to_user_id, 'message', left(json_build_object(
            'type', 'message', 'chat_id', chat_id, 'user_id', to_user_id, 'id', id)::text, -1) || ending
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

RESET ROLE;

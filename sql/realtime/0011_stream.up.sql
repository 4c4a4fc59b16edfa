-- The write-ahead log as a bell: servers may take the log's rows from a logical replication slot of their own instead of
-- asking for them. The triggers are those of `tail`, so that falling back to polling changes nothing here.

SET TRANSACTION ISOLATION LEVEL READ COMMITTED;

DO $$
BEGIN
    EXECUTE format('SET LOCAL ROLE %I', (
        SELECT pg_get_userbyid(relowner) FROM pg_class WHERE oid = 'realtime.log'::regclass));
END $$;

-- Barriers wait for this, and it rewrites nothing.
SET LOCAL lock_timeout = '10s';

ALTER TABLE realtime.state
    ADD COLUMN streams       boolean NOT NULL DEFAULT false,
    ADD COLUMN ingest_chosen boolean NOT NULL DEFAULT false;
COMMENT ON COLUMN realtime.state.streams IS
    'Whether the way of ingest is `wal`: servers that can take the log''s rows from the write-ahead log, and the others poll. '
    'ingest is `tail` then.';
COMMENT ON COLUMN realtime.state.ingest_chosen IS
    'Whether somebody has chosen the way of ingest. A server with `ingest = auto` changes no choice.';
-- Of `notify` it is not known: that is what no choice was.
UPDATE realtime.state SET ingest_chosen = true WHERE ingest <> 'notify';

-- The barriers' rows: of the log, so that they come only if the log's rows come, and in a partition of their own, which no
-- read of events looks at. Somebody's publication of all tables may publish deletions.
CREATE TABLE realtime.log_barriers (LIKE realtime.log INCLUDING DEFAULTS);
ALTER TABLE realtime.log_barriers ADD CONSTRAINT slot CHECK (slot IS NOT NULL AND slot = -1), REPLICA IDENTITY FULL;
COMMENT ON TABLE realtime.log_barriers IS 'The barriers of the last minute, of servers that stream.';
ALTER TABLE realtime.log ATTACH PARTITION realtime.log_barriers FOR VALUES IN (-1);

-- As before, without the barriers.
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
FROM realtime.log WHERE slot >= 0;

-- As before, and a change that no server proposes is somebody's choice.
CREATE OR REPLACE FUNCTION realtime.ingest_changes() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF NEW.ingest <> OLD.ingest THEN
        -- Given back after other sessions have been told that the functions are others.
        PERFORM pg_advisory_xact_lock(hashtextextended('realtime.ingest', 0));
        NEW.ingest_since := '9223372036854775807';
        NEW.ingest_awaits := '{}';
        NEW.ingest_chosen := NEW.ingest_chosen
            OR current_setting('hushnet_realtime.proposes', true) IS DISTINCT FROM 'on';
        NEW.streams := NEW.streams AND NEW.ingest = 'tail';
    ELSE
        NEW.ingest_since := OLD.ingest_since;
        NEW.ingest_awaits := OLD.ingest_awaits;
    END IF;
    RETURN NEW;
END $$;

-- For operators, and for servers that are told how: how events are to reach the servers from now on. `wal` has the triggers
-- of `tail`.
CREATE OR REPLACE FUNCTION realtime.set_ingest(way text) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    UPDATE realtime.state SET ingest = CASE way WHEN 'wal' THEN 'tail' ELSE way END, streams = way = 'wal', ingest_chosen = true
    WHERE ingest <> CASE way WHEN 'wal' THEN 'tail' ELSE way END OR streams <> (way = 'wal') OR NOT ingest_chosen
$$;

-- For servers that are to choose by themselves: `wal` from one that can stream, `adaptive` from another. Nobody's choice is
-- changed, and no server takes `wal` back because it cannot stream itself: then it polls.
CREATE FUNCTION realtime.propose_ingest(way text) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT set_config('hushnet_realtime.proposes', 'on', true);
    UPDATE realtime.state SET ingest = CASE way WHEN 'wal' THEN 'tail' ELSE way END, streams = way = 'wal'
    WHERE NOT ingest_chosen AND NOT streams AND (way = 'wal' OR way = 'adaptive' AND ingest = 'notify');
    SELECT set_config('hushnet_realtime.proposes', 'off', true)
$$;

-- Whether the publication is the one below. Of another the log's rows may be missing, and barriers' rows not.
CREATE FUNCTION realtime.is_published() RETURNS boolean
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT coalesce((
        SELECT p.pubinsert AND p.pubviaroot AND NOT p.puballtables AND EXISTS (
            SELECT FROM pg_publication_rel AS r
            WHERE r.prpubid = p.oid AND r.prrelid = 'realtime.log'::regclass AND r.prqual IS NULL AND r.prattrs IS NULL)
        FROM pg_publication AS p WHERE p.pubname = 'realtime_log'), false)
$$;

-- What a barrier tells: its own snapshot, and how events reach the servers. Events may be silent while transactions run that
-- may go by another way of ingest. What is found out of them in the same statement is told by the next barrier: this one's
-- snapshot is older, and its number is taken after.
CREATE FUNCTION realtime.barrier_text(nonce text) RETURNS text
LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
    SELECT format('barrier %s %s %s %s %s %s %s %s %s %s',
        nonce, realtime.epoch(), realtime.snapshot_text(s, 7000), ingest,
        CASE ingest WHEN 'notify' THEN false WHEN 'tail' THEN true
                    ELSE NOT pg_try_advisory_xact_lock_shared(realtime.doorbell()) END
            OR pg_snapshot_xmin(s) <= ingest_since OR ingest_awaits <> '{}',
        pg_notification_queue_usage(), realtime.history(), pg_current_xact_id(),
        CASE WHEN streams THEN 'wal' ELSE ingest END, realtime.is_published())
    FROM realtime.settle_ingest() AS settled, realtime.state, pg_current_snapshot() AS s
$$;

CREATE OR REPLACE FUNCTION realtime.barrier(nonce text) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT pg_notify('realtime_control', realtime.barrier_text(nonce));
    SELECT realtime.flush()
$$;

-- The same for a server that streams: the barrier is also a row of the log. The row proves that the log's rows come, and
-- the notification that the server hears.
CREATE FUNCTION realtime.stream_barrier(nonce text) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    WITH told AS MATERIALIZED (
        SELECT realtime.barrier_text(nonce) AS barrier
    ), written AS (
        INSERT INTO realtime.log_barriers (slot, id, kind, payload) SELECT -1, 0, 'barrier', barrier FROM told
    )
    SELECT pg_notify('realtime_control', barrier) FROM told;
    DELETE FROM realtime.log_barriers WHERE created_at < clock_timestamp() - interval '1 minute';
    SELECT realtime.flush()
$$;

-- Whoever may not create in the database goes without: servers say that it is missing. At another `wal_level` PostgreSQL
-- warns.
SET LOCAL client_min_messages = error;
DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_publication WHERE pubname = 'realtime_log') THEN
        CREATE PUBLICATION realtime_log FOR TABLE realtime.log
            WITH (publish = 'insert', publish_via_partition_root = true);
    END IF;
EXCEPTION WHEN insufficient_privilege THEN
    NULL;
END $$;

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

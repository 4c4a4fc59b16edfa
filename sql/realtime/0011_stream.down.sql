-- `wal` is `tail` again.
DROP PUBLICATION IF EXISTS realtime_log;
DROP FUNCTION realtime.stream_barrier, realtime.propose_ingest;

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

DROP FUNCTION realtime.barrier_text, realtime.is_published;

CREATE OR REPLACE FUNCTION realtime.set_ingest(way text) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    UPDATE realtime.state SET ingest = way WHERE ingest <> way
$$;

CREATE OR REPLACE FUNCTION realtime.ingest_changes() RETURNS trigger
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

DROP TABLE realtime.log_barriers;
ALTER TABLE realtime.state DROP COLUMN streams, DROP COLUMN ingest_chosen;

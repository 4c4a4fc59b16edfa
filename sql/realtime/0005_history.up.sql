-- History: the run of transaction numbers and of event ids that a cursor belongs to. A cursor of another history is
-- worth nothing here, however its snapshot looks. And only what is on disk is a position.

-- Each statement must see what was committed before it, whatever the role's default is.
SET TRANSACTION ISOLATION LEVEL READ COMMITTED;

-- The functions run with the rights of their owner, who owns the log.
DO $$
BEGIN
    EXECUTE format('SET LOCAL ROLE %I', (
        SELECT pg_get_userbyid(relowner) FROM pg_class WHERE oid = 'realtime.events'::regclass));
END $$;

-- Writers read realtime.state. Each attempt ends within 0.2 s and gives its lock back.
DO $$
DECLARE
    give_up timestamptz := clock_timestamp() + interval '10 seconds';
BEGIN
    PERFORM set_config('lock_timeout', '200ms', true);
    LOOP
        BEGIN
            LOCK TABLE realtime.state IN ACCESS EXCLUSIVE MODE;
            EXIT;
        EXCEPTION WHEN lock_not_available THEN
            IF clock_timestamp() > give_up THEN
                RAISE EXCEPTION USING ERRCODE = 'lock_not_available',
                    MESSAGE = 'the log is in use by a transaction that does not end',
                    HINT = 'See pg_locks and pg_prepared_xacts for realtime.state; then run it again.';
            END IF;
        END;
        PERFORM pg_sleep(0.1);
    END LOOP;
END $$;

ALTER TABLE realtime.state
    ADD COLUMN history      bigint CHECK (history > 0),
    ADD COLUMN database_oid oid,
    ADD COLUMN log_oid      oid;
COMMENT ON COLUMN realtime.state.history IS
    'A random number, the first part of every cursor. Bound to system_identifier, database_oid and log_oid: where one '
    'of them is another, a new history begins.';
COMMENT ON COLUMN realtime.state.database_oid IS 'The database that the history is bound to: pg_database.oid.';
COMMENT ON COLUMN realtime.state.log_oid IS 'The table that the history is bound to: realtime.events.';

-- Whether the history is the one of this database and of its log. A dump that was restored brings the history of
-- another database along.
CREATE FUNCTION realtime.is_bound() RETURNS boolean
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT EXISTS (
        SELECT FROM realtime.state AS s, pg_control_system() AS control
        WHERE s.system_identifier = control.system_identifier
          AND s.database_oid = (SELECT oid FROM pg_database WHERE datname = current_database())
          AND s.log_oid = to_regclass('realtime.events'))
$$;

-- Binds the history to this database and to the present table of the log. A migration that replaces the table calls
-- it in its own transaction, and holds the new table's lock from before.
CREATE FUNCTION realtime.bind_history() RETURNS void
LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
    UPDATE realtime.state SET
        system_identifier = (SELECT system_identifier FROM pg_control_system()),
        database_oid = (SELECT oid FROM pg_database WHERE datname = current_database()),
        log_oid = to_regclass('realtime.events')
$$;

-- Begins a new history: every cursor that was given out before gets `reset`. With `former`, only if that is the
-- present history. Returns the new one, or null. Ids go on above every id of the histories before: at the number of
-- seconds since 1970, times 2^20, which JavaScript's numbers hold exactly until the year 2242.
CREATE FUNCTION realtime.renew_history(former bigint DEFAULT NULL) RETURNS bigint
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    renewed  bigint;
    first_id bigint := floor(extract(epoch FROM clock_timestamp()) * 1048576);
BEGIN
    -- The last 60 bits of a random UUID are all random.
    UPDATE realtime.state SET
        history = greatest(1, ('x' || right(replace(gen_random_uuid()::text, '-', ''), 15))::bit(60)::bigint)
    WHERE former IS NULL OR history = former
    RETURNING history INTO renewed;
    IF renewed IS NOT NULL THEN
        IF nextval('realtime.events_id_seq') < first_id THEN
            PERFORM setval('realtime.events_id_seq', first_id, false);
        END IF;
        -- Servers that listen read the log at once, and find the new history.
        PERFORM pg_notify('realtime_control', 'changed');
    END IF;
    RETURN renewed;
END $$;

-- To be called by a server before it trusts the log. Where the history is not bound to this database, the transaction
-- numbers in the log mean nothing here: the log is emptied, once, and a new history begins. Returns whether it has.
CREATE FUNCTION realtime.begin_history() RETURNS boolean
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET lock_timeout = '200ms' AS $$
BEGIN
    IF realtime.is_bound() THEN
        RETURN false;
    END IF;
    -- A migration that replaces the log holds this lock until the history is bound to the new table.
    LOCK TABLE realtime.events IN ACCESS EXCLUSIVE MODE;
    IF realtime.is_bound() THEN
        RETURN false;
    END IF;
    TRUNCATE realtime.events;
    UPDATE realtime.state SET dropped_to = '0', dropped_running = '{}', retained_from = '0';
    PERFORM realtime.bind_history();
    PERFORM realtime.renew_history();
    RETURN true;
END $$;

SELECT realtime.bind_history();
SELECT realtime.renew_history();
ALTER TABLE realtime.state
    ALTER COLUMN history SET NOT NULL,
    ALTER COLUMN database_oid SET NOT NULL,
    ALTER COLUMN log_oid SET NOT NULL;

-- History and timeline, as `history-timeline`. A promoted standby begins a new timeline, and may give transaction
-- numbers out again that the primary before had given out. The history is 0 where it is bound to another table: a
-- server then calls realtime.begin_history().
CREATE FUNCTION realtime.history() RETURNS text
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT format('%s-%s', CASE WHEN log_oid = to_regclass('realtime.events') THEN history ELSE 0 END,
        ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::integer)
    FROM realtime.state
$$;

-- A snapshot in at most so many bytes. One that would be longer is cut at the first running transaction that does
-- not fit, as if nothing from there on had been seen: more repetitions, never a loss.
CREATE FUNCTION realtime.snapshot_text(s pg_snapshot, bytes_max integer) RETURNS text
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT CASE WHEN length(s::text) <= bytes_max THEN s::text
                ELSE format('%s:%s:%s', pg_snapshot_xmin(s), running[fit + 1], array_to_string(running[1:fit], ','))
           END
    FROM (SELECT array_agg(xid ORDER BY xid) AS running,
                 -- xmin, xmax and each running transaction take one digit more than the longest of them.
                 bytes_max / (length(pg_snapshot_xmax(s)::text) + 1) - 2 AS fit
          FROM pg_snapshot_xip(s) AS xid) AS x
$$;

-- The caller's snapshot as a cursor, whether or not what it sees is on disk.
CREATE FUNCTION realtime.unflushed_cursor() RETURNS text
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT format('%s.%s', realtime.history(), realtime.snapshot_text(pg_current_snapshot(), 256))
$$;

-- Whether the write-ahead log is on disk up to here. At the beginning of a page the position of the next record is
-- past the page's header, which nobody has to flush: at most 40 bytes, and no record has fewer than 24.
CREATE FUNCTION realtime.is_flushed(written pg_lsn) RETURNS boolean
LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
    SELECT written <= flushed
        OR written - flushed <= 40 AND (flushed - '0/0') % current_setting('wal_block_size')::integer = 0
    FROM pg_current_wal_flush_lsn() AS flushed
$$;

-- Makes the commit of the caller's transaction flush the write-ahead log: PostgreSQL flushes at the commit of a
-- transaction that has written to it. NOTIFY alone writes nothing there.
CREATE SEQUENCE realtime.flushes;
CREATE FUNCTION realtime.flush() RETURNS void
LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
    SELECT setval('realtime.flushes', 1)
$$;

-- Where the caller's snapshot is in the stream of events. Called in a REPEATABLE READ transaction together with reads
-- of state, it gives "the state as of the cursor"; a client that connects with it gets everything after. Opaque to
-- clients: history, timeline and snapshot.
--
-- PostgreSQL lets a transaction be seen before it is on disk (`synchronous_commit = off`). A crash takes it back and
-- gives its number out again: a cursor that had seen it would hide the new transaction. So the function waits until
-- what the snapshot sees is on disk. A server of ours flushes with every barrier. STABLE, so that its snapshot is that
-- of the calling statement.
CREATE OR REPLACE FUNCTION realtime.cursor() RETURNS text
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    -- First: a read may tidy up a page, and what it writes reaches the disk with its own transaction only.
    written pg_lsn := pg_current_wal_insert_lsn();
    found   text := realtime.unflushed_cursor();
    give_up timestamptz := clock_timestamp() + interval '5 seconds';
BEGIN
    WHILE NOT realtime.is_flushed(written) LOOP
        IF clock_timestamp() > give_up THEN
            RAISE EXCEPTION USING ERRCODE = 'object_not_in_prerequisite_state',
                MESSAGE = 'what the cursor sees is not on disk after 5 s',
                HINT = 'Read state and cursor again. Asynchronous commits reach the disk within three times '
                    'wal_writer_delay, and at once while a hushnet-realtime server is connected. If neither happens, '
                    'see to the disk of the write-ahead log.';
        END IF;
        PERFORM pg_sleep(0.001);
    END LOOP;
    -- The release before compares cursors with realtime.epoch().
    IF current_setting('realtime.release', true) = 'before' THEN
        RETURN realtime.epoch() || substr(found, strpos(found, '.'));
    END IF;
    RETURN found;
END $$;

-- For servers of the release before, in the statement in which they read their first cursor. Theirs have
-- realtime.epoch() for a history.
CREATE OR REPLACE FUNCTION realtime.claim_history() RETURNS boolean
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM set_config('realtime.release', 'before', true);
    RETURN realtime.begin_history();
END $$;

-- Notifies the control channel with the nonce, the epoch of the release before, the snapshot of the same transaction,
-- how events reach the server in it, whether events may be silent, the share of PostgreSQL's notification queue in
-- use, the history, and the number of the transaction. NOTIFY is delivered in the order of commits: who hears it has
-- heard of everything that the snapshot sees, if every event of it has notified. Its commit flushes everything that
-- the snapshot sees. The number is taken after `silent` was found: each transaction that has found a server awake
-- before has a lower one.
CREATE OR REPLACE FUNCTION realtime.barrier(nonce text) RETURNS void
LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
    SELECT pg_notify('realtime_control', format('barrier %s %s %s %s %s %s %s %s',
        nonce, realtime.epoch(), realtime.snapshot_text(s, 7000),
        ingest, realtime.silent() OR pg_snapshot_xmin(s) <= ingest_since,
        pg_notification_queue_usage(), realtime.history(), pg_current_xact_id()))
    FROM realtime.state, pg_current_snapshot() AS s;
    SELECT realtime.flush()
$$;

REVOKE EXECUTE ON FUNCTION realtime.is_bound, realtime.bind_history, realtime.renew_history, realtime.begin_history,
    realtime.flush FROM PUBLIC;

RESET ROLE;

-- Many nodes: which of them leads, and which there are. The leader reads the log and publishes events on a bus.

SET TRANSACTION ISOLATION LEVEL READ COMMITTED;

DO $$
BEGIN
    EXECUTE format('SET LOCAL ROLE %I', (
        SELECT pg_get_userbyid(relowner) FROM pg_class WHERE oid = 'realtime.log'::regclass));
END $$;

CREATE TABLE realtime.leader (
    singleton  boolean PRIMARY KEY DEFAULT true CHECK (singleton),
    term       bigint NOT NULL,
    run        bigint NOT NULL,
    node       uuid NOT NULL,
    name       text NOT NULL,
    elected_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    step_down  boolean NOT NULL DEFAULT false
);
COMMENT ON TABLE realtime.leader IS
    'The node that was last elected to read the log and to publish events. The others heed messages of its run alone.';
COMMENT ON COLUMN realtime.leader.term IS 'How many elections there have been.';
COMMENT ON COLUMN realtime.leader.run IS 'A random number, which each of its messages carries.';
COMMENT ON COLUMN realtime.leader.step_down IS 'Whether it is asked to let another node lead.';

-- Rewritten every two seconds by each node: without an index on what changes, an update leaves the index alone.
CREATE TABLE realtime.nodes (
    node          uuid PRIMARY KEY,
    name          text NOT NULL CHECK (octet_length(name) BETWEEN 1 AND 64),
    version       text NOT NULL,
    batch_version integer NOT NULL,
    role          text NOT NULL CHECK (role IN ('leader', 'follower', 'reader')),
    run           bigint,
    received_at   timestamptz,
    shards        integer NOT NULL,
    connections   integer NOT NULL,
    lag_ms        integer NOT NULL,
    seen_at       timestamptz NOT NULL
) WITH (fillfactor = 50);
COMMENT ON TABLE realtime.nodes IS 'The nodes of the last minute, as each writes its own row every two seconds.';
COMMENT ON COLUMN realtime.nodes.batch_version IS 'The newest format of messages that the node reads.';
COMMENT ON COLUMN realtime.nodes.role IS
    'leader: reads the log and publishes; follower: takes events from the bus; reader: reads the log for itself.';
COMMENT ON COLUMN realtime.nodes.run IS 'The run whose barrier the node has last received over the bus.';
COMMENT ON COLUMN realtime.nodes.received_at IS 'When it last received a barrier of this run.';
COMMENT ON COLUMN realtime.nodes.lag_ms IS
    'How long before seen_at the last barrier had come, which proves that events come, in milliseconds.';

CREATE FUNCTION realtime.leader_lock() RETURNS bigint
LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
RETURN hashtextextended('realtime.leader', 0);
COMMENT ON FUNCTION realtime.leader_lock IS 'The key of the advisory lock that the leader holds.';

-- The lock's holder begins a term. Returns its number.
CREATE FUNCTION realtime.lead(node uuid, name text, run bigint) RETURNS bigint
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    INSERT INTO realtime.leader AS former (term, run, node, name) VALUES (1, run, node, name)
    ON CONFLICT (singleton) DO UPDATE
        SET term = former.term + 1, run = excluded.run, node = excluded.node, name = excluded.name,
            elected_at = clock_timestamp(), step_down = false
    RETURNING term
$$;

CREATE FUNCTION realtime.leader_now(
    OUT term bigint, OUT run bigint, OUT node uuid, OUT name text, OUT step_down boolean
) RETURNS SETOF record
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT term, run, node, name, step_down FROM realtime.leader
$$;

-- Asks the leader of this run to let another node lead. Returns whether it is still the run of the last elected.
CREATE FUNCTION realtime.ask_to_step_down(run bigint) RETURNS boolean
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    WITH asked AS (UPDATE realtime.leader AS present SET step_down = true WHERE present.run = $1 RETURNING 1)
    SELECT EXISTS (SELECT FROM asked)
$$;

-- A node writes its row, and deletes rows that were not written for a minute. Returns the id of another live node of its
-- name. No node waits for another: a row that another node is about to delete is skipped. `received` says whether a barrier
-- of the run has come since the last call.
CREATE FUNCTION realtime.announce_node(
    node uuid, name text, version text, batch_version integer, role text, run bigint, received boolean, shards integer,
    connections integer, lag_ms integer
) RETURNS uuid
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    DELETE FROM realtime.nodes AS gone USING (
        SELECT others.node FROM realtime.nodes AS others
        WHERE others.node <> $1 AND others.seen_at < clock_timestamp() - interval '1 minute'
        FOR UPDATE SKIP LOCKED
    ) AS unseen WHERE gone.node = unseen.node;
    INSERT INTO realtime.nodes AS former
        (node, name, version, batch_version, role, run, received_at, shards, connections, lag_ms, seen_at)
    VALUES (node, name, version, batch_version, role, run, CASE WHEN received THEN clock_timestamp() END, shards,
            connections, lag_ms, clock_timestamp())
    ON CONFLICT ON CONSTRAINT nodes_pkey DO UPDATE
        SET name = excluded.name, version = excluded.version, batch_version = excluded.batch_version,
            role = excluded.role, run = excluded.run,
            received_at = CASE WHEN former.run IS NOT DISTINCT FROM excluded.run
                               THEN coalesce(excluded.received_at, former.received_at) ELSE excluded.received_at END,
            shards = excluded.shards, connections = excluded.connections, lag_ms = excluded.lag_ms,
            seen_at = excluded.seen_at;
    SELECT others.node FROM realtime.nodes AS others
    WHERE others.name = $2 AND others.node <> $1 AND others.seen_at > clock_timestamp() - interval '6 seconds' LIMIT 1
$$;

-- The nodes of the last minute, with how long ago each was seen and has received a barrier, in seconds.
CREATE FUNCTION realtime.node_states(
    OUT node uuid, OUT name text, OUT version text, OUT batch_version integer, OUT role text, OUT run bigint,
    OUT received_age double precision, OUT shards integer, OUT connections integer, OUT lag_ms integer,
    OUT seen_age double precision
) RETURNS SETOF record
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT node, name, version, batch_version, role, run,
           extract(epoch FROM clock_timestamp() - received_at)::double precision, shards, connections,
           lag_ms, extract(epoch FROM clock_timestamp() - seen_at)::double precision
    FROM realtime.nodes ORDER BY name, node
$$;

CREATE FUNCTION realtime.leave_node(node uuid) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    DELETE FROM realtime.nodes AS own WHERE own.node = $1
$$;

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

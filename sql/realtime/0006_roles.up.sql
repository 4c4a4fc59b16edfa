-- Roles: the service connects as a role that owns nothing and reads none of the application's tables. It calls
-- functions that run with their owner's rights. `hushnet-realtime migrate grant` gives a role what it needs
-- (`sql/realtime_rights.sql`); no role has anything in this schema by being a role.

-- The functions run with the rights of their owner, who owns the log.
DO $$
BEGIN
    EXECUTE format('SET LOCAL ROLE %I', (
        SELECT pg_get_userbyid(relowner) FROM pg_class WHERE oid = 'realtime.events'::regclass));
END $$;

-- State. The functions are STABLE: their queries see the snapshot of the calling statement, which also reads the
-- cursor. A VOLATILE function would take a snapshot of its own. The caller puts a bound on the rows, and says which of
-- them fit into an answer. In plpgsql, so that a session plans each query once. The parameters are named by their
-- numbers, because the application's columns may have any names.

-- The messages to the device $1 that are not marked as delivered, the $2 oldest.
CREATE FUNCTION realtime.pending_messages(device_id uuid, rows_max bigint) RETURNS SETOF json
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY SELECT row_to_json(oldest) FROM (
        SELECT id, logical_msg_id, chat_id, from_user_id, from_device_id, to_user_id, to_device_id,
               header, ciphertext, created_at
        FROM public.messages WHERE to_device_id = $1 AND delivered_at IS NULL
        ORDER BY created_at, id LIMIT $2
    ) AS oldest ORDER BY created_at, id;
END $$;

-- The handshakes that the device $1 has not answered, the $2 oldest.
CREATE FUNCTION realtime.pending_handshakes(device_id uuid, rows_max bigint) RETURNS SETOF json
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY SELECT row_to_json(oldest) FROM (
        SELECT id, sender_device_id, recipient_device_id, ephemeral_pubkey, sender_prekey_pub, otpk_used,
               ciphertext, state, created_at
        FROM public.pending_sessions WHERE recipient_device_id = $1 AND state = 'initiated'
        ORDER BY created_at, id LIMIT $2
    ) AS oldest ORDER BY created_at, id;
END $$;

-- The devices of the user $1 with their public keys, the $2 oldest. Without `last_seen`: a change of it alone makes no
-- event. Without `push_token`, which concerns only the device and the application.
CREATE FUNCTION realtime.devices_of(user_id uuid, rows_max bigint) RETURNS SETOF json
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY SELECT row_to_json(oldest) FROM (
        SELECT id, user_id, identity_pubkey, prekey_pubkey, signed_prekey_pub, signed_prekey_sig,
               one_time_prekeys, device_label, created_at
        FROM public.devices WHERE user_id = $1
        ORDER BY created_at, id LIMIT $2
    ) AS oldest ORDER BY created_at, id;
END $$;

-- Identity. Each function takes all that a caller asks for at once.

-- The devices that have one of the texts $1 as identity key: first the device $3, then those of the user $2. LIMIT 2: a
-- second row means that the key is ambiguous.
CREATE FUNCTION realtime.devices_with_key(key_texts text[], wanted_user uuid, wanted_device uuid)
RETURNS TABLE (device_id uuid, owner_id uuid)
LANGUAGE plpgsql STABLE SECURITY DEFINER ROWS 2 SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY SELECT d.id, d.user_id FROM public.devices AS d WHERE d.identity_pubkey = ANY ($1)
    ORDER BY d.id IS NOT DISTINCT FROM $3 DESC, d.user_id IS NOT DISTINCT FROM $2 DESC LIMIT 2;
END $$;

-- Those of the devices $1 that exist.
CREATE FUNCTION realtime.existing_devices(device_ids uuid[]) RETURNS TABLE (device_id uuid, owner_id uuid)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY SELECT d.id, d.user_id FROM public.devices AS d WHERE d.id = ANY ($1);
END $$;

-- Those of the users $1 that exist. Fails with undefined_table where the application has no table of users.
CREATE FUNCTION realtime.existing_users(user_ids uuid[]) RETURNS SETOF uuid
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY SELECT u.id FROM public.users AS u WHERE u.id = ANY ($1);
END $$;

-- What a server does to the log. Each of these has a fixed search_path since it was made.
ALTER FUNCTION realtime.barrier(text) SECURITY DEFINER;
ALTER FUNCTION realtime.flush() SECURITY DEFINER;
ALTER FUNCTION realtime.begin_history() SECURITY DEFINER;
ALTER FUNCTION realtime.claim_history() SECURITY DEFINER;
ALTER FUNCTION realtime.renew_history(bigint) SECURITY DEFINER;
ALTER FUNCTION realtime.rotate(interval) SECURITY DEFINER;
ALTER FUNCTION realtime.expired(interval) SECURITY DEFINER;
ALTER FUNCTION realtime.forget(name) SECURITY DEFINER;
ALTER FUNCTION realtime.maintain(interval) SECURITY DEFINER;

RESET ROLE;

-- Firing a trigger needs no right on its function, and what the function calls runs with its owner's rights.
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA realtime FROM PUBLIC;
REVOKE ALL ON SCHEMA realtime FROM PUBLIC;

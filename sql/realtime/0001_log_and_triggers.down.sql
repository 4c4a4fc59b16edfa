-- Puts the application's own triggers back as they were and removes ours and the log.

SET LOCAL lock_timeout = '10s';

DROP TRIGGER messages_notify_trigger ON public.messages;
DROP TRIGGER sessions_notify_trigger ON public.sessions;
DROP TRIGGER devices_notify_trigger ON public.devices;
DROP INDEX public.realtime_devices_identity_pubkey;

DO $$
DECLARE
    replaced record;
BEGIN
    FOR replaced IN SELECT * FROM realtime.replaced_triggers LOOP
        EXECUTE replaced.definition;
        IF replaced.enabled <> 'O' THEN
            EXECUTE format('ALTER TABLE %s %s TRIGGER %I', replaced.table_name,
                CASE replaced.enabled WHEN 'D' THEN 'DISABLE' WHEN 'R' THEN 'ENABLE REPLICA'
                    ELSE 'ENABLE ALWAYS' END, replaced.name);
        END IF;
    END LOOP;
END $$;

REVOKE USAGE ON SCHEMA realtime FROM PUBLIC;
-- With the trigger on users, if there is such a table.
DROP FUNCTION realtime.on_user_deleted CASCADE;
DROP FUNCTION realtime.on_messages, realtime.on_session, realtime.on_device, realtime.emit,
    realtime.revoke, realtime.announce, realtime.silent, realtime.doorbell, realtime.barrier, realtime.cursor,
    realtime.epoch, realtime.maintain, realtime.forget, realtime.claim_history;
DROP TABLE realtime.replaced_triggers, realtime.partitions, realtime.state, realtime.events;

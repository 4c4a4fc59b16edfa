-- Gives the triggers the names that they had before. What the application has put beside them is remembered first,
-- and comes back with the rest.

SELECT realtime.lock_application_tables();
SELECT realtime.repair_triggers();

ALTER TRIGGER realtime_messages ON public.messages RENAME TO messages_notify_trigger;
ALTER TRIGGER realtime_sessions ON public.sessions RENAME TO sessions_notify_trigger;
ALTER TRIGGER realtime_devices ON public.devices RENAME TO devices_notify_trigger;

-- With the triggers of TRUNCATE.
DROP FUNCTION realtime.on_truncate CASCADE;
DROP FUNCTION realtime.repair_triggers, realtime.is_in_place, realtime.lock_application_tables,
    realtime.replace_application_triggers, realtime.application_triggers, realtime.own_triggers;

DROP INDEX realtime.events_id;

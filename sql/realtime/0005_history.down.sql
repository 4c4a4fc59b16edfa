-- Removes what the migrations before cannot: they drop the log itself.
DROP FUNCTION realtime.history, realtime.snapshot_text, realtime.unflushed_cursor, realtime.is_flushed, realtime.flush,
    realtime.begin_history, realtime.renew_history, realtime.bind_history, realtime.is_bound;
DROP SEQUENCE realtime.flushes;

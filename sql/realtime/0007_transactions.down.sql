-- The functions go with the log.
COMMENT ON COLUMN realtime.events.payload IS 'The JSON that was notified, to the letter.';

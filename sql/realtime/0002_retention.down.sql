-- Removes what the migration before cannot: it drops the log itself.

SET LOCAL lock_timeout = '10s';

ALTER TABLE realtime.events ALTER COLUMN slot DROP DEFAULT;
DROP FUNCTION realtime.open_slot, realtime.rotate, realtime.expired;

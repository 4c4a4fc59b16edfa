-- An index of the log by id: a long read goes through the log page by page, in the order of ids, and each page is found
-- at once. New ids are the highest, so that an event's entry goes to the index's last page.

-- Writers wait while the index is built.
SET LOCAL lock_timeout = '10s';

CREATE INDEX events_id ON realtime.events (id);

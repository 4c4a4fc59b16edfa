-- Rights on what this drops go with it. The others are taken back when the last migration is undone: until then the
-- servers that run need them.
DROP FUNCTION realtime.pending_messages, realtime.pending_handshakes, realtime.devices_of, realtime.devices_with_key,
    realtime.existing_devices, realtime.existing_users;

-- HushNet's own triggers, as its specification has them: each notifies its channel and keeps no log.
-- `migrate up` takes their place and `migrate down` puts them back; a database that has only these is
-- served live.

CREATE FUNCTION public.notify_new_message() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('messages_channel', json_build_object(
        'type', 'message', 'chat_id', NEW.chat_id, 'user_id', NEW.to_user_id)::text);
    RETURN NEW;
END $$;

CREATE FUNCTION public.notify_new_session() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    device_owner uuid;
BEGIN
    FOR device_owner IN
        SELECT DISTINCT user_id FROM public.devices
        WHERE id IN (NEW.sender_device_id, NEW.receiver_device_id)
    LOOP
        PERFORM pg_notify('sessions_channel', json_build_object(
            'type', 'session', 'user_id', device_owner,
            'sender_device_id', NEW.sender_device_id,
            'receiver_device_id', NEW.receiver_device_id)::text);
    END LOOP;
    RETURN NEW;
END $$;

CREATE FUNCTION public.notify_device_update() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('devices_channel',
        json_build_object('type', 'device', 'user_id', NEW.user_id)::text);
    RETURN NEW;
END $$;

CREATE FUNCTION public.notify_new_pending_session() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('pending_sessions_channel', json_build_object(
        'type', 'pending_session', 'user_id', user_id,
        'recipient_device_id', NEW.recipient_device_id,
        'sender_device_id', NEW.sender_device_id,
        'pending_session_id', NEW.id,
        'created_at', NEW.created_at)::text)
    FROM public.devices WHERE id = NEW.recipient_device_id;
    RETURN NEW;
END $$;

CREATE TRIGGER messages_notify_trigger AFTER INSERT ON public.messages
    FOR EACH ROW EXECUTE FUNCTION public.notify_new_message();
CREATE TRIGGER sessions_notify_trigger AFTER INSERT ON public.sessions
    FOR EACH ROW EXECUTE FUNCTION public.notify_new_session();
CREATE TRIGGER devices_notify_trigger AFTER INSERT OR UPDATE ON public.devices
    FOR EACH ROW EXECUTE FUNCTION public.notify_device_update();
CREATE TRIGGER pending_sessions_notify_trigger AFTER INSERT ON public.pending_sessions
    FOR EACH ROW EXECUTE FUNCTION public.notify_new_pending_session();

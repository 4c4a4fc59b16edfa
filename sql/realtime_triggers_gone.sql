DO $$
DECLARE
    own record;
BEGIN
    FOR own IN
        SELECT t.tgname, t.tgrelid FROM pg_trigger t JOIN pg_proc p ON p.oid = t.tgfoid
        WHERE p.pronamespace = 'realtime'::regnamespace AND NOT t.tgisinternal AND t.tgparentid = 0
    LOOP
        EXECUTE format('DROP TRIGGER %I ON %s', own.tgname, own.tgrelid::regclass);
    END LOOP;
END $$;
DROP INDEX IF EXISTS public.realtime_devices_identity_pubkey;
-- What the application has put beside our triggers is remembered; it comes back with the rest. Of a table that is gone
-- nothing comes back.
SELECT realtime.replace_application_triggers();
DELETE FROM realtime.replaced_triggers WHERE table_name NOT IN (SELECT oid FROM pg_class);

-- With the triggers of sources of one's own. The functions that were here before go with the log.
DO $$
DECLARE
    made name;
BEGIN
    FOR made IN
        SELECT proname FROM pg_proc WHERE pronamespace = 'realtime'::regnamespace AND proname ~ '^source_[0-9]+$'
    LOOP
        EXECUTE format('DROP FUNCTION realtime.%I() CASCADE', made);
    END LOOP;
END $$;
DROP FUNCTION realtime.on_pending_session CASCADE;

DROP FUNCTION realtime.add_source, realtime.remove_source, realtime.forget_sources, realtime.install_presets,
    realtime.make_source_functions, realtime.drop_source_functions, realtime.misplaced_triggers,
    realtime.expected_sources, realtime.presets, realtime.source_text,
    realtime.check_definition, realtime.audience_query, realtime.has_audience_column,
    realtime.emit(text, uuid, text, smallint, json);
-- Migration 9 drops it.
DROP FUNCTION IF EXISTS realtime.json_of_columns;
DROP TABLE realtime.sources;
DROP FUNCTION realtime.check_source, realtime.free_source_number;
DROP SEQUENCE realtime.source_numbers;

-- All of them are remembered by now.
CREATE OR REPLACE FUNCTION realtime.application_triggers() RETURNS SETOF pg_trigger
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT * FROM pg_trigger WHERE false
$$;

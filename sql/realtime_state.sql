-- The schema as it is found: whether it is there, how many objects are in it, whether the table of applied migrations
-- is one of them, and what was noted there about the schema as it was before.
SELECT (SELECT count(*) FROM pg_catalog.pg_depend AS object
        WHERE object.refclassid = 'pg_catalog.pg_namespace'::pg_catalog.regclass AND object.refobjid = found.oid
            AND object.classid <> 'pg_catalog.pg_default_acl'::pg_catalog.regclass) AS objects,
    applied.oid IS NOT NULL AS has_migrations,
    pg_catalog.obj_description(applied.oid, 'pg_class') AS noted,
    pg_catalog.has_schema_privilege('public', found.oid, 'USAGE') AS is_open
FROM pg_catalog.pg_namespace AS found
    LEFT JOIN pg_catalog.pg_class AS applied ON applied.relnamespace = found.oid AND applied.relname = '_sqlx_migrations'
WHERE found.nspname = 'realtime';

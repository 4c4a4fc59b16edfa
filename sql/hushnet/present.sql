-- Whether the application's tables are there.
SELECT to_regclass('public.messages') IS NOT NULL

-- The id of the user named $1.
SELECT id FROM public.users WHERE username = $1

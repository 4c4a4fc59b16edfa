-- One message row from the user named $1 to each device of the user named $2; $3 stands where a real
-- client puts the ciphertext. Returns the rows' ids.
INSERT INTO public.messages (logical_msg_id, chat_id, from_user_id, from_device_id, to_user_id,
                             to_device_id, header, ciphertext)
SELECT gen_random_uuid()::text,
       (SELECT c.id FROM public.chats c
        WHERE c.user_a = least(f.id, t.id) AND c.user_b = greatest(f.id, t.id)),
       f.id,
       (SELECT d.id FROM public.devices d WHERE d.user_id = f.id ORDER BY d.created_at LIMIT 1),
       t.id, td.id, '{}', $3
FROM public.users f, public.users t, public.devices td
WHERE f.username = $1 AND t.username = $2 AND td.user_id = t.id
RETURNING id

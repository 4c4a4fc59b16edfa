-- Two users with a device each and a chat between them, if they are not there yet.
INSERT INTO public.users (username) VALUES ('alice'), ('bob') ON CONFLICT (username) DO NOTHING;

INSERT INTO public.devices (user_id, identity_pubkey, prekey_pubkey, signed_prekey_pub,
                            signed_prekey_sig, one_time_prekeys, device_label)
SELECT id, 'demo', 'demo', 'demo', 'demo', '[]', username || '''s laptop'
FROM public.users WHERE username IN ('alice', 'bob')
ON CONFLICT (user_id, identity_pubkey) DO NOTHING;

INSERT INTO public.chats (user_a, user_b)
SELECT least(a.id, b.id), greatest(a.id, b.id)
FROM public.users a, public.users b
WHERE a.username = 'alice' AND b.username = 'bob'
  AND NOT EXISTS (SELECT FROM public.chats c
                  WHERE c.user_a = least(a.id, b.id) AND c.user_b = greatest(a.id, b.id));

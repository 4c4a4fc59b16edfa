-- The part of HushNet's database that its realtime service touches, with HushNet's own names of
-- tables, columns and triggers. `hushnet-realtime run` and the tests start from it; a real HushNet
-- database brings its own.

CREATE TABLE public.users (
    id         uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    username   text NOT NULL UNIQUE,
    created_at timestamp DEFAULT now()
);

CREATE TABLE public.devices (
    id                uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    user_id           uuid NOT NULL REFERENCES public.users (id) ON DELETE CASCADE,
    identity_pubkey   text NOT NULL,
    prekey_pubkey     text NOT NULL,
    signed_prekey_pub text NOT NULL,
    signed_prekey_sig text NOT NULL,
    one_time_prekeys  jsonb NOT NULL,
    device_label      text,
    push_token        text,
    last_seen         timestamp DEFAULT now(),
    created_at        timestamp DEFAULT now(),
    UNIQUE (user_id, identity_pubkey)
);

CREATE TABLE public.chats (
    id              uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    chat_type       text DEFAULT 'direct' CHECK (chat_type IN ('direct', 'group')),
    user_a          uuid REFERENCES public.users (id) ON DELETE CASCADE,
    user_b          uuid REFERENCES public.users (id) ON DELETE CASCADE,
    name            text,
    owner_id        uuid REFERENCES public.users (id) ON DELETE SET NULL,
    last_message_id uuid,
    created_at      timestamp DEFAULT now(),
    updated_at      timestamp DEFAULT now(),
    CHECK (chat_type <> 'direct' OR (user_a IS NOT NULL AND user_b IS NOT NULL AND user_a < user_b))
);

CREATE TABLE public.chat_members (
    chat_id   uuid REFERENCES public.chats (id) ON DELETE CASCADE,
    user_id   uuid REFERENCES public.users (id) ON DELETE CASCADE,
    role      text DEFAULT 'member',
    joined_at timestamp DEFAULT now(),
    PRIMARY KEY (chat_id, user_id)
);

CREATE TABLE public.messages (
    id             uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    logical_msg_id text NOT NULL,
    chat_id        uuid REFERENCES public.chats (id) ON DELETE CASCADE,
    from_user_id   uuid REFERENCES public.users (id) ON DELETE CASCADE,
    from_device_id uuid REFERENCES public.devices (id) ON DELETE CASCADE,
    to_user_id     uuid REFERENCES public.users (id) ON DELETE CASCADE,
    to_device_id   uuid REFERENCES public.devices (id) ON DELETE CASCADE,
    header         jsonb NOT NULL,
    ciphertext     text NOT NULL,
    delivered_at   timestamptz,
    read_at        timestamptz,
    created_at     timestamptz DEFAULT now()
);
CREATE INDEX messages_to_device ON public.messages (to_device_id, created_at);

ALTER TABLE public.chats ADD FOREIGN KEY (last_message_id)
    REFERENCES public.messages (id) ON DELETE SET NULL;

CREATE TABLE public.sessions (
    id                 uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    chat_id            uuid REFERENCES public.chats (id) ON DELETE CASCADE,
    sender_device_id   uuid REFERENCES public.devices (id) ON DELETE CASCADE,
    receiver_device_id uuid REFERENCES public.devices (id) ON DELETE CASCADE,
    created_at         timestamp DEFAULT now(),
    updated_at         timestamp DEFAULT now(),
    UNIQUE (sender_device_id, receiver_device_id)
);

CREATE TABLE public.pending_sessions (
    id                  uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    sender_device_id    uuid NOT NULL REFERENCES public.devices (id) ON DELETE CASCADE,
    recipient_device_id uuid NOT NULL REFERENCES public.devices (id) ON DELETE CASCADE,
    ephemeral_pubkey    text NOT NULL,
    sender_prekey_pub   text NOT NULL,
    otpk_used           text NOT NULL,
    ciphertext          text NOT NULL,
    created_at          timestamp DEFAULT now(),
    state               text DEFAULT 'initiated' CHECK (state IN ('initiated', 'responded', 'completed'))
);
CREATE INDEX pending_sessions_recipient ON public.pending_sessions (recipient_device_id, created_at);

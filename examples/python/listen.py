"""Prints a user's events, each once: listen.py HOST:PORT USER FILE. Needs nothing but Python 3."""
import base64, json, os, pathlib, random, socket, sys, time
ADDRESS, USER, FILE = sys.argv[1:]
AGAIN = (None, 1012, 1013, 4004, 4008, 4009, 4029)  # close codes as in docs/protocol.md; None: it broke off
FRAMES = ("hello cursor ping pong error goaway auth authenticated revocation truncated event_failed barrier typing "
          "presence receipt ack").split()  # any other type is an event, or a reset
kept = json.load(open(FILE)) if os.path.exists(FILE) else {"cursor": "", "ids": [], "old": []}

def take(frame):
    handed = frame.get("id") in kept["ids"] + kept["old"]
    if not handed and frame["type"] not in FRAMES: print(json.dumps(frame), flush=True)  # a reset: read the state
    if frame.get("cursor") not in (None, kept["cursor"]):
        kept.update(cursor=frame["cursor"], ids=[], old=kept["ids"], wait_s=1)
    if frame.get("reason") in ("history", "future"): kept.update(ids=[], old=[])  # of a reset: ids may come again
    kept["ids"] += [frame["id"]] if "id" in frame else []
    pathlib.Path(FILE + ".new").write_text(json.dumps(kept))  # after the event was handed on
    os.replace(FILE + ".new", FILE)

def listen():
    key, since = base64.b64encode(os.urandom(16)).decode(), kept["cursor"] and "&since=" + kept["cursor"]
    with socket.create_connection(ADDRESS.rsplit(":", 1), 60) as sock, sock.makefile("rb") as stream:
        sock.sendall(f"GET /ws?user_id={USER}{since} HTTP/1.1\r\nHost: {ADDRESS}\r\nUpgrade: websocket\r\n"
                     f"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n"
                     "Sec-WebSocket-Protocol: hushnet.v1\r\n\r\n".encode())
        status = b"".join(iter(lambda: stream.readline().strip(), b""))[9:12].decode()
        if status != "101": return None if status in ("", "429", "503") else sys.exit(f"refused with {status}")
        while len(head := stream.read(2)) == 2:  # the server's frames are whole and not masked
            more = {126: 2, 127: 8}.get(head[1], 0)
            data = stream.read(int.from_bytes(stream.read(more), "big") if more else head[1])
            if head[0] == 0x81: take(json.loads(data)); continue
            mask = os.urandom(4)  # a ping is answered with a pong, a close with a close
            masked = bytes(byte ^ mask[i % 4] for i, byte in enumerate(data))
            sock.sendall(bytes([{0x89: 0x8A}.get(head[0], head[0]), 0x80 | len(data)]) + mask + masked)
            if head[0] == 0x88: return int.from_bytes(data[:2], "big")

while True:
    try: code = listen()
    except (OSError, ValueError): code = None  # ValueError: in the middle of a frame
    if code not in AGAIN: sys.exit(f"closed with {code}")
    time.sleep(random.random() * kept.setdefault("wait_s", 1)); kept["wait_s"] = min(2 * kept["wait_s"], 30)

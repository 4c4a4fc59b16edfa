"""Connects with the `websockets` library and prints each frame: listen.py URL COUNT."""

import asyncio
import sys

import websockets


async def main(url: str, count: int) -> None:
    async with websockets.connect(url) as socket:
        print("connected", flush=True)
        for _ in range(count):
            print(await socket.recv(), flush=True)


asyncio.run(main(sys.argv[1], int(sys.argv[2])))

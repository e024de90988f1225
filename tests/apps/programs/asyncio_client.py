"""Prints what the server sends. Arguments: address, port."""
import asyncio
import sys


async def main():
    reader, writer = await asyncio.open_connection(sys.argv[1], int(sys.argv[2]))
    writer.write(b"please\n")
    await writer.drain()
    while chunk := await reader.read(1 << 18):
        sys.stdout.buffer.write(chunk)
    sys.stdout.buffer.flush()
    writer.close()
    await writer.wait_closed()


asyncio.run(main())

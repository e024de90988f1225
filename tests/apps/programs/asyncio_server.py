"""Sends a file to each client. Arguments: port, file."""
import asyncio
import sys


async def serve(reader, writer):
    await reader.readline()
    with open(sys.argv[2], "rb") as file:
        while chunk := file.read(1 << 18):
            writer.write(chunk)
            await writer.drain()
    writer.close()
    await writer.wait_closed()


async def main():
    server = await asyncio.start_server(serve, "0.0.0.0", int(sys.argv[1]))
    async with server:
        await server.serve_forever()


asyncio.run(main())

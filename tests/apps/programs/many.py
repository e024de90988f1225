"""Many connections at once, one selector. Arguments: address, port, how many."""
import selectors
import socket
import sys

address, port, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
selector = selectors.DefaultSelector()
waiting = {}
for number in range(count):
    sock = socket.socket()
    sock.setblocking(False)
    sock.connect_ex((address, port))
    waiting[sock] = b"this is connection %d\n" % number
    selector.register(sock, selectors.EVENT_WRITE)
while waiting:
    ready = selector.select(20)
    if not ready:
        sys.exit(f"{len(waiting)} connections without an answer")
    for key, events in ready:
        sock = key.fileobj
        if events & selectors.EVENT_WRITE:
            error = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if error:
                sys.exit(f"connect: error {error}")
            sock.send(waiting[sock])
            selector.modify(sock, selectors.EVENT_READ)
            continue
        got = sock.recv(4096)
        if not waiting[sock].startswith(got) or not got:
            sys.exit(f"wrong answer {got!r}")
        waiting[sock] = waiting[sock][len(got):]
        if not waiting[sock]:
            selector.unregister(sock)
            sock.close()
            del waiting[sock]

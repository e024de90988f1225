import java.io.IOException;
import java.net.InetSocketAddress;
import java.nio.ByteBuffer;
import java.nio.channels.SelectionKey;
import java.nio.channels.Selector;
import java.nio.channels.ServerSocketChannel;
import java.nio.channels.SocketChannel;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.ArrayList;

/** Echoes with one selector; and a client with threads and blocking channels. Arguments: serve PORT, or
 * call ADDRESS PORT FILE TIMES. */
public class Echo {
    public static void main(String[] args) throws Exception {
        if (args[0].equals("serve"))
            serve(Integer.parseInt(args[1]));
        else
            call(new InetSocketAddress(args[1], Integer.parseInt(args[2])), Files.readAllBytes(Path.of(args[3])),
                    Integer.parseInt(args[4]));
    }

    static void serve(int port) throws IOException {
        Selector selector = Selector.open();
        ServerSocketChannel listener = ServerSocketChannel.open();
        listener.bind(new InetSocketAddress(port), 64);
        listener.configureBlocking(false);
        listener.register(selector, SelectionKey.OP_ACCEPT);
        while (true) {
            selector.select();
            for (SelectionKey key : selector.selectedKeys()) {
                if (key.isAcceptable()) {
                    SocketChannel peer = listener.accept();
                    if (peer == null)
                        continue;
                    peer.configureBlocking(false);
                    peer.register(selector, SelectionKey.OP_READ, new Echoed());
                } else {
                    echo(key);
                }
            }
            selector.selectedKeys().clear();
        }
    }

    static void echo(SelectionKey key) throws IOException {
        SocketChannel peer = (SocketChannel) key.channel();
        Echoed echoed = (Echoed) key.attachment();
        ByteBuffer buffer = echoed.buffer;
        if (key.isReadable())
            echoed.ended = peer.read(buffer) < 0;
        buffer.flip();
        peer.write(buffer);
        buffer.compact();
        if (echoed.ended && buffer.position() == 0) {
            peer.close();
            return;
        }
        key.interestOps((buffer.position() > 0 ? SelectionKey.OP_WRITE : 0)
                | (buffer.hasRemaining() && !echoed.ended ? SelectionKey.OP_READ : 0));
    }

    static class Echoed {
        final ByteBuffer buffer = ByteBuffer.allocateDirect(1 << 16);
        boolean ended;
    }

    static void call(InetSocketAddress server, byte[] data, int times) throws Exception {
        var pool = Executors.newCachedThreadPool();
        var results = new ArrayList<Future<Boolean>>();
        for (int i = 0; i < times; i++) {
            results.add(pool.submit(() -> {
                try (SocketChannel channel = SocketChannel.open(server)) {
                    pool.submit(() -> {
                        ByteBuffer out = ByteBuffer.wrap(data);
                        while (out.hasRemaining())
                            channel.write(out);
                        channel.shutdownOutput();
                        return null;
                    });
                    ByteBuffer in = ByteBuffer.allocate(data.length + 1);
                    while (channel.read(in) > 0) {
                    }
                    return in.position() == data.length && Arrays.equals(Arrays.copyOf(in.array(), data.length), data);
                }
            }));
        }
        int good = 0;
        for (var result : results)
            good += result.get() ? 1 : 0;
        System.out.println(good + " echoed");
        pool.shutdown();
    }
}

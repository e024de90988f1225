# Serves the files of a directory, a thread for each connection. Arguments: port, directory.
require 'socket'

server = TCPServer.new('0.0.0.0', ARGV[0].to_i)
trap('TERM') { exit 0 }
loop do
  Thread.new(server.accept) do |peer|
    path = peer.gets.split[1]
    nil until peer.gets.chomp.empty?
    File.open(File.join(ARGV[1], File.basename(path))) do |file|
      peer.write("HTTP/1.1 200 OK\r\nContent-Length: #{file.size}\r\nConnection: close\r\n\r\n")
      IO.copy_stream(file, peer)
    end
    peer.close
  end
end

# Arguments: send|receive, address, port, file to send.
use strict;
use warnings;
use IO::Socket::INET;

my ($mode, $addr, $port, $file) = @ARGV;
my $peer = IO::Socket::INET->new(PeerAddr => $addr, PeerPort => $port, Proto => 'tcp', Timeout => 10)
    or die "connect: $@";
binmode $_ for $peer, *STDOUT;
my $chunk;
if ($mode eq 'send') {
    open my $in, '<:raw', $file or die "$file: $!";
    while (read $in, $chunk, 65536) { print {$peer} $chunk or die "print: $!" }
    $peer->flush;
    shutdown $peer, 1 or die "shutdown: $!";
    die "unexpected answer" if sysread $peer, $chunk, 1;
} else {
    while (read $peer, $chunk, 65536) { print $chunk or die "print: $!" }
}
close $peer or die "close: $!";

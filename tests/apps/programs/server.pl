# One connection. Arguments: send|receive, port, file to send.
use strict;
use warnings;
use IO::Socket::INET;

my ($mode, $port, $file) = @ARGV;
my $listener = IO::Socket::INET->new(LocalPort => $port, Listen => 5, ReuseAddr => 1, Proto => 'tcp')
    or die "listen: $!";
my $peer = $listener->accept or die "accept: $!";
binmode $_ for $peer, *STDOUT;
if ($mode eq 'send') {
    open my $in, '<:raw', $file or die "$file: $!";
    my $chunk;
    while (read $in, $chunk, 65536) { print {$peer} $chunk or die "print: $!" }
} else {
    my $chunk;
    while (sysread $peer, $chunk, 65536) { print $chunk or die "print: $!" }
}
close $peer or die "close: $!";

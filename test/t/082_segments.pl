# The most segments that there can be: all are made while the limit is low, for segments
# are as large as the limit asks for, and then there is a need of more.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use NxmTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $nodes = 32;
my $node = PostgreSQL::Test::Cluster->new('segments');
$node->init;
# of a kind that no small /dev/shm bounds
$node->append_conf('postgresql.conf', qq{
shared_preload_libraries = 'nexusmem'
dynamic_shared_memory_type = sysv
nexusmem.num_nodes = $nodes
nexusmem.memory_limit = 12MB
nexusmem.cache_size = 1MB
nexusmem.save = off
autovacuum = off
});
$node->start;

sub q1 { return $node->safe_psql('postgres', $_[0]); }
# sql($sql): what psql says to it, errors with their SQLSTATE.
sub sql
{
	my ($rc, $out, $err) = $node->psql('postgres', $_[0], extra_params => [ '-v', 'VERBOSITY=verbose' ]);
	return "$out$err";
}
# put($map, $from, $to): that many values of 1 MB, 16 pages each.
sub put { return "SELECT count(nexusmem.map_put('$_[0]', k::text, repeat(chr(65 + k % 26), 1000000))) FROM generate_series($_[1], $_[2]) k"; }
sub segments { return q1(q{SELECT substring(detail from 'in (\d+) segments') FROM nexusmem.status WHERE feature = 'structure memory'}); }

# A segment on each node, then a second one on the first of them, of which there are
# $second: each time the memory is given back.
sub make_segments
{
	my ($second) = @_;
	my $s = session($node);
	foreach my $pass ([ 1, $nodes ], [ 5, $second ])
	{
		my ($values, $count) = @$pass;
		foreach my $n (0 .. $count - 1)
		{
			my $said = ask($s, "SELECT nexusmem.pin_backend(pg_backend_pid(), $n); " . put('m', 1, $values) . q{; SELECT nexusmem.map_drop('m')});
			$said eq "t\n$values\nt" or diag("node $n: $said");
		}
	}
	close_session($s);
	return;
}

q1(q{CREATE EXTENSION nexusmem; SELECT nexusmem.counter_add('c', 1)});
make_segments($nodes);
is(segments(), 64, 'a segment on each of 32 nodes, and a second one');

# the limit is what was set, though the descriptions of segments stay
sub memory { return q1(q{SELECT substring(detail from '^[0-9.]+ of [0-9.]+ MB') FROM nexusmem.status WHERE feature = 'structure memory'}); }
q1(q{ALTER SYSTEM SET nexusmem.memory_limit = '1MB'});
$node->reload;
ok(wait_until($node, q{SELECT detail LIKE '% of 1.0 MB;%' FROM nexusmem.status WHERE feature = 'structure memory'}), 'lowered below what describes the segments: status tells the limit') or diag(memory());
my $lowered = sql(put('m', 1, 1));
like($lowered, qr/ERROR:  53400: shared structures have reached their memory limit/, 'which is reached');
like($lowered, qr/DETAIL:  The limit is 1024 kB, and what describes the segments that were made takes 4096 kB until the server restarts\./, 'and so does the error, and what is in its way');
like($lowered, qr/HINT:  Restart the server, or raise nexusmem\.memory_limit/, 'with a hint that helps');

q1(q{ALTER SYSTEM SET nexusmem.memory_limit = '1GB'});
$node->reload;
ok($node->poll_query_until('postgres', q{SELECT current_setting('nexusmem.memory_limit') = '1GB'}), 'the limit is raised');
# values of which some node has room for a part go to the next one
my $full = sql(q{SET statement_timeout = '120s'; } . put('full', 1, 900));
like($full, qr/ERROR:  53400: shared structures cannot have more than 64 segments of memory/, 'all full: configuration_limit_exceeded');
like($full, qr/HINT:  .*restart the server with a higher nexusmem\.memory_limit/, 'with a hint');
is(segments(), 64, 'and there are no more');
my $size = q1(q{SELECT nexusmem.map_size('full')});
cmp_ok($size, '>', 200, 'they were full');
is(q1(qq{SELECT count(*) FROM generate_series(1, $size) k WHERE nexusmem.map_get('full', k::text) = repeat(chr(65 + k % 26), 1000000)}), $size, 'nothing that was stored is lost');
like(sql(put('full', 901, 910)), qr/ERROR:  53400: shared structures cannot have more/, 'another session is told the same');
is(q1(q{SELECT nexusmem.counter_add('c', 1)}), 2, 'what needs no more memory goes on');
is(q1(qq{SELECT count(*) FROM generate_series(1, 50) k WHERE nexusmem.map_delete('full', k::text)}), 50, 'deleted');
is(q1(put('full', 1, 40)), 40, 'and there is room for others');
q1(q{SELECT nexusmem.map_drop('full')});
is(q1(put('m', 1, 100)), 100, 'all dropped: and for many');
is(q1(q{SELECT nexusmem.cache_set('k', 'v'::text); SELECT nexusmem.cache_get('k') IS NULL}), "\nt", 'but not for the first cache, which begins with a segment of its own: nothing is stored');
is(q1(q{SELECT nexusmem.map_size('m'), nexusmem.counter_add('c', 1)}), '100|3', 'and the server goes on');

# caches that have one of them
q1('ALTER SYSTEM RESET nexusmem.memory_limit');
$node->restart;
q1(q{SELECT nexusmem.cache_set('k', 'v'::text)});
make_segments($nodes - 1);
is(segments(), 64, 'after a restart: one for the caches among them');
q1(q{ALTER SYSTEM SET nexusmem.cache_size = '64MB'});
$node->reload;
ok($node->poll_query_until('postgres', q{SELECT current_setting('nexusmem.cache_size') = '64MB'}), 'cache_size is raised');
is(q1(q{SELECT count(nexusmem.cache_set(k::text, repeat('x', 10000))) FROM generate_series(1, 2000) k}), 2000, 'more is set than it has room for, without an error');
is(q1(q{SELECT nexusmem.cache_get('2000') = repeat('x', 10000)}), 't', 'the newest is there');
like(q1(q{SELECT state || ': ' || detail || ' - ' || hint FROM nexusmem.status WHERE feature = 'cache'}), qr/^degraded: .* no more than 64 segments to reach the limit: entries gave way - Restart the server: /, 'status tells why, and what to do');
$node->restart;
is(q1(q{SELECT count(nexusmem.cache_set(k::text, repeat('x', 10000))) FROM generate_series(1, 2000) k}), 2000, 'restarted: all is set again');
workers_run($node);
is(q1(q{SELECT count(nexusmem.cache_get(k::text)), (SELECT state FROM nexusmem.status WHERE feature = 'cache') FROM generate_series(1, 2000) k}), '2000|active', 'and has room');
$node->stop;
unlike(server_log($node), qr/terminated by signal|TRAP|PANIC|leak/, 'the log is quiet');
done_testing();

# How large segments are: where one limit is far above the other, what describes a
# segment does not use the lower one up.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use NxmTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node;
sub q1 { return $node->safe_psql('postgres', $_[0]); }
sub memory { return q1(q{SELECT substring(detail from '^(\S+ of \S+ MB)') FROM nexusmem.status WHERE feature = '} . ($_[0] // 'structure memory') . q{'}); }
sub reserved { return q1(q{SELECT sum(reserved_bytes) / 1048576 FROM nexusmem.node_memory}); }

# new_server($name, $conf): a server whose segments no small /dev/shm bounds.
sub new_server
{
	my ($name, $conf) = @_;
	$node = PostgreSQL::Test::Cluster->new($name);
	$node->init;
	$node->append_conf('postgresql.conf', qq{
shared_preload_libraries = 'nexusmem'
dynamic_shared_memory_type = sysv
nexusmem.cache_size = 100GB
nexusmem.save = off
autovacuum = off
$conf
});
	$node->start;
	q1('CREATE EXTENSION nexusmem');
	return;
}
# Writes from each of the nodes, the last of which is $last.
sub write_on_nodes
{
	my ($last) = @_;
	my $s = session($node);
	my $wrong = 0;
	foreach my $n (0 .. $last)
	{
		my $said = ask($s, "SELECT nexusmem.pin_backend(pg_backend_pid(), $n); SELECT nexusmem.map_put('node $n', 'k', repeat('x', 100000))");
		$wrong++, diag("node $n: $said") if $said ne "t\nt";
	}
	close_session($s);
	return $wrong;
}

new_server('one_node', "nexusmem.num_nodes = 1\nnexusmem.memory_limit = 8MB");
my ($rc, $out, $err) = $node->psql('postgres', q{SELECT nexusmem.counter_add('c')});
is("$out$err", '1', 'cache_size of 100 GB, memory_limit of 8 MB: a counter is made');
is(q1(q{SELECT count(nexusmem.map_put('m', k::text, repeat('x', 10000))) FROM generate_series(1, 500) k}), 500, 'and 5 MB of values')
  or diag(memory());
cmp_ok(reserved(), '>', 1000, 'in a segment of which there need be no more than 64');
like(memory('cache'), qr/^[1-9]\d?\.\d of 102400\.0 MB/, 'whose description counts against cache_size');
is(q1(q{SELECT nexusmem.cache_set('k', 'v'); SELECT nexusmem.cache_get('k')}), "\nv", 'caches have the rest of it');
$node->stop;

# those of structures alone are as large as their own limit asks for
new_server('many_nodes', 'nexusmem.num_nodes = 8');
is(write_on_nodes(7), 0, '8 nodes: structures on each');
like(memory(), qr/^\d\.\d of 256\.0 MB/, 'take what they need') or diag(memory());
cmp_ok(reserved(), '<', 512, 'in segments of the size that memory_limit asks for');
is(q1(q{SELECT nexusmem.cache_set('k', 'v'); SELECT nexusmem.cache_get('k')}), "\nv", 'beside a cache');
cmp_ok(reserved(), '>', 1000, 'in one of the size that cache_size asks for');
$node->stop;

# those of both
new_server('partitions', "nexusmem.num_nodes = 4\nnexusmem.enable_numa_caching = on");
is(write_on_nodes(3), 0, 'of 4 nodes with partitions too');
like(memory(), qr/^\d\.\d of 256\.0 MB/, 'structures take what they need');
$node->stop;
done_testing();

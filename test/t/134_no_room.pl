# What there is no room to make: on several nodes, at a start, or because of many others.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use NxmTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

needs_shm(96);

my $node = PostgreSQL::Test::Cluster->new('no_room');
$node->init;
$node->append_conf('postgresql.conf', q{
shared_preload_libraries = 'nexusmem'
nexusmem.num_nodes = 8
nexusmem.enable_numa_caching = on
nexusmem.cache_size = 1MB
nexusmem.memory_limit = 1MB
nexusmem.save = all
autovacuum = off
# what would go on for ever
statement_timeout = 60s
});
$node->start;

# sql($sql): what psql says to it, errors with their SQLSTATE.
sub sql
{
	my ($rc, $out, $err) = $node->psql('postgres', "SET search_path = public, nexusmem; $_[0]", extra_params => [ '-v', 'VERBOSITY=verbose' ]);
	return "$out$err";
}

# limits($cache, $memory): these, in MB
sub limits
{
	my ($cache, $memory) = @_;
	$node->append_conf('postgresql.conf', "nexusmem.cache_size = ${cache}MB\nnexusmem.memory_limit = ${memory}MB");
	$node->reload;
	ok(wait_until($node, qq{SELECT pg_size_bytes(current_setting('nexusmem.cache_size')) = $cache * 1048576 AND pg_size_bytes(current_setting('nexusmem.memory_limit')) = $memory * 1048576}),
		"cache_size = ${cache}MB, memory_limit = ${memory}MB");
	return;
}

# values of so many new caches, one each; what is said besides
sub many
{
	my ($name, $n) = @_;
	return sql("DO \$\$ BEGIN FOR i IN 1 .. $n LOOP PERFORM nexusmem.cache_set('k', 'v', NULL, '$name' || i); END LOOP; END \$\$");
}
my $status = q{SELECT state || ': ' || detail || ' ' || hint FROM status WHERE feature = 'cache'};
my $refused = qr/^degraded: .*there was no room for another cache: values were not stored Drop caches/;

sql('CREATE EXTENSION nexusmem');
workers_run($node);

# a part of each partition is allocated on its node, and given back
is(sql(q{SELECT cache_set('k', 'v'), cache_get('k')}), '|', 'no room for a cache of 8 partitions: the value is not stored');
is(sql(q{SELECT cache_add('k', 'v'), cache_mset(ARRAY['k', 'l'], ARRAY['v', 'w']), cache_fetch('k', 'SELECT 7')}), 'f|0|7', 'nor are others, which are told so');
is(sql('SELECT count(*) FROM stat_cache'), '0', 'there is no cache');
like(sql($status), $refused, 'status tells');
like(sql(q{SELECT cache_create('c')}), qr/ERROR:  53400: caches have reached their memory limit/, 'cache_create() raises an error');
like(sql(q{SELECT counter_create('s', true)}), qr/^(t|.*ERROR:  53400: shared structures have reached .*)/, 'making a striped counter comes to an end');

# what others have kept for later is on one node, and wanted on all
limits(16, 2);
my $s = session($node);
like(ask($s, q{SELECT nexusmem.map_put('m', k::text, repeat('x', 1000)) FROM generate_series(1, 10000) k}), qr/ERROR: .* memory limit/, 'a map takes all memory');
is(ask($s, q{SELECT count(*) FILTER (WHERE nexusmem.map_delete('m', k::text)) > 100 FROM generate_series(1, 600) k; SELECT nexusmem.counter_create('t', true)}), "t\nt", 'when a part of it is deleted a striped counter can be made');
close_session($s);
# whichever node it is that has no more
foreach my $mb (16 .. 18)
{
	limits($mb, 32);
	is(many("c$mb", 60), '', 'caches are made until there is room for no more');
}
cmp_ok(sql('SELECT count(DISTINCT cache) FROM stat_cache'), '>', 10, 'which are many');
is(sql(q{SELECT counter_add('t', 3)}), '', 'something is to be saved');

# the same while what was saved is loaded, which the memory worker does and others wait for
$node->append_conf('postgresql.conf', 'nexusmem.cache_size = 1MB');
$node->stop;
my $from = -s $node->logfile;
$node->start;
is(sql(q{SELECT counter_get('t')}), '3', 'a start with too little for caches of 8 partitions loads the rest');
like(server_log($node, $from), qr/WARNING:  saved structure "c\d+" was not loaded: caches have reached their memory limit/, 'the log tells of those');
ok($node->stop('fast', fail_ok => 1), 'the server stops');

# as many small caches as there is room for, each with one segment
$node->append_conf('postgresql.conf', q{
nexusmem.num_nodes = 1
nexusmem.enable_numa_caching = off
nexusmem.cache_size = 4MB
nexusmem.save = off
});
unlink $node->data_dir . '/pg_nexusmem/structures';
$node->start;
workers_run($node);
is(many('c', 70), '', '70 caches in 4 MB: no error');
is(sql(q{SELECT count(*) < 70, sum(entries) > 20, cache_get('k', 'c70') FROM stat_cache}), 't|t|', 'some are not made, and have no values');
like(sql($status), $refused, 'status tells');
is(sql(q{SELECT cache_set('k', 'w', NULL, cache), cache_get('k', cache) FROM (SELECT cache FROM stat_cache WHERE entries > 0 LIMIT 1) c}), '|w', 'those that are there are written to');
is(sql(q{SELECT count(*) FILTER (WHERE cache_drop('c' || i)) > 0 FROM generate_series(1, 10) i; SELECT cache_set('k', 'w', NULL, 'c70'), cache_get('k', 'c70')}), "t\n|w", 'when some were dropped, others are made');

$node->stop;
unlike(server_log($node), qr/terminated by signal|TRAP|PANIC/, 'the log is quiet');
done_testing();

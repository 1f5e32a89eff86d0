# Which cache gives way to others: the largest one, whoever found that out.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use NxmTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

needs_shm(64);

my $node = PostgreSQL::Test::Cluster->new('largest');
$node->init;
$node->append_conf('postgresql.conf', q{
shared_preload_libraries = 'nexusmem'
nexusmem.num_nodes = 1
nexusmem.cache_size = 4MB
nexusmem.save = off
autovacuum = off
});
$node->start;

sub sql { return $node->safe_psql('postgres', "SET search_path = public, nexusmem; $_[0]"); }
# fill($cache, $kb): so many values of about 1 kB
sub fill
{
	my ($cache, $kb) = @_;
	return sql("SELECT count(cache_set(k::text, repeat('x', 950), NULL, '$cache')) FROM generate_series(1, $kb) k");
}
sub kb { return sql("SELECT coalesce(sum(bytes), 0)::bigint / 1024 FROM stat_cache WHERE cache = '$_[0]'"); }

# The worker has gone through all caches, from the first to the last: what expires goes in
# one pass, and the next one may begin before that is seen.
sub passes
{
	foreach (1 .. 3)
	{
		my $before = sql('SELECT sum(expirations) FROM stat_cache');
		sql(q{SELECT cache_set('k', 'v'::text, '0.1 s', 'first')});
		wait_until($node, "SELECT sum(expirations) > $before FROM nexusmem.stat_cache");
	}
	return;
}

# Stops it where it holds nothing: in its wait for the next pass.
my $worker;
sub stop_worker
{
	my $waits = q{SELECT wait_event = 'Extension' FROM pg_stat_activity WHERE backend_type = 'nexusmem memory'};
	$worker = sql(q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'nexusmem memory'});
	foreach (1 .. 1000)
	{
		kill 'STOP', $worker;
		return 1 if sql($waits) eq 't';
		kill 'CONT', $worker;
	}
	return 0;
}

sql('CREATE EXTENSION nexusmem');
workers_run($node);
sql(q{SELECT cache_create('first')});
passes();
ok(stop_worker(), 'the worker has found the only cache to be the largest, and is stopped');
fill('second', 4000);
# there is no room for this but in that cache
sql(q{SELECT cache_set('long', repeat('x', 1000000), NULL, 'third')});
is(sql(q{SELECT length(cache_get('long', 'third'))}), 1000000, 'a session found the second one, which gave way to a third');
$node->append_conf('postgresql.conf', 'nexusmem.cache_size = 32MB');
$node->reload;
ok(wait_until($node, q{SELECT current_setting('nexusmem.cache_size') = '32MB'}), 'there is to be more memory');
fill('first', 40000);
cmp_ok(kb('first'), '>', 5 * kb('second'), 'and the first one takes it');
kill 'CONT', $worker;
passes();
sql('SELECT stat_cache_reset()');
my $second = kb('second');
fill('fourth', 4000);
is(sql(q{SELECT sum(evictions) FROM stat_cache WHERE cache = 'second'}), 0, 'the first one is the largest again: the second one does not give way');
is(kb('second'), $second, 'and has what it had');
cmp_ok(kb('fourth'), '>', 2500, 'while another one gets its memory');

$node->stop;
unlike(server_log($node), qr/terminated by signal|TRAP|PANIC/, 'the log is quiet');
done_testing();

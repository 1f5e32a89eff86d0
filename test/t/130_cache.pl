# Caches among sessions, nodes, limits, restarts, servers.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use IPC::Run ();
use NxmTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

needs_shm(160);

my $MB = 1048576;
my $node;

sub sql { return $node->safe_psql($_[1] // 'postgres', "SET search_path = public, nexusmem; $_[0]") }

# an error, with its code
sub err
{
	my ($rc, $out, $err) = $node->psql('postgres', "SET search_path = public, nexusmem; $_[0]", extra_params => [ '-v', 'VERBOSITY=verbose' ]);
	return $err;
}

sub wait_for
{
	my ($query, $name, $db) = @_;
	ok($node->poll_query_until($db // 'postgres', $query), $name)
	  or diag(sql('SELECT * FROM node_memory', $db) . "\n" . sql('SELECT cache, node, entries, bytes, overhead_bytes FROM stat_cache', $db));
	return;
}

# begins pgbench scripts, at once; again and again until end_bench(), with $lasts. What it
# says goes to files, for nobody reads meanwhile
sub begin_bench
{
	my ($args, $lasts, @scripts) = @_;
	my $dir = PostgreSQL::Test::Utils::tempdir();
	my $b = { out => "$dir/out", err => "$dir/err", end => "$dir/end" };
	my @files;
	for my $i (0 .. $#scripts)
	{
		open(my $fh, '>', "$dir/script$i.sql") or die $!;
		print $fh $scripts[$i];
		close $fh;
		push @files, '-f', "$dir/script$i.sql";
	}
	my @again = $lasts ? ('sh', '-c', 'until [ -e "$0" ]; do "$@" || exit 1; done', $b->{end}) : ();
	$b->{h} = IPC::Run::start([ @again, 'pgbench', '-n', @$args, @files, $node->connstr('postgres') ],
		'>', $b->{out}, '2>', $b->{err});
	return $b;
}

sub end_bench
{
	my ($b, $name) = @_;
	append_to_file($b->{end}, '');
	my $ok = $b->{h}->finish;
	my ($out, $err) = (slurp_file($b->{out}), slurp_file($b->{err}));
	ok($ok && $err !~ /error|aborted/i, $name) or diag(substr("$out\n$err", 0, 2000));
	note($out =~ /(tps = \S+)/);
	return;
}

sub set_conf
{
	my ($name, $value) = @_;
	$node->append_conf('postgresql.conf', "nexusmem.$name = $value");
	$node->reload;
	$value =~ s/'//g;
	ok($node->poll_query_until('postgres', "SELECT current_setting('nexusmem.$name') = '$value'"), "$name = $value");
	return;
}

my $caches = q{(SELECT sum(used_bytes) FROM nexusmem.node_memory WHERE owner = 'caches')};
my $resident = q{(SELECT coalesce(sum(resident_bytes), sum(used_bytes)) FROM nexusmem.node_memory WHERE owner = 'caches')};

$node = PostgreSQL::Test::Cluster->new('cache');
$node->init(allows_streaming => 1);
$node->append_conf('postgresql.conf', q{
shared_preload_libraries = 'nexusmem'
autovacuum = off
log_statement = none
restart_after_crash = on
max_connections = 60
nexusmem.num_nodes = 4
nexusmem.enable_numa_caching = on
nexusmem.cache_size = 32MB
nexusmem.save = all
});
$node->start;
sql('CREATE EXTENSION nexusmem; GRANT USAGE ON SCHEMA nexusmem TO PUBLIC');

# seconds from when entries expire to when they are removed and their memory is given back, at
# most so many: the index and the like remain, less than a fifth of all. So many also where it
# was held up, and some had expired before all were there.
sql(q{CREATE FUNCTION seconds_late(most int) RETURNS numeric LANGUAGE plpgsql AS $$
DECLARE
	deadline timestamptz;
	taken bigint;
BEGIN
	PERFORM nexusmem.cache_set('k' || i, repeat('x', 1000), '1 s', 'late') FROM generate_series(1, 1000) i;
	deadline := clock_timestamp() + interval '1 s';
	SELECT sum(bytes + overhead_bytes) INTO taken FROM nexusmem.stat_cache WHERE cache = 'late';
	IF taken IS NULL OR taken < 1000000 THEN
		PERFORM nexusmem.cache_drop('late');
		RETURN most;
	END IF;
	WHILE (SELECT sum(entries) > 0 OR sum(bytes + overhead_bytes) > taken / 5 FROM nexusmem.stat_cache WHERE cache = 'late') AND
		clock_timestamp() < deadline + most * interval '1 s' LOOP
		PERFORM pg_sleep(0.01);
	END LOOP;
	PERFORM nexusmem.cache_drop('late');
	RETURN extract(epoch FROM clock_timestamp() - deadline);
END $$});

# The memory worker, which has slept some times without memory to look after, would sleep for a
# minute, were it not woken. A reload wakes it as well.
{
	$node->poll_query_until('postgres', q{SELECT count(*) = 1 FROM pg_stat_activity WHERE backend_type = 'nexusmem memory'}) or die;
	my $worker = sql(q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'nexusmem memory'});
	my $sleeps = sub { return slurp_file("/proc/$worker/status") =~ /^voluntary_ctxt_switches:\s*(\d+)/m ? $1 : 0 };
	foreach (1 .. 20)
	{
		my $before = $sleeps->();
		kill 'HUP', $worker;
		for (my $waits = 0; $sleeps->() == $before && $waits < 200; $waits++) { select(undef, undef, undef, 0.001); }
	}
	my $late;
	for (1 .. 3) { last if ($late = sql('SELECT seconds_late(30)')) < 30; }
	cmp_ok($late, '<', 30, 'an idle memory worker is woken to remove what expires');
}

# a partition on each node
is(sql(q{SELECT cache_mset(array_agg('k' || i), array_agg(i::text)) FROM generate_series(1, 10000) i}), 10000, 'filled');
is(sql(q{SELECT string_agg(node::text, ',' ORDER BY node), sum(entries), bool_and(entries BETWEEN 2000 AND 3000) FROM stat_cache}),
	'0,1,2,3|10000|t', 'a cache has a partition on each node, of about equal size');
# at some moment: a page that is given back leaves the node before it is not counted any more
wait_for(q{SELECT count(*) = 4 AND bool_and(used_bytes > 0) AND bool_and(coalesce(on_node_bytes, used_bytes) = used_bytes) FROM nexusmem.node_memory WHERE owner = 'caches'},
	'in the memory of that node');
workers_run($node);
like(sql(q{SELECT state || ': ' || detail FROM status WHERE feature = 'cache'}), qr/^active: \d\.\d of 32\.0 MB, a partition on each of 4 nodes$/, 'status');
my @s = map { session($node) } 0 .. 3;
ask($s[$_], "SELECT nexusmem.pin_backend(pg_backend_pid(), $_)") for 0 .. 3;
sql('SELECT stat_cache_reset()');
is(ask($s[2], q{SELECT count(nexusmem.cache_get('k' || i)) FROM generate_series(1, 10000) i}), 10000, 'a session of node 2 reads all');
is(sql(q{SELECT sum(local_hits) + sum(remote_hits), sum(local_hits) FILTER (WHERE node = 2) = sum(local_hits),
	sum(local_hits) BETWEEN 2000 AND 3000, sum(misses), sum(hits) FROM stat_cache}), '10000|t|t|0|10000', 'local are those of its node');

# more sessions than there are lines of counts in a partition; pgbench, for it is quick
sql('SELECT stat_cache_reset()');
end_bench(begin_bench([ '-c', 40, '-t', 25, '-j', 2 ], 0, "\\set i random(9901, 10100)\nSELECT nexusmem.cache_get('k' || :i);\n"), '40 sessions read');
is(sql(q{SELECT sum(hits) + sum(misses), sum(hits) > 0, sum(misses) > 0 FROM stat_cache}), '1000|t|t', 'each read is counted once');

# who reads after a write returned sees it, on whichever node
my $stale = 0;
foreach my $i (1 .. 50)
{
	my $writer = $s[$i % 4];
	ask($writer, "SELECT nexusmem.cache_set('seen', '$i')");
	foreach my $reader (@s) { $stale++ if ask($reader, q{SELECT nexusmem.cache_get('seen')}) ne $i; }
}
is($stale, 0, 'a read that begins after a write returned sees it');
sql(slurp_file("$FindBin::RealBin/../read_after_write.sql"));
{
	my $writer = session($node);
	ask($writer, 'SELECT nexusmem.pin_backend(pg_backend_pid(), 0)');
	send_query($_, 'SELECT read_while_written(100)') foreach @s;
	send_query($writer, 'SELECT write_until(4)');
	is(answer($s[$_]), 0, "so it is while node 0 writes and node $_ reads") foreach 0 .. 3;
	answer($writer);
	close_session($writer);
}
close_session($_) foreach @s;

# everything at once; values say themselves what they should be
sql(q{CREATE FUNCTION check_value(k text, c text) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
	v text := nexusmem.cache_get(k, c);
BEGIN
	IF v IS NOT NULL AND (md5(split_part(v, '|', 2)) || k) <> split_part(v, '|', 1) THEN
		RAISE EXCEPTION 'key % has %', k, left(v, 100);
	END IF;
END $$;
CREATE FUNCTION put_value(k text, n int, t interval, c text) RETURNS void LANGUAGE sql AS $$
	SELECT nexusmem.cache_set(k, md5(repeat(n::text, n)) || k || '|' || repeat(n::text, n), t, c)
$$});
end_bench(begin_bench([ '-c', 8, '-T', 8 ], 0, q{
\set k random_zipfian(1, 30000, 1.1)
\set n random(1, 400)
SELECT put_value('k' || :k, :n, CASE WHEN :n < 100 THEN interval '1 s' END, 'c');
}, q{
\set k random_zipfian(1, 30000, 1.1)
\set n random(10000, 40000)
SELECT check_value('k' || :k, 'c');
SELECT put_value('long' || :k % 100, :n, NULL, 'c');
}, q{
\set k random_zipfian(1, 30000, 1.1)
SELECT check_value('k' || :k, 'c'), check_value('long' || :k % 100, 'c'), nexusmem.cache_delete('k' || :k / 2, 'c'), nexusmem.cache_expire('k' || :k / 3, '2 s', 'c');
SELECT count(value) FROM nexusmem.cache_mget((SELECT array_agg('k' || i) FROM generate_series(:k, :k + 50) i), 'c');
}, q{
\set n random(1, 50)
SELECT nexusmem.cache_clear('c') WHERE :n = 1;
SELECT nexusmem.cache_drop('c') WHERE :n = 2;
SELECT count(*) FROM nexusmem.stat_cache;
}), 'set, get, delete, expire, clear and drop at once: no value is another\'s, or torn');
cmp_ok(sql("SELECT $caches"), '<=', 32 * $MB, 'within the limit');
sql(q{SELECT cache_drop('c')});

# the limit, lowered and raised under load, which lasts until it is ended
sub fill { return begin_bench([ '-c', 2, '-t', 50 ], 1, q{
\set k random(1, 2000000)
SELECT nexusmem.cache_set('f' || i, repeat('x', 150)) FROM generate_series(:k, :k + 500) i;
}); }
sql(q{CREATE FUNCTION most_used(more_evictions bigint) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
	evictions_ bigint := (SELECT sum(evictions) FROM nexusmem.stat_cache) + more_evictions;
	previous bigint := 0;
	current bigint;
	most bigint := 0;
BEGIN
	-- one node is asked after another: what goes from one to the next meanwhile counts twice
	WHILE (SELECT sum(evictions) FROM nexusmem.stat_cache) < evictions_ LOOP
		current := (SELECT sum(used_bytes) FROM nexusmem.node_memory WHERE owner = 'caches');
		most := greatest(most, least(previous, current));
		previous := current;
	END LOOP;
	RETURN most;
END $$});
{
	my $b = fill();
	wait_for("SELECT $caches > 28 * $MB", 'most of the limit is used');
	cmp_ok(sql(q{SET statement_timeout = '120s'; SELECT most_used(50000)}), '<=', 32 * $MB, 'and never more than it');
	# less the index, a tenth, and what was overwritten and not compacted yet, an eighth and more
	cmp_ok(sql('SELECT sum(bytes) FROM stat_cache'), '>', 20 * $MB, 'for what is in the cache');
	set_conf('cache_size', "'8MB'");
	wait_for("SELECT $caches <= 8 * $MB AND $resident <= 8 * $MB", 'lowered: given back under load, as the kernel sees it');
	end_bench($b, 'nobody saw an error');
	set_conf('cache_size', "'64MB'");
	sql('SELECT stat_cache_reset()');
	$b = fill();
	wait_for("SELECT $caches > 40 * $MB", 'raised: used');
	end_bench($b, 'nobody saw an error');
}
cmp_ok(sql("SELECT $caches"), '<=', 64 * $MB, 'never more than the limit');
is(sql(q{SELECT sum(refusals) FROM stat_cache}), 0, 'and nothing was refused');
set_conf('cache_size', "'16MB'");
wait_for("SELECT $caches <= 16 * $MB AND $resident <= 16 * $MB", 'lowered at rest');

# lowered below what the index takes, with entries of 30 bytes
sql(q{SELECT cache_drop('default')});
set_conf('cache_size', "'64MB'");
my $small = q{SELECT count(cache_set('s' || i, 'twenty-byte value...')) FROM generate_series(%d, %d) i};
sql(sprintf($small, 1, 1300000));
cmp_ok(sql("SELECT $caches"), '>', 56 * $MB, 'full of short entries');
cmp_ok(sql('SELECT sum(overhead_bytes) FROM stat_cache'), '>', 12 * $MB, 'with an index larger than the limit to come');
sql('SELECT stat_cache_reset()');
is(sql('SELECT sum(evictions) FROM stat_cache'), 0, 'nothing gives way at rest');
my $full = sql('SELECT sum(entries) FROM stat_cache');
set_conf('cache_size', "'8MB'");
wait_for("SELECT $caches <= 8 * $MB AND $resident <= 8 * $MB", 'lowered: the index makes room, too');
wait_for("SELECT sum(bytes + overhead_bytes) <= 8 * $MB FROM nexusmem.stat_cache", 'as the caches count it');
wait_for("SELECT sum(entries + evictions) = $full FROM nexusmem.stat_cache", 'what is gone was evicted');
sql('SELECT stat_cache_reset()');
sql(sprintf($small, 2000001, 2400000));
is(sql(q{SELECT cache_get('s2400000')}), 'twenty-byte value...', 'sets and gets go on');
cmp_ok(sql("SELECT $caches"), '<=', 8 * $MB, 'within the limit');
cmp_ok(sql('SELECT sum(bytes) FROM stat_cache'), '>', 2 * $MB, 'for what is in the cache');
is(sql(q{SELECT sum(refusals) FROM stat_cache}), 0, 'and nothing was refused');
set_conf('cache_size', "'64MB'");
sql(sprintf($small, 3000001, 4200000));
cmp_ok(sql("SELECT $caches"), '>', 56 * $MB, 'raised again: full again');
# a cache's own limit
is(sql(q{SELECT cache_drop('default'), cache_create('own', 4194304)}), 't|t', 'a cache with a limit');
sql(q{SELECT count(cache_set('s' || i, 'twenty-byte value...', NULL, 'own')) FROM generate_series(1, 300000) i});
is(sql('SELECT sum(bytes + overhead_bytes) BETWEEN 3000000 AND 4194304 FROM stat_cache'), 't', 'which is kept with the index');
sql(q{SELECT cache_drop('own')});
set_conf('cache_size', "'16MB'");

# a cache takes its share from a larger one, a large value from many small ones
sql(q{SELECT count(cache_set('f' || i, repeat('x', 150))) FROM generate_series(1, 120000) i});
my $second;
my $fill = q{SELECT count(cache_set('n' || i, repeat('y', 150), NULL, 'second')) FROM generate_series(1, 50000) i};
is(sql($fill), 50000, 'another cache is filled');
# which one is the largest is known only after the memory worker has looked
foreach (1 .. 50)
{
	$second = sql(q{SELECT sum(bytes) FROM stat_cache WHERE cache = 'second'});
	last if $second > $MB;
	sql($fill);
}
cmp_ok($second, '>', $MB, 'and has got memory');
is(sql(q{SELECT count(cache_set('large' || i, repeat('z', 1048576))), cache_get('large5') = repeat('z', 1048576) FROM generate_series(1, 5) i}), '5|t', 'large values find room') or diag(sql('SELECT cache, node, entries, bytes, overhead_bytes, evictions, refusals FROM stat_cache') . sql('SELECT * FROM node_memory'));
cmp_ok(sql("SELECT $caches"), '<=', 16 * $MB, 'within the limit');
sql(q{SELECT cache_drop('second'), cache_drop('default')});
# so far that what follows has room: segments take one MB yet
wait_for("SELECT $resident < 2 * $MB", 'dropped: memory is given back');

SKIP:
{
	skip 'no infinite intervals', 7 if $node->pg_version < 17;
	is(sql(q{SELECT cache_set('i', 'x', 'infinity'), cache_ttl('i') IS NULL, cache_get('i'), cache_set('i', 'y', '-infinity'), cache_get('i') IS NULL}), '|t|x||t', 'an infinite time to live');
	is(sql(q{SELECT cache_add('i', 'x', 'infinity'), cache_ttl('i') IS NULL, cache_get('i'), cache_delete('i'), cache_add('i', 'y', '-infinity'), cache_get('i') IS NULL}), 't|t|x|t|t|t', 'of a key that is added');
	is(sql(q{SELECT cache_mset('{i,j}', '{x,y}', 'infinity'), cache_ttl('i') IS NULL, cache_get('i'), cache_get('j'), cache_mset('{i,j}', '{x,y}', '-infinity'), cache_get('i') IS NULL, cache_get('j') IS NULL}), '2|t|x|y|2|t|t', 'of many keys');
	is(sql(q{SELECT cache_fetch('i', $$SELECT 'x'$$, 'infinity'), cache_ttl('i') IS NULL, cache_get('i'), cache_delete('i'), cache_fetch('i', $$SELECT 'y'$$, '-infinity'), cache_get('i') IS NULL}), 'x|t|x|t|y|t', 'of what is computed');
	is(sql(q{SELECT cache_set('i', 'x', '1 hour'), cache_ttl('i') IS NULL, cache_expire('i', 'infinity'), cache_ttl('i') IS NULL, cache_get('i'), cache_expire('i', '-infinity'), cache_get('i') IS NULL, cache_expire('i', 'infinity')}),
		'|f|t|t|x|t|t|f', 'given to a key that is there, and to one that is not');
	is(sql(q{SELECT cache_create('i', default_ttl => 'infinity'), cache_add('i', 'x', cache => 'i'), cache_ttl('i', 'i') IS NULL, cache_get('i', 'i'), cache_drop('i')}), 't|t|t|x|t', 'of a cache');
	$node->psql('postgres', q{SELECT nexusmem.cache_create('i', default_ttl => '-infinity')}, stderr => \my $stderr);
	like($stderr, qr/ERROR:  default_ttl must be greater than zero, not "-infinity"/, 'which is more than zero');
	sql(q{SELECT cache_drop('default')});
}

# what has expired is given back without being looked at, entries and bytes; in time, which the first of three
# rounds tells that was not held up by what else the machine does. The one before them ends, so
# that they begin, with a pass of the memory worker
{
	my $s = session($node);
	my $late = ask($s, 'SELECT seconds_late(10)');
	for (1 .. 3) { last if ($late = ask($s, 'SELECT seconds_late(10)')) < 3.5; }
	like($late, qr/^[\d.]+$/, 'expired entries are removed');
	cmp_ok($late, '<', 3.5, 'and in time');
	close_session($s);
}
sql(q{SELECT count(cache_set('t' || i, repeat('x', 200), '2 s')) FROM generate_series(1, 40000) i});
cmp_ok(sql('SELECT sum(entries + expirations) FROM stat_cache'), '>', 35000, 'stored for two seconds');
wait_for('SELECT sum(entries) = 0 FROM nexusmem.stat_cache', 'expired entries are removed');
wait_for("SELECT $resident < 8 * $MB", 'and their memory is given back');
is(sql('SELECT sum(evictions), sum(expirations) > 35000 FROM stat_cache'), '0|t', 'counted as expired');

# the switch of the structures is not the caches'
set_conf('enable_lock_free_structures', 'off');
is(sql(q{SELECT cache_set('on', 'yes'), cache_get('on'), cache_create('also'), cache_drop('also')}), '|yes|t|t', 'caches work without structures');
set_conf('enable_lock_free_structures', 'on');

# databases and roles that go
$node->safe_psql('postgres', 'CREATE ROLE boss; CREATE ROLE worker; CREATE DATABASE other OWNER boss');
sql(q{CREATE EXTENSION nexusmem VERSION '0.1'; GRANT USAGE ON SCHEMA nexusmem TO PUBLIC}, 'other');
is(sql(q{SELECT counter_add('c'), to_regprocedure('nexusmem.cache_clear(text)') IS NULL}, 'other'), '1|t', 'the extension as it was without caches');
sql('ALTER EXTENSION nexusmem UPDATE', 'other');
is(sql(q{SELECT cache_get('on') IS NULL, cache_set('on', 'other'), cache_get('on')}, 'other'), 't||other', 'each database has its own');
is(sql(q{SELECT cache_get('on')}), 'yes', 'this one too');
sql(q{SET ROLE worker; SELECT cache_set('a', 'x'), cache_set('a', 'x', NULL, 'left')}, 'other');
sql(q{SET ROLE boss; SELECT cache_set('a', 'boss')}, 'other');
sql('DROP OWNED BY worker; DROP ROLE worker', 'other');
wait_for(q{SELECT count(*) = 0 FROM nexusmem.stat_cache WHERE owner NOT IN ('boss', current_user)}, 'a dropped role has no caches', 'other');
is(sql(q{SET ROLE boss; SELECT cache_get('a'), cache_get('a', 'left')}, 'other'), 'boss|x', 'its default cache is gone, others are the database owner\'s');
sql(q{SELECT count(cache_set('d' || i, repeat('x', 500))) FROM generate_series(1, 20000) i}, 'other');
cmp_ok(sql("SELECT $caches"), '>', 8 * $MB, 'memory is used');
$node->safe_psql('postgres', 'DROP DATABASE other');
wait_for("SELECT $resident < 8 * $MB", 'DROP DATABASE frees it');

# a restart
sub store_all
{
	sql(q{SELECT cache_drop('default');
SELECT cache_set('text', 'a text'), cache_set('bytea', '\x00ff'::bytea), cache_set('jsonb', '{"a": [1]}'::jsonb), cache_set('empty', ''), cache_set('largest', repeat('l', 1048576));
SELECT cache_set('hour', 'h', '1 hour'), cache_set('soon', 's', '2 s');
SELECT count(cache_set('k' || i, repeat(i::text, i % 50))) FROM generate_series(1, 5000) i;
SELECT cache_create('limited', 2000000, '1 day'), cache_set('x', 'y', NULL, 'limited'), share('cache', 'limited', 'boss', 'write');
SELECT map_put('m', 'k', 'v')});
	sql(q{SET ROLE boss; SELECT cache_set('mine', 'of boss')});
	return;
}
store_all();
$node->stop('fast');
sleep 2;
$node->start;
is(sql(q{SELECT cache_get('text'), cache_get_bytea('bytea'), cache_get_jsonb('jsonb'), cache_get('empty') = '', cache_get('largest') = repeat('l', 1048576)}),
	q{a text|\x00ff|{"a": [1]}|t|t}, 'saved and loaded');
is(sql(q{SELECT count(*) FROM generate_series(1, 5000) i WHERE cache_get('k' || i) = repeat(i::text, i % 50)}), 5000, 'all of it');
is(sql(q{SELECT cache_get('hour'), cache_ttl('hour') BETWEEN '55 minutes' AND '00:59:58', cache_get('soon') IS NULL, cache_ttl('text') IS NULL}), 'h|t|t|t', 'the time that passed counts');
is(sql(q{SELECT sum(max_bytes) / count(*), min(default_ttl) FROM stat_cache WHERE cache = 'limited'}), '2000000.000000000000|1 day', 'limit and default are what they were');
is(sql(q{SET ROLE boss; SELECT cache_get('mine'), cache_get('text') IS NULL, cache_get('x', 'limited'), cache_set('x', 'z', NULL, 'limited')}), 'of boss|t|y|', 'so are owners and sharing');
$node->restart;
is(sql(q{SELECT cache_get('text'), cache_get('x', 'limited'), map_get('m', 'k')}), 'a text|z|v', 'and again');
$node->append_conf('postgresql.conf', 'nexusmem.enable_numa_caching = off');
$node->restart;
is(sql(q{SELECT cache_get('text'), count(*), min(node) IS NULL, sum(entries) > 5000 FROM stat_cache WHERE cache = 'default' AND owner = current_user}), 'a text|1|t|t', 'into one partition, where there were four');
workers_run($node);
like(sql(q{SELECT detail FROM status WHERE feature = 'cache'}), qr/not partitioned$/, 'status says so');
is(sql(q{SELECT bool_and(used_bytes = 0) FILTER (WHERE node IS NOT NULL), sum(used_bytes) > 0, bool_and(on_node_bytes IS NULL) FILTER (WHERE node IS NULL) FROM node_memory WHERE owner = 'caches'}), 't|t|t', 'in memory that is bound to no node');
set_conf('save', 'structures');
$node->restart;
is(sql(q{SELECT cache_get('text') IS NULL, map_get('m', 'k'), count(*) FROM stat_cache}), 't|v|0', 'save = structures: not the caches');
$node->append_conf('postgresql.conf', "nexusmem.save = all\nnexusmem.enable_numa_caching = on");
$node->restart;

# a file that is not as it was written
store_all();
$node->stop('fast');
{
	my $file = $node->data_dir . '/pg_nexusmem/structures';
	open(my $fh, '+<', $file) or die $!;
	seek($fh, -s $file > 4000 ? 4000 : 100, 0);
	print $fh 'XXXX';
	close $fh;
	my $from = -s $node->logfile;
	$node->start;
	is(sql(q{SELECT cache_get('text') IS NULL, count(*) FROM stat_cache}), 't|0', 'a damaged file is not loaded');
	like(server_log($node, $from), qr/were not loaded: its checksum is wrong/, 'and told of');
}

# a crash
sub crash
{
	my ($whose) = @_;
	my $s = session($node);
	ok(survives_kill($node, $s->{pid}), "a backend is killed: $whose recovers");
	close_session($s);
	ok($node->poll_query_until('postgres', q{SELECT nexusmem.cache_get('text') IS NULL AND (SELECT count(*) FROM nexusmem.stat_cache) = 0}), "$whose is empty after a crash");
	return;
}
store_all();
crash('the server');
is(sql(q{SELECT cache_set('text', 'new'), cache_get('text'), cache_get('hour') IS NULL}), '|new|t', 'and works');
store_all();
$node->stop('immediate');
$node->start;
is(sql(q{SELECT cache_get('text') IS NULL, count(*) FROM stat_cache}), 't|0', 'empty after an immediate stop');

# a standby
$node->backup('backup');
store_all();
my $primary = $node;
$node = PostgreSQL::Test::Cluster->new('standby');
$node->init_from_backup($primary, 'backup', has_streaming => 1);
$node->start;
is(sql(q{SELECT pg_is_in_recovery(), cache_get('text') IS NULL, cache_set('text', 'standby'), cache_get('text'), cache_add('n', '1', '1 hour'), cache_mset(ARRAY['m'], ARRAY['2']), cache_create('made', NULL, '1 day'), cache_set('x', 'y', NULL, 'made')}),
	't|t||standby|t|1|t|', 'a hot standby has its own');
is($primary->safe_psql('postgres', q{SELECT nexusmem.cache_get('text')}), 'a text', 'as the primary has');
is(sql(q{SELECT cache_expire('n', '2 hours'), cache_delete('m'), cache_ttl('n') > '1:59', cache_clear('made'), cache_drop('made')}), 't|t|t|1|t', 'all functions work there');
$node->restart;
is(sql(q{SELECT pg_is_in_recovery(), cache_get('text'), cache_get('n')}), 't|standby|1', 'saved and loaded there too');
crash('a standby');
is(sql(q{SELECT pg_is_in_recovery(), cache_get('n') IS NULL, cache_set('text', 'standby'), cache_get('text'), cache_add('n', '1', '1 hour')}), 't|t||standby|t', 'and works, not what was saved before');
is($primary->safe_psql('postgres', q{SELECT nexusmem.cache_get('text')}), 'a text', 'the primary has its own');
$primary->wait_for_catchup($node);
$node->promote;
is(sql(q{SELECT pg_is_in_recovery(), cache_get('text'), cache_get('n'), cache_set('o', 'p'), cache_get('o')}), 'f|standby|1||p', 'promoted: nothing is lost');
unlike(server_log($_), qr/TRAP|PANIC|leak/, 'the log is quiet') foreach $node, $primary;
$node->stop;
$primary->stop;

# a clock that is not set yet, as of a machine without a battery for it
SKIP:
{
	my $dir = PostgreSQL::Test::Utils::tempdir();
	my %clock = clock_to_set($dir);
	skip 'no compiler', 12 if !%clock;
	# to within an hour before or, for that is its step, behind; at once, for the worker looks
	my $set_clock = sub {
		open my $h, '>>', "$dir/back" or die $!;
		truncate $h, int((time - $_[0]) / 3600) or die $!;
		close $h;
	};
	my $december_20 = 945648000;
	my $there = q{SELECT string_agg(k, ' ' ORDER BY k) FROM unnest(ARRAY['a', 'b', 'e', 'f', 'late', 'month', 'n', 'years', 'zero']) k WHERE cache_get(k) IS NOT NULL};
	my $from = -s $primary->logfile;
	$node = $primary;
	{
		local @ENV{keys %clock} = values %clock;
		$node->start;
	}
	sql(q{SELECT cache_drop('default'), cache_create('daily', NULL, '1 day')});
	$set_clock->($december_20);
	is(sql(q{SELECT now() BETWEEN '1999-12-20 00:00Z' AND '1999-12-20 02:00Z', cache_set('a', 'v', '2 hours'), cache_mset(ARRAY['b'], ARRAY['v'], '2 hours'), cache_set('e', 'v'), cache_expire('e', '2 hours'),
		cache_fetch('f', $$SELECT 'v'$$, '2 hours'), cache_add('n', 'v', '2 hours'), cache_set('month', 'v', '30 days'), cache_set('years', 'v', '40 years'),
		cache_set('zero', 'v', '0'), cache_set('late', 'v', '-1 hour'), cache_set('k', 'v', NULL, 'daily')}), 't||1||t|v|t|||||', 'a clock before 2000: stored');
	is(sql($there), 'a b e f month n years', 'and what has expired is not');
	is(sql(q{SELECT string_agg(k, ' ' ORDER BY k) FROM unnest(ARRAY['a', 'b', 'e', 'f', 'n']) k WHERE cache_ttl(k) BETWEEN '1 hour' AND '2 hours'}), 'a b e f n', 'times to live');
	is(sql(q{SELECT cache_ttl('month') BETWEEN '29 days' AND '30 days', cache_ttl('k', 'daily') BETWEEN '23 hours' AND '1 day'}), 't|t', 'past 2000, and by default');
	$set_clock->($december_20 + 3 * 3600);
	is(sql($there), 'month years', 'three hours later');
	wait_for(q{SELECT sum(entries) = 2 FROM nexusmem.stat_cache WHERE cache = 'default' AND owner = current_user}, 'and the worker has taken the others out');
	$set_clock->($december_20 + 13 * 86400);
	is(sql(qq{$there; SELECT cache_ttl('month') BETWEEN '16 days' AND '17 days 1 hour', cache_get('k', 'daily') IS NULL}), "month years\nt|t", 'after 2000');
	$set_clock->(-86400);
	is(sql(qq{SELECT cache_set('a', 'v', '2 hours'), cache_set('zero', 'v', '0'); $there}), "|\na month years", 'even before 1970');
	$set_clock->($december_20);
	is(sql(qq{SELECT cache_set('b', 'v', '1 hour'); $there}), "\nb month years", 'back in 1999');
	$node->stop;
	unlink "$dir/back";
	$node->start;
	is(sql($there), 'years', 'saved, and loaded when the clock was set');
	is(sql(q{SELECT now() + cache_ttl('years') BETWEEN '2039-05-22' AND '2039-05-25', sum(entries) FROM stat_cache WHERE cache = 'default' AND owner = current_user}), 't|1', 'with its time to live');
	unlike(server_log($node, $from), qr/TRAP|PANIC|not loaded/, 'the log is quiet');
	$node->stop;
}

# /dev/shm too small, in a mount namespace with a small one of its own
SKIP:
{
	skip 'not allowed to mount here', 9 if !may_mount();
	my $dir = PostgreSQL::Test::Utils::tempdir();
	my %clock = clock_to_set($dir);
	$node = PostgreSQL::Test::Cluster->new('small');
	$node->init;
	$node->append_conf('postgresql.conf', "shared_preload_libraries = 'nexusmem'\nnexusmem.num_nodes = 1\nlog_statement = none");
	{
		local @ENV{keys %clock} = values %clock;
		is(start_in_small_shm($node, 24, 'head -c 10M /dev/zero >/dev/shm/filler'), 0, '/dev/shm of 24 MB, 10 of it taken: the server starts');
	}
	sql('CREATE EXTENSION nexusmem');
	is(sql(q{SELECT count(cache_set('k' || i, repeat('x', 1000))) FROM generate_series(1, 60000) i}), 60000, 'more than fits is set without an error');
	is(sql(q{SELECT sum(entries) > 5000, sum(evictions) > 0 FROM stat_cache}), 't|t', 'others gave way');
	# half of what the small part's share is
	is(sql(q{SELECT count(*) FROM generate_series(59501, 60000) i WHERE cache_get('k' || i) = repeat('x', 1000)}), 500, 'and the newest are there');
	like(sql(q{SELECT state || ': ' || detail || hint FROM status WHERE feature = 'cache'}), qr{^degraded: .*no memory to reach the limit.*/dev/shm}, 'status says so');
	my $entries = sql('SELECT sum(entries) FROM stat_cache');
	sql(q{COPY (SELECT 1) TO PROGRAM 'rm /dev/shm/filler'});
	SKIP:
	{
		skip 'no compiler', 2 if !%clock;
		append_to_file("$dir/back", 'x');
		workers_run($node);
		like(sql(q{SELECT state FROM status WHERE feature = 'cache'}), qr/^active/, 'the clock set back: that was long ago');
		is(sql(qq{SELECT count(cache_set('m' || i, repeat('x', 1000))) FROM generate_series(1, 60000) i; SELECT sum(entries) > $entries * 1.5 FROM stat_cache}), "60000\nt", 'and more memory is had where there is some');
	}
	is(sql(q{SELECT count(cache_set('l' || i, repeat('x', 500000))), cache_get('l100') = repeat('x', 500000) FROM generate_series(1, 100) i}), '100|t', 'long values too');
	unlike(server_log($node), qr/terminated by signal|TRAP|PANIC/, 'no SIGBUS');
	$node->stop;
}

# not preloaded
$node = PostgreSQL::Test::Cluster->new('plain');
$node->init;
$node->start;
sql('CREATE EXTENSION nexusmem');
if ($node->pg_version < 17)
{
	like(err("SELECT $_"), qr/ERROR:  55000:.*HINT:  .*shared_preload_libraries/s, "not preloaded: $_")
	  foreach q{cache_set('k', 'v')}, q{cache_get('k')}, q{cache_create('c')}, q{cache_mget(ARRAY['k'])}, q{count(*) FROM stat_cache};
}
else
{
	is(sql(q{SELECT cache_set('k', 'v', '1 hour'), cache_get('k')}), '|v', 'not preloaded: works');
	is(sql(q{SELECT cache_get('k'), cache_clear()}), 'v|1', 'for another session too');
	like(sql(q{SELECT state || ': ' || hint FROM status WHERE feature = 'cache'}), qr/^degraded: .*shared_preload_libraries/, 'without the worker');
}
unlike(server_log($node), qr/terminated by signal|TRAP|PANIC|FATAL/, 'the log is quiet');
$node->stop;
done_testing();

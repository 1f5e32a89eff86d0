# Look-ahead on cold data: that it reads ahead, how much, and that rows are the same.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use NxmTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PostgreSQL::Test::Cluster->new('lookahead');
$node->init(allows_streaming => 1);
$node->append_conf('postgresql.conf', q{
shared_preload_libraries = 'nexusmem'
shared_buffers = 32MB
autovacuum = off
max_prepared_transactions = 1
max_parallel_workers_per_gather = 0
enable_seqscan = off
enable_bitmapscan = off
enable_sort = off
});
$node->start;
# A prepared deletion keeps every tenth page from being all-visible: one that was
# rolled back does not on PostgreSQL 19, where reading marks pages.
$node->safe_psql('postgres', q{
CREATE EXTENSION nexusmem;
CREATE EXTENSION pg_prewarm;
CREATE TABLE t AS SELECT k, k % 100 AS f, repeat('x', 400) AS pad
	FROM (SELECT k FROM generate_series(1, 100000) k ORDER BY hashint4(k)) s;
CREATE INDEX t_k ON t (k);
CREATE TABLE w AS SELECT k, f, pad, point(k * 37 % 1009, k * 101 % 997) AS place FROM (SELECT * FROM t WHERE k <= 20000 ORDER BY hashint4(k)) s;
CREATE INDEX w_k ON w (k) INCLUDE (pad) WITH (fillfactor = 20);
CREATE INDEX w_f ON w USING hash (f);
CREATE INDEX w_gist ON w USING gist (place);
CREATE TABLE s AS TABLE w;
CREATE INDEX s_spgist ON s USING spgist (place);
CREATE TABLE few AS SELECT k, CASE WHEN k % 100 = 0 THEN 1000 ELSE k % 5 END AS f, pad FROM (SELECT * FROM t WHERE k <= 1200 ORDER BY hashint4(k)) s;
CREATE INDEX few_f ON few USING hash (f);
VACUUM (FREEZE, ANALYZE) t, w, s, few;
BEGIN; DELETE FROM t WHERE ctid = ANY (ARRAY(SELECT format('(%s,1)', b)::tid FROM generate_series(0, 5000, 10) b)); PREPARE TRANSACTION 'deleting';
SELECT count(*) FROM t;
CHECKPOINT});
my @files = split /\n/, $node->safe_psql('postgres', q{SELECT pg_relation_filepath(r) FROM unnest('{t,w,s,few}'::regclass[]) r});
my @leaves = $node->safe_psql('postgres', q{SELECT pg_relation_filepath('w_k')});

# cold($on): a restarted server that has the indexes in memory and the tables nowhere
sub cold
{
	my ($n) = @_;
	$n->stop;
	evict($n, @files);
	$n->start;
	$n->safe_psql('postgres', q{SELECT pg_prewarm(indexrelid) FROM pg_index WHERE indrelid IN ('t'::regclass, 'w'::regclass, 's'::regclass, 'few'::regclass)});
	return;
}
# run($node, $settings, $query): the digest of its rows, and the session's counts
sub run
{
	my ($n, $settings, $query) = @_;
	my $got = $n->safe_psql('postgres', "$settings; SELECT md5(string_agg(x::text, ',')) FROM ($query) x; SELECT issued, used, wasted, skipped FROM nexusmem.session_prefetch() WHERE kind = 'index'");
	my ($digest, $issued, $used, $wasted, $skipped) = $got =~ /^(\w*)\n(\d+)\|(\d+)\|(\d+)\|(\d+)$/m;
	return ($digest, $issued, $used, $wasted, $skipped);
}
# ahead($name, $rows, $query, $enough, [$cold]): see reads_ahead()
sub ahead
{
	my ($name, $rows, $query, $enough, $cold) = @_;
	return reads_ahead($name, $rows, $enough, sub {
		($cold // \&cold)->($node);
		return run($node, 'SET nexusmem.enable_prefetch = on', $query);
	});
}

if (!on_disk($node))
{
	plan skip_all => 'the data directory lies in memory: nothing is ever read from a disk';
}

my %shape = (
	forward => 'SELECT k, pad FROM t WHERE k BETWEEN 5000 AND 6000 ORDER BY k',
	backward => 'SELECT k, pad FROM t WHERE k BETWEEN 15000 AND 16000 ORDER BY k DESC',
	filtered => 'SELECT k, pad FROM t WHERE k BETWEEN 25000 AND 27000 AND f = 7 ORDER BY k',
	'index only' => 'SELECT k FROM t WHERE k BETWEEN 35000 AND 45000 ORDER BY k',
);
foreach my $name (sort keys %shape)
{
	cold($node);
	my ($off, $none) = run($node, 'SET nexusmem.enable_prefetch = off', $shape{$name});
	is($none, 0, "$name: off reads nothing ahead");
	my ($issued, $used) = ahead($name, $off, $shape{$name}, sub { $_[0] > 20 });
	cmp_ok($issued, '>', 20, "$name: blocks are read ahead");
	cmp_ok($used, '>=', $issued * 0.9, "$name: and nearly all of them used");
}

# From leaf to leaf, of some 4 entries: a scan that stopped at the end of each would
# never ask for the first block of one, and so for three quarters at most. The rows of a range
# are all reached, so nothing that is asked for inside it is wasted. On a machine busy with
# other things some reads look like cached ones.
my $range = 'k BETWEEN 5000 AND 6000';
my $blocks = $node->safe_psql('postgres', "SELECT count(DISTINCT (ctid::text::point)[0]) FROM w WHERE $range");
my $most = 0.8 * $blocks;
foreach my $order ('', 'DESC')
{
	my $query = "SELECT k, f FROM w WHERE $range ORDER BY k $order";
	cold($node);
	my ($off) = run($node, 'SET nexusmem.enable_prefetch = off', $query);
	my $enough = sub { $_[0] >= $most };
	my ($issued, $used, $wasted) = ahead("across leaves $order", $off, $query, $enough);
	cmp_ok($issued, '>=', $most, "across leaves $order: $issued of $blocks blocks are read ahead");
	is($wasted, 0, "across leaves $order: nothing behind the end of the range");
	# forward, the operating system has mostly read the next leaf by itself
	my $least = $order ? $blocks : $most;
	($issued, $used, $wasted) = ahead("across leaves on disk $order", $off, $query, sub { $_[0] >= $least }, sub {
		cold($node);
		$node->stop;
		evict($node, @files, @leaves);
		$node->start;
	});
	cmp_ok($issued, '>=', $least, "across leaves on disk $order: leaves are read ahead too ($issued blocks)");
	cmp_ok($wasted, '<=', 4, "across leaves on disk $order: at most some leaves behind the end");
}

# arrays and other kinds of indexes: the query, and how many blocks at least
my %kind = (
	'array' => [ 'SELECT k, pad FROM t WHERE k = ANY (ARRAY(SELECT i * 331 FROM generate_series(1, 300) i))', 240 ],
	'array, backward' => [ 'SELECT k, pad FROM t WHERE k = ANY (ARRAY(SELECT i * 331 FROM generate_series(1, 300) i)) ORDER BY k DESC', 240 ],
	'hash' => [ 'SELECT k FROM w WHERE f = 7', 150 ],
	'GiST' => [ q{SELECT k FROM w WHERE place <@ box '(100,100),(400,400)'}, 200 ],
	'GiST, ordered' => [ 'SELECT k FROM w ORDER BY place <-> point(500, 500) LIMIT 500', 150 ],
	'SP-GiST' => [ q{SELECT k FROM s WHERE place <@ box '(100,100),(400,400)'}, 200 ],
	'SP-GiST, ordered' => [ 'SELECT k FROM s ORDER BY place <-> point(500, 500) LIMIT 500', 150 ],
);
foreach my $name (sort keys %kind)
{
	my ($query, $least) = @{ $kind{$name} };
	cold($node);
	my ($off) = run($node, 'SET nexusmem.enable_prefetch = off', $query);
	my ($issued, $used, $wasted) = ahead($name, $off, $query, sub { $_[0] >= $least });
	cmp_ok($issued, '>=', $least, "$name: blocks are read ahead ($issued, $wasted wasted)");
	cmp_ok($wasted, '<=', 32, "$name: nearly all of them used");
}

cold($node);
foreach my $limit (1, 3, 10, 50)
{
	foreach my $name ('GiST, ordered', 'array', 'hash')
	{
		my $query = $kind{$name}[0] =~ s/ LIMIT 500//r . " LIMIT $limit";
		my (undef, $issued, undef, $wasted) = run($node, 'SELECT 1', $query);
		cmp_ok($wasted, '<=', $limit, "$name, LIMIT $limit wastes no more reads than it returns rows ($wasted of $issued)");
	}
}

# an array of few elements: what would be behind the last one is not looked for, not
# even where it was read already
{
	my $query = 'SELECT k, pad FROM t WHERE k = ANY (ARRAY[70001, 70002, 70003, 70004, 70005, 70006, 70007, 70008])';
	my ($off) = run($node, 'SET nexusmem.enable_prefetch = off', $query);
	my ($issued, $used, $wasted, $skipped) = ahead('array of few', $off, $query, sub { $_[1] >= 5 && $_[3] == 0 });
	cmp_ok($used, '>=', 5, "array of few: blocks are read ahead ($issued, $wasted wasted)");
	is($skipped, 0, 'array of few: nothing is looked for behind its end');
}

# after a batch of many there is one of few: what is left of the first one is not looked at
{
	my $query = 'SELECT v.f, l.k FROM (VALUES (1, 1), (1000, 20)) v(f, n), LATERAL (SELECT k FROM few WHERE few.f = v.f LIMIT v.n) l';
	cold($node);
	my ($off) = run($node, 'SET nexusmem.enable_prefetch = off', $query);
	my ($issued, $used, $wasted) = ahead('hash, a batch of few', $off, $query, sub { $_[1] >= 5 });
	cmp_ok($used, '>=', 5, "hash, a batch of few: blocks are read ahead ($issued)");
	cmp_ok($wasted, '<=', 1, 'hash, a batch of few: nothing behind its end');
}

# backward in a hash index: a cursor that went to its end while all was cached
my ($forward, $backward, $backward_used, $backward_wasted) = until_enough(sub {
	my ($there, $back, $used) = @_;
	return $used >= 150 || "@$back" ne join(' ', reverse @$there);
}, sub {
	my $s = session($node);
	ask($s, 'BEGIN; SELECT count(pad) FROM w WHERE f = 7; DECLARE c SCROLL CURSOR FOR SELECT k, ctid FROM w WHERE f = 7');
	my @there = split /\n/, ask($s, 'FETCH ALL FROM c');
	my $before = ask($s, q{SELECT used FROM nexusmem.session_prefetch() WHERE kind = 'index'});
	# a table larger than the buffers takes them
	$node->safe_psql('postgres', 'SET nexusmem.enable_prefetch = off; SELECT sum(length(pad)) FROM t WHERE k > 0; CHECKPOINT');
	evict($node, @files);
	my @back = split /\n/, ask($s, 'FETCH BACKWARD ALL FROM c');
	my ($used, $wasted) = split /\|/, ask($s, q{SELECT used, wasted FROM nexusmem.session_prefetch() WHERE kind = 'index'});
	close_session($s);
	return (\@there, \@back, $used - $before, $wasted);
});
is_deeply($backward, [ reverse @$forward ], 'hash, backward: same rows');
cmp_ok($backward_used, '>=', 150, 'hash, backward: blocks are read ahead and used');
cmp_ok($backward_wasted, '<=', 32, 'hash, backward: nearly all of them used');

# How far ahead an array scan of the table reads for ten rows or fewer: it begins at the
# full distance where nothing stops early, and else wastes no more than it returns.
my $keys = 'ARRAY(SELECT i * 331 FROM generate_series(1, 300) i)';
sub array_issued
{
	my ($settings, @statements) = @_;
	cold($node);
	my $s = session($node);
	ask($s, $_) foreach $settings, @statements;
	my $got = ask($s, q{SELECT issued, wasted FROM nexusmem.session_prefetch() WHERE kind = 'index'});
	close_session($s);
	return split /\|/, $got;
}
my $tenth = "1 / (k - 3310) + length(pad) AS x FROM t WHERE k = ANY ($keys)";
my %whole = (
	'the whole result' => [ "SELECT $tenth" ],
	'an aggregate' => [ "SELECT sum(x) FROM (SELECT $tenth OFFSET 0) y" ],
	'a sort' => [ "SET enable_sort = on; SELECT $tenth ORDER BY 1 LIMIT 1" ],
	'FETCH ALL' => [ 'BEGIN', "DECLARE c CURSOR FOR SELECT $tenth", 'FETCH ALL FROM c', 'ROLLBACK' ],
	'UNION ALL' => [ "SELECT x FROM (SELECT $tenth UNION ALL SELECT 1) y" ],
);
foreach my $name (sort keys %whole)
{
	# 41, or 17 by credit; less where a busy machine makes reads look like cached ones
	my ($issued) = until_enough(sub { $_[0] > 22 }, sub { array_issued('SELECT 1', @{ $whole{$name} }) });
	cmp_ok($issued, '>', 22, "array, $name: the full distance at once ($issued)");
}
my %stops = (
	'LIMIT in a subquery' => [ 10, "SELECT count(*) FROM (SELECT pad FROM t WHERE k = ANY ($keys) LIMIT 10) x" ],
	'EXISTS' => [ 1, "SELECT EXISTS (SELECT FROM t WHERE k = ANY ($keys) AND pad <> '')" ],
	'FETCH' => [ 5, 'BEGIN', "DECLARE c CURSOR FOR SELECT pad FROM t WHERE k = ANY ($keys)", 'FETCH 5 FROM c', 'ROLLBACK' ],
	'elements that a bound excludes' => [ 5, "SELECT sum(length(pad)) FROM t WHERE k = ANY ($keys) AND k <= 1655" ],
	'a merge join' => [ 20, "SET enable_hashjoin = off; SET enable_nestloop = off; SELECT count(*) FROM t JOIN generate_series(331, 3310, 331) i ON t.k = i WHERE t.k = ANY ($keys) AND pad <> ''" ],
);
foreach my $name (sort keys %stops)
{
	my ($most, @statements) = @{ $stops{$name} };
	my (undef, $wasted) = array_issued('SELECT 1', @statements);
	cmp_ok($wasted, '<=', $most, "array, $name: wastes no more than it returns ($wasted)");
}

cold($node);
foreach my $limit (1, 3, 10, 50)
{
	my $from = 50000 + $limit * 100;
	my (undef, $issued, $used, $wasted) = run($node, 'SELECT 1', "SELECT k, pad FROM t WHERE k >= $from ORDER BY k LIMIT $limit");
	cmp_ok($wasted, '<=', $limit, "LIMIT $limit wastes no more reads than it returns rows ($wasted of $issued)");
	is($issued, 0, 'LIMIT 1 reads nothing ahead') if $limit == 1;
}

# the distance
my (undef, $issued) = run($node, 'SET nexusmem.prefetch_distance = 0', 'SELECT pad FROM t WHERE k BETWEEN 60000 AND 60500 ORDER BY k');
is($issued, 0, 'prefetch_distance = 0: nothing');
(undef, $issued) = run($node, 'SET effective_io_concurrency = 0', 'SELECT pad FROM t WHERE k BETWEEN 61000 AND 61500 ORDER BY k');
is($issued, 0, 'effective_io_concurrency set to 0: nothing');
$node->safe_psql('postgres', 'ALTER TABLESPACE pg_default SET (effective_io_concurrency = 0)');
(undef, $issued) = run($node, 'SELECT 1', 'SELECT pad FROM t WHERE k BETWEEN 62000 AND 62500 ORDER BY k');
is($issued, 0, "the tablespace's effective_io_concurrency set to 0: nothing");
$node->safe_psql('postgres', 'ALTER TABLESPACE pg_default RESET (effective_io_concurrency)');
{
	my $query = 'SELECT pad FROM t WHERE k BETWEEN 63000 AND 63500 ORDER BY k';
	my ($off) = run($node, 'SET nexusmem.enable_prefetch = off', $query);
	($issued) = ahead('the built-in default', $off, $query, sub { $_[0] > 20 });
	cmp_ok($issued, '>', 20, 'the built-in default: something');
}
my (undef, $i1, undef, $w1) = run($node, 'SET nexusmem.prefetch_distance = 4', 'SELECT pad FROM t WHERE k >= 64000 ORDER BY k LIMIT 200');
cmp_ok($w1, '<=', 4, 'no more than prefetch_distance blocks in flight');

# cached: it notices
(undef, $issued) = run($node, 'SELECT 1', 'SELECT pad FROM t WHERE k BETWEEN 63000 AND 63500 ORDER BY k');
is($issued, 0, 'in shared_buffers: nothing is asked for');

# parallel
my $parallel = "$parallel_plans; SET cpu_tuple_cost = 1";
my $count = 'SELECT count(*), sum(length(pad)) FROM t WHERE k BETWEEN 70000 AND 75000';
like($node->safe_psql('postgres', "$parallel; EXPLAIN $count"), qr/Parallel Index Scan/, 'a parallel index scan');
my ($sums, $shared) = until_enough(sub { $_[0] ne '5001|2000400' || $_[1] > 100 }, sub {
	cold($node);
	$node->safe_psql('postgres', 'SELECT nexusmem.stat_prefetch_reset()');
	return map { $node->safe_psql('postgres', $_) } "$parallel; $count", q{SELECT coalesce(sum(issued), 0) FROM nexusmem.stat_prefetch WHERE relid = 't'::regclass};
});
is($sums, '5001|2000400', 'parallel: same rows');
cmp_ok($shared, '>', 100, 'parallel: the workers read ahead, and their counts are shared');

# a scan that an error or a cancel ends
my $from = -s $node->logfile;
my $s = session($node);
like(ask($s, 'SELECT sum(1 / (k - 80030)) FROM (SELECT k FROM t WHERE k >= 80000 AND pad IS NOT NULL ORDER BY k) s'), qr/division by zero/, 'an error in mid-scan');
is(ask($s, 'SELECT bool_and(issued = used + wasted) FROM nexusmem.session_prefetch()'), 't', 'what was in flight counts as wasted');
ask($s, 'BEGIN; DECLARE c SCROLL CURSOR FOR SELECT k, pad FROM t WHERE k >= 82000 ORDER BY k');
is(ask($s, 'FETCH 40 FROM c; FETCH BACKWARD 45 FROM c; MOVE ABSOLUTE 20 IN c') =~ tr/\n//, 78, 'a cursor turns back');
ask($s, 'ROLLBACK');
is(ask($s, 'SELECT bool_and(issued = used + wasted) FROM nexusmem.session_prefetch()'), 't', 'and its counts add up');
ask($s, "SET statement_timeout = '1ms'");
like(ask($s, 'SELECT count(pad) FROM t a WHERE k > 0 AND EXISTS (SELECT FROM t b WHERE b.k = a.k + 1 AND b.pad IS NOT NULL)'), qr/canceling statement/, 'a cancel in mid-scan');
close_session($s);
unlike(server_log($node, $from), qr/WARNING|leak|TRAP/, 'no complaint in the log');

# dropped relations leave the view
$node->safe_psql('postgres', 'SELECT sum(length(pad)) FROM t WHERE k BETWEEN 90000 AND 91000');
my $relid = $node->safe_psql('postgres', q{SELECT 't'::regclass::oid});
is($node->safe_psql('postgres', "SELECT count(*) FROM nexusmem.stat_prefetch WHERE relid = $relid"), 1, 'stat_prefetch has the table');

# a standby
$node->backup('b');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($node, 'b', has_streaming => 1);
$standby->start;
$node->wait_for_catchup($standby);
my ($off) = run($node, 'SET nexusmem.enable_prefetch = off', $shape{forward});
($issued) = reads_ahead('standby', $off, sub { $_[0] > 20 }, sub {
	cold($standby);
	return run($standby, 'SELECT 1', $shape{forward});
});
cmp_ok($issued, '>', 20, 'standby: blocks are read ahead');
workers_run($standby);
is($standby->safe_psql('postgres', q{SELECT string_agg(state, ',') FROM nexusmem.status WHERE feature IN ('index look-ahead', 'background worker', 'shared memory')}),
	'active,active,active', 'standby: status');
$standby->stop;

$node->safe_psql('postgres', q{ROLLBACK PREPARED 'deleting'});
$node->safe_psql('postgres', 'DROP TABLE t');
is($node->safe_psql('postgres', "SELECT count(*) FROM nexusmem.stat_prefetch WHERE relid = $relid"), 0, 'a dropped table leaves stat_prefetch');
is($node->safe_psql('template1', "CREATE EXTENSION nexusmem; SELECT count(*) FROM nexusmem.read_stat_prefetch() WHERE relid = $relid"), 0, 'for other databases too');
$node->stop;
done_testing();

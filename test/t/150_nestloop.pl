# Look-ahead over the outer side of nested loops on cold data: that it reads ahead,
# how much, and that rows are the same.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use NxmTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PostgreSQL::Test::Cluster->new('nestloop');
# pages are damaged below
$node->init(no_data_checksums => 1);
$node->append_conf('postgresql.conf', $nested_loops);
$node->append_conf('postgresql.conf', q{
shared_preload_libraries = 'nexusmem'
shared_buffers = 32MB
autovacuum = off
nexusmem.enable_prefetch = off
nexusmem.enable_nestloop_prefetch = on
});
$node->start;
$node->safe_psql('postgres', q{
CREATE EXTENSION nexusmem;
CREATE EXTENSION pg_prewarm;
CREATE TABLE t AS SELECT k, k / 5 AS g, repeat('x', 400) AS pad
	FROM (SELECT k FROM generate_series(1, 100000) k ORDER BY hashint4(k)) s;
CREATE INDEX t_k ON t (k);
CREATE INDEX t_g ON t (g);
CREATE TABLE o AS SELECT n::int, (n * 7919 % 100003)::int AS k, (n * 7919 % 100003 / 5)::int AS g FROM generate_series(1, 20000) n;
CREATE INDEX o_n ON o (n);
VACUUM (FREEZE, ANALYZE) t, o;
CHECKPOINT});
my %file = map { split /\|/ } split /\n/, $node->safe_psql('postgres', q{SELECT relname, pg_relation_filepath(oid) FROM pg_class WHERE relname IN ('t', 't_k', 't_g')});

# cold($warm): a restarted server that has the outer side in memory, and $warm
sub cold
{
	my @warm = @_;
	$node->stop;
	evict($node, values %file);
	$node->start;
	$node->safe_psql('postgres', "SELECT pg_prewarm('$_')") foreach 'o', 'o_n', @warm;
	return;
}

my $counts = q{SELECT issued, used, wasted, skipped FROM nexusmem.session_prefetch() WHERE kind = 'nestloop'};
# run($settings, $query): the digest of its rows, and the session's counts
sub run
{
	my ($settings, $query) = @_;
	my $got = $node->safe_psql('postgres', "$settings; SELECT md5(string_agg(x::text, ',')) FROM ($query) x; $counts");
	return $got =~ /^(\w*)\n(\d+)\|(\d+)\|(\d+)\|(\d+)$/m;
}
my $off = 'SET nexusmem.enable_nestloop_prefetch = off';
my $on = 'SET nexusmem.enable_nestloop_prefetch = on';
# ahead($name, $rows, $query, $least, @warm): see reads_ahead()
sub ahead
{
	my ($name, $rows, $query, $least, @warm) = @_;
	return reads_ahead($name, $rows, sub { $_[0] > $least }, sub {
		cold(@warm);
		return run($on, $query);
	});
}

# cold_run($enough, $query, @warm): the digest and the counts of such a run, see until_enough()
sub cold_run
{
	my ($enough, $query, @warm) = @_;
	return until_enough($enough, sub {
		cold(@warm);
		return run($on, $query);
	});
}

if (!on_disk($node))
{
	plan skip_all => 'the data directory lies in memory: nothing is ever read from a disk';
}

# 500 rows: some 490 blocks of the table; of the index 270 leaves, 500 entries
my %shape = (
	plain => 'SELECT o.n, t.pad FROM o JOIN t ON t.k = o.k WHERE o.n BETWEEN 1000 AND 1499',
	outer => 'SELECT o.n, t.pad FROM o LEFT JOIN t ON t.k = o.k + 50000 WHERE o.n BETWEEN 2000 AND 2499',
	several => 'SELECT o.n, t.pad FROM o JOIN t ON t.g = o.k / 5 WHERE o.n BETWEEN 3000 AND 3099',
	exists => 'SELECT o.n FROM o WHERE o.n BETWEEN 5000 AND 5299 AND EXISTS (SELECT FROM t WHERE t.g = o.g AND length(t.pad) > o.n % 10)',
	lateral => 'SELECT o.n, x.pad FROM o, LATERAL (SELECT pad FROM t WHERE t.g = o.g LIMIT 3) x WHERE o.n BETWEEN 4000 AND 4199',
);
foreach my $name (sort keys %shape)
{
	cold();
	my ($rows_off, $none) = run($off, $shape{$name});
	is($none, 0, "$name: off, nothing is read ahead");
	my ($issued, $used, $wasted) = ahead($name, $rows_off, $shape{$name}, 300);
	cmp_ok($issued, '>', 300, "$name: blocks are read ahead");
	if ($name =~ /^(lateral|exists)$/)
	{
		# which stop early: the first rows ask for too many, 70 blocks and 83. Did all of
		# them, each of lateral would waste 2 of 5 blocks of the table, and of exists 4.
		cmp_ok($wasted, '<', $issued * ($name eq 'exists' ? 0.35 : 0.25), "$name: and most of them used ($wasted of $issued wasted)");
		cmp_ok($wasted, '>', 0, "$name: what the inner side did not read is no use");
	}
	else
	{
		is($wasted, 0, "$name: and all of them used");
	}
	# what the first run asked for and did not read is in no buffer: a read of it that takes
	# long once is taken for one from the disk, and then it is in one
	my $again = 0;
	(undef, $none) = until_enough(sub { $_[1] == 0 }, sub {
		if ($again++)
		{
			cold();
			run($on, $shape{$name});
		}
		return run($on, $shape{$name});
	});
	is($none, 0, "$name: cached, nothing is asked for");
}

# one stage alone
my ($rows) = run($off, $shape{plain});
my ($heap) = ahead('the index in memory', $rows, $shape{plain}, 400, 't_k');
cmp_ok($heap, '>', 400, "the index in memory: $heap blocks of the table");
$node->safe_psql('postgres', 'VACUUM t');
my (undef, $leaves) = cold_run(sub { $_[1] > 100 }, 'SELECT o.n, t.k FROM o JOIN t ON t.k = o.k WHERE o.n BETWEEN 1000 AND 1499', 't');
cmp_ok($leaves, '>', 100, "an index-only scan of a table in memory: $leaves leaves");
cmp_ok($leaves, '<', 300, 'and nothing else');

# what may be stopped early
foreach my $limit (1, 3, 10, 50)
{
	my $least = $limit == 50 ? 20 : -1;
	my (undef, $issued, $used, $wasted) = cold_run(sub { $_[3] != 0 || $_[1] > $least },
		"SELECT o.n, t.pad FROM o JOIN t ON t.k = o.k WHERE o.n >= 1000 ORDER BY o.n LIMIT $limit");
	is($wasted, 0, "LIMIT $limit, a row for each: nothing is wasted ($issued)");
	is($issued, 0, 'LIMIT 1 reads nothing ahead') if $limit == 1;
	cmp_ok($issued, '>', $least, "LIMIT $limit reads ahead") if $limit == 50;
}
# one that is not known before the query runs
foreach my $limit (4, 50)
{
	my ($returned, $issued, $used, $wasted) = until_enough(sub { $_[0] != $limit || $_[3] != 0 || $_[1] > 3 }, sub {
		cold();
		my $got = $node->safe_psql('postgres', "$on; SET plan_cache_mode = force_generic_plan;
			PREPARE q(int, int) AS SELECT o.n, t.pad FROM o JOIN t ON t.k = o.k WHERE o.n >= 1000 ORDER BY o.n LIMIT \$1 OFFSET \$2;
			EXECUTE q($limit, 3); $counts");
		return (scalar(my @rows = $got =~ /\|x+$/mg), $got =~ /^(\d+)\|(\d+)\|(\d+)\|\d+$/m);
	});
	is($returned, $limit, "LIMIT \$1 of $limit returns as many");
	is($wasted, 0, "and wastes nothing ($issued)");
	cmp_ok($issued, '>', 3, 'and reads ahead');
}
foreach my $limit (3, 10, 50)
{
	my $least = $limit == 50 ? 5 : -1;
	my (undef, $issued, $used, $wasted) = cold_run(sub { $_[3] > $limit || $_[1] > $least },
		"SELECT o.n, t.pad FROM o JOIN t ON t.g = o.g WHERE o.n >= 1000 ORDER BY o.n LIMIT $limit");
	cmp_ok($wasted, '<=', $limit, "LIMIT $limit, several rows for each: no more wasted reads than rows ($wasted of $issued)");
	cmp_ok($issued, '>', $least, "LIMIT $limit, several rows for each: reads ahead") if $limit == 50;
}
my $s;
my ($may_fail, $none, $failure, $does_not, $issued, $used, $wasted) = until_enough(sub {
	return "@_[0, 1, 3]" ne '39 0 99' || $_[2] !~ /division by zero/ || $_[6] > 100 || $_[5] + $_[6] != $_[4] || $_[5] > 30;
}, sub {
	close_session($s) if $s;
	cold();
	$s = session($node);
	ask($s, 'BEGIN; DECLARE c CURSOR FOR SELECT o.n, t.pad FROM o JOIN t ON t.k = o.k WHERE o.n >= 1000 AND 1000 / (1040 - o.n) IS NOT NULL ORDER BY o.n');
	my @got = (ask($s, 'FETCH 40 FROM c') =~ tr/\n//, ask($s, 'SELECT issued FROM nexusmem.session_prefetch() WHERE kind = \'nestloop\''), ask($s, 'FETCH 1 FROM c'));
	ask($s, 'ROLLBACK; BEGIN; DECLARE c CURSOR FOR SELECT o.n, t.pad FROM o JOIN t ON t.k = o.k WHERE o.n >= 5000 ORDER BY o.n');
	push @got, ask($s, 'FETCH 100 FROM c') =~ tr/\n//;
	ask($s, 'COMMIT');
	return (@got, split /\|/, ask($s, $counts));
});
is($may_fail, 39, 'a cursor over an outer side that may fail');
is($none, 0, 'reads nothing ahead');
like($failure, qr/division by zero/, 'and fails where it should');
is($does_not, 99, 'a cursor over one that does not');
cmp_ok($used, '>', 30, 'reads ahead');
cmp_ok($wasted, '<=', 100, "and wastes no more than it returned ($wasted)");
is($used + $wasted, $issued, 'issued = used + wasted');

# an error and a cancel in the middle
like(ask($s, 'SELECT sum(length(t.pad) / (o.n - 9000)) FROM o JOIN t ON t.k = o.k WHERE o.n >= 8900'), qr/division by zero/, 'an error in the middle');
ask($s, "SET statement_timeout = '1ms'");
like(ask($s, 'SELECT count(pad) FROM o JOIN t ON t.g = o.k / 5'), qr/canceling statement/, 'a cancel in the middle');
# which may be cancelled itself
for (1 .. 1000) { last if ask($s, 'SET statement_timeout = 0') eq ''; }
is(ask($s, "SELECT issued = used + wasted FROM nexusmem.session_prefetch() WHERE kind = 'nestloop'"), 't', 'what was in flight counts as wasted');
close_session($s);

# parallel: workers read ahead, with the leader and without
my $parallel = "$parallel_plans; SET enable_seqscan = on";
my $sums = 'SELECT count(t.pad), sum(hashtext(t.pad)::bigint * o.n) FROM o JOIN t ON t.k = o.k';
like($node->safe_psql('postgres', "$parallel; EXPLAIN $sums"), qr/Gather.*Nested Loop.*Parallel/s, 'a parallel plan');
foreach my $leader ('on', 'off')
{
	cold();
	my $rows_off = $node->safe_psql('postgres', "$off; $parallel; $sums");
	my $by_leader = $leader eq 'off' ? qr/^0\|0\|0\|0$/m : qr/^\d+\|\d+\|\d+\|\d+$/m;
	my ($got, $issued) = until_enough(sub { $_[0] !~ /^\Q$rows_off\E$/m || $_[0] !~ $by_leader || $_[1] > 3000 }, sub {
		cold();
		my $sum = q{SELECT coalesce(sum(issued), 0) FROM nexusmem.stat_prefetch WHERE kind = 'nestloop'};
		my $before = $node->safe_psql('postgres', $sum);
		my $got = $node->safe_psql('postgres', "$on; $parallel; SET parallel_leader_participation = $leader; $sums; $counts");
		# the workers have added theirs when their transactions end, before the query does
		return ($got, $node->safe_psql('postgres', $sum) - $before);
	});
	like($got, qr/^\Q$rows_off\E$/m, "parallel, leader $leader: same rows");
	like($got, $by_leader, 'the leader itself reads nothing ahead') if $leader eq 'off';
	cmp_ok($issued, '>', 3000, 'the workers do');
	is($node->safe_psql('postgres', q{SELECT sum(wasted) * 50 < sum(issued) FROM nexusmem.stat_prefetch WHERE kind = 'nestloop'}), 't', 'and use it');
}

# scans of the index are counted as without look-ahead
my @scans;
foreach my $setting ($off, $on)
{
	cold();
	$node->safe_psql('postgres', 'SELECT pg_stat_reset()');
	# before it is asked for in another session
	$node->safe_psql('postgres', "$setting; $shape{plain}; SELECT pg_stat_force_next_flush()");
	push @scans, $node->safe_psql('postgres', q{SELECT idx_scan FROM pg_stat_user_indexes WHERE indexrelname = 't_k'});
}
cmp_ok($scans[0], '>', 0, 'scans of the index are counted');
is($scans[1], $scans[0], "idx_scan is as without ($scans[0])");

# the catalogs' entries change while a cursor stands in the middle
sub in_parts
{
	my ($setting) = @_;
	cold();
	my $c = session($node);
	my @got = (ask($c, "$setting; BEGIN; DECLARE c NO SCROLL CURSOR FOR SELECT o.n, t.pad, t.g FROM o JOIN t ON t.k = o.k WHERE o.n BETWEEN 13000 AND 13400 ORDER BY o.n"));
	push @got, ask($c, 'FETCH 60 FROM c');
	$node->safe_psql('postgres', 'ANALYZE t, o; ALTER INDEX t_k SET (fillfactor = 80); ALTER TABLE t SET (fillfactor = 99); CREATE INDEX more ON t (g, k)');
	push @got, ask($c, 'FETCH 60 FROM c'), ask($c, 'SAVEPOINT s; ANALYZE t; SELECT 1 / 0'), ask($c, 'ROLLBACK TO s'), ask($c, 'FETCH 60 FROM c');
	push @got, ask($c, "DO 'BEGIN PERFORM 1 / (o.n - 14100) FROM o JOIN t ON t.k = o.k WHERE o.n >= 14000; EXCEPTION WHEN division_by_zero THEN END'");
	push @got, ask($c, 'FETCH ALL FROM c'), ask($c, 'COMMIT');
	my $asked = ask($c, $counts);
	close_session($c);
	$node->safe_psql('postgres', 'DROP INDEX more');
	return (join("\n", @got), split /\|/, $asked);
}
my ($parts_off) = in_parts($off);
my ($parts_on, $parts_issued) = until_enough(sub { $_[0] ne $parts_off || $_[1] > 100 }, sub { in_parts($on) });
is($parts_on, $parts_off, 'a cursor over an index whose catalog entry changes: same rows');
cmp_ok($parts_issued, '>', 100, 'and blocks are read ahead');

# an index as pg_upgrade brings it from PostgreSQL 11: version 3
cold();
$node->stop;
{
	open(my $fh, '+<', $node->data_dir . "/$file{t_k}") or die "t_k: $!";
	binmode $fh;
	# btm_magic, btm_version, behind the page's header of 24 bytes
	sysseek($fh, 24, 0);
	sysread($fh, my $meta, 8);
	is(join(' ', unpack('L2', $meta)), 0x053162 . ' 4', 'the meta page of an index of version 4');
	sysseek($fh, 28, 0);
	syswrite($fh, pack('L', 3));
	# btm_allequalimage, which only version 4 has
	sysseek($fh, 24 + 40, 0);
	syswrite($fh, pack('C', 0));
}
$node->start;
my ($old_off) = run($off, $shape{plain});
my ($old_issued) = ahead('an index of version 3', $old_off, $shape{plain}, 300);
cmp_ok($old_issued, '>', 300, 'and blocks are read ahead');
$node->safe_psql('postgres', 'REINDEX INDEX t_k');
$file{t_k} = $node->safe_psql('postgres', q{SELECT pg_relation_filepath('t_k')});

# writing while it reads ahead: leaves split, pages deleted
cold();
$s = session($node);
ask($s, 'BEGIN; DECLARE c NO SCROLL CURSOR FOR SELECT o.n, t.k FROM o JOIN t ON t.k = o.k WHERE o.n BETWEEN 10000 AND 12000 ORDER BY o.n');
my $got = ask($s, 'FETCH 100 FROM c');
$node->safe_psql('postgres', 'INSERT INTO t SELECT k, 0, repeat(\'y\', 400) FROM generate_series(1, 100000) k; DELETE FROM t WHERE k BETWEEN 30000 AND 60000; VACUUM t');
$got .= "\n" . ask($s, 'FETCH ALL FROM c');
ask($s, 'ROLLBACK');
my %seen;
$seen{$_}++ foreach split /\n/, $got;
is(scalar(grep { $_ > 1 } values %seen), 0, 'no row twice while the index changes');
is(scalar(keys %seen), 2001, 'and none missing');
close_session($s);

unlike(server_log($node), qr/WARNING|leak|TRAP|PANIC/, 'no complaint in the log');
$node->stop;
done_testing();

# A cold scan stands in the middle, with reads under way, while another session
# changes the table and its indexes under it. With look-ahead and without, the
# scan returns the same rows, the other session waits for the same things, and
# the same serializable transactions fail.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use NxmTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PostgreSQL::Test::Cluster->new('concurrent');
$node->init;
$node->append_conf('postgresql.conf', q{
shared_preload_libraries = 'nexusmem'
shared_buffers = 2MB
autovacuum = off
max_parallel_workers_per_gather = 0
max_pred_locks_per_transaction = 1000
enable_seqscan = off
enable_bitmapscan = off
enable_sort = off
});

if (!on_disk($node))
{
	plan skip_all => 'the data directory lies in memory: nothing is ever read from a disk';
}

$node->start;
# the index comes first in the few buffers, the table from the disk
$node->safe_psql('postgres', q{
CREATE EXTENSION nexusmem;
CREATE FUNCTION fresh() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	DROP TABLE IF EXISTS t;
	CREATE TABLE t AS SELECT i AS id, i * 7919 % 6007 AS k, 0 AS n, repeat('x', 400) AS pad
		FROM generate_series(1, 6000) AS i;
	CREATE INDEX t_k ON t (k);
	CREATE INDEX t_n ON t (n);
END $$;
CREATE PROCEDURE cold() LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE format('COPY (SELECT 1) TO PROGRAM %L', 'cat >/dev/null; dd oflag=nocache conv=notrunc,fdatasync count=0 status=none of=' || pg_relation_filepath('t'));
END $$});
my $reader = session($node);
my $writer = session($node);
my %issued;

sub start
{
	my ($on, $begin, $order) = @_;
	$node->safe_psql('postgres', 'SELECT fresh(); VACUUM (FREEZE, ANALYZE) t; CHECKPOINT; CALL cold(); SELECT count(k) FROM (SELECT k FROM t WHERE k >= 0 ORDER BY k LIMIT 1) s');
	ask($reader, "SET nexusmem.enable_prefetch = $on");
	ask($reader, 'SELECT 1');
	ask($reader, $begin);
	ask($reader, "DECLARE c SCROLL CURSOR FOR SELECT id, k, n, left(pad, 1) FROM t WHERE k > 500 ORDER BY k $order");
	return ask($reader, 'FETCH 100 FROM c');
}

# in_middle($name, $sql, %options): with look-ahead off and on, the scan around $sql
sub in_middle
{
	my ($name, $sql, %o) = @_;
	my %rows;
	my %other;
	foreach my $on ('off', 'on')
	{
		my $before = ask($reader, 'SELECT sum(issued) FROM nexusmem.session_prefetch()');
		$rows{$on} = start($on, $o{begin} // 'BEGIN', $o{order} // '');
		$other{$on} = '';
		if ($o{waits})
		{
			# it must not end before the reader does
			send_query($writer, join(";\n", split /;\s*/, $sql));
			ok($node->poll_query_until('postgres', "SELECT wait_event_type = 'Lock' FROM pg_stat_activity WHERE pid = $writer->{pid}"),
				"$name: waits, look-ahead $on");
		}
		else
		{
			$other{$on} .= ask($writer, $_) foreach split /;\s*/, $sql;
		}
		$rows{$on} .= ask($reader, $_) foreach ('FETCH 200 FROM c', 'FETCH BACKWARD 150 FROM c', 'FETCH 3000 FROM c', 'FETCH LAST FROM c', 'FETCH BACKWARD 500 FROM c');
		$rows{$on} .= ask($reader, 'COMMIT');
		if ($o{waits})
		{
			$other{$on} = answer($writer);
		}
		$rows{$on} .= ask($reader, 'SELECT count(*), sum(k), sum(n) FROM (SELECT k, n FROM t WHERE k > 0 AND pad IS NOT NULL ORDER BY k) s');
		$issued{$on} += ask($reader, 'SELECT sum(issued) FROM nexusmem.session_prefetch()') - $before;
	}
	ok($rows{on} eq $rows{off} && length $rows{on} > 10000, "$name: same rows");
	is($other{on}, $other{off}, "$name: same for the other session");
	return $other{on};
}

in_middle('nothing', 'SELECT 1');
in_middle('backward', 'SELECT 1', order => 'DESC');
in_middle('delete and vacuum', 'DELETE FROM t WHERE k BETWEEN 510 AND 3000; VACUUM t');
in_middle('delete and vacuum, repeatable read', 'DELETE FROM t WHERE k BETWEEN 510 AND 3000; VACUUM t', begin => 'BEGIN ISOLATION LEVEL REPEATABLE READ');
in_middle('delete of the end and vacuum', 'DELETE FROM t WHERE id > 100; VACUUM t');
in_middle('page splits', q{INSERT INTO t SELECT 10000 + i, 500 + i % 900, 1, 'new' FROM generate_series(1, 9000) AS i});
in_middle('page splits, backward', q{INSERT INTO t SELECT 10000 + i, 500 + i * 7 % 5500, 1, 'new' FROM generate_series(1, 9000) AS i}, order => 'DESC');
in_middle('update', 'UPDATE t SET n = n + 1 WHERE k % 2 = 0; VACUUM t');
in_middle('update of the key', 'UPDATE t SET k = k + 6007 WHERE k % 3 = 0; VACUUM t');
in_middle('a new index', 'CREATE INDEX t_new ON t (k, id)');
in_middle('REINDEX CONCURRENTLY', 'REINDEX INDEX CONCURRENTLY t_k', waits => 1);
in_middle('DROP INDEX CONCURRENTLY', 'DROP INDEX CONCURRENTLY t_n', waits => 1);
in_middle('DROP INDEX of the scan', 'BEGIN; DROP INDEX t_k; ROLLBACK', waits => 1);
in_middle('TRUNCATE', 'BEGIN; TRUNCATE t; ROLLBACK', waits => 1);
in_middle('VACUUM FULL', 'VACUUM FULL t', waits => 1);
in_middle('ALTER TABLE', 'ALTER TABLE t ALTER pad TYPE varchar', waits => 1);
is($issued{off}, 0, 'off read nothing ahead');
cmp_ok($issued{on}, '>', 1000, "on did ($issued{on} blocks)");

# write skew: each reads what the other writes, and one of them must fail
foreach my $skew (1, 0)
{
	my %answers;
	foreach my $on ('off', 'on')
	{
		$node->safe_psql('postgres', 'SELECT fresh(); VACUUM (FREEZE, ANALYZE) t; CHECKPOINT; CALL cold()');
		my @s = ($reader, $writer);
		my @read = ('BETWEEN 100 AND 160', 'BETWEEN 4000 AND 4060');
		my @write = $skew ? (4030, 130) : (2000, 3000);
		foreach my $i (0, 1)
		{
			ask($s[$i], "SET nexusmem.enable_prefetch = $on");
			ask($s[$i], 'BEGIN ISOLATION LEVEL SERIALIZABLE');
			$answers{$on} .= ask($s[$i], "SELECT count(*), sum(n) FROM (SELECT n FROM t WHERE k $read[$i] AND pad IS NOT NULL ORDER BY k) s") . ' ';
		}
		$answers{$on} .= ask($s[$_], "UPDATE t SET n = n + 1 WHERE k = $write[$_]") . ' ' foreach (0, 1);
		$answers{$on} .= ask($s[$_], 'COMMIT') . ' ' foreach (0, 1);
	}
	my $what = $skew ? 'write skew' : 'writes elsewhere';
	is($answers{on}, $answers{off}, "serializable, $what: same answers");
	($skew ? \&like : \&unlike)->($answers{on}, qr/could not serialize/, "serializable, $what: " . ($skew ? 'one fails' : 'both commit'));
}

# a cancel by somebody else, in the middle of a read
foreach my $i (1 .. 3)
{
	$node->safe_psql('postgres', 'CALL cold()');
	ask($reader, 'SET nexusmem.enable_prefetch = on');
	my $lock = session($node);
	ask($lock, 'BEGIN');
	ask($lock, 'SELECT pg_advisory_lock(1)');
	# the 40th row waits for a lock, with reads under way
	send_query($reader, "SELECT count(*) FROM (SELECT CASE WHEN k = 1040 THEN pg_advisory_lock(1) END FROM t WHERE k > 1000 AND pad <> '' ORDER BY k) s");
	$node->poll_query_until('postgres', "SELECT wait_event = 'advisory' FROM pg_stat_activity WHERE pid = $reader->{pid}");
	$node->safe_psql('postgres', "SELECT pg_cancel_backend($reader->{pid})");
	my $answer = answer($reader);
	like($answer, qr/canceling statement due to user request/, 'cancelled in the middle') if $i == 1;
	close_session($lock);
}
is(ask($reader, 'SELECT issued = used + wasted AND wasted > 0 FROM nexusmem.session_prefetch() WHERE kind = \'index\''), 't', 'what was under way counts as wasted');
close_session($_) foreach ($reader, $writer);
unlike(server_log($node), qr/WARNING|TRAP|PANIC|leak/, 'no complaint in the log');
$node->stop;
done_testing();

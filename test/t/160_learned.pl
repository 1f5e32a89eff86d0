# Learned look-ahead: what is recorded, that it survives, that it reads ahead, and that
# nothing that happens to a relation makes it raise an error or wait.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use NxmBuild;
use NxmTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PostgreSQL::Test::Cluster->new('learned');
$node->init(allows_streaming => 1);
$node->append_conf('postgresql.conf', q{
shared_preload_libraries = 'nexusmem'
shared_buffers = 32MB
autovacuum = off
jit = off
});
$node->start;
if (!on_disk($node))
{
	plan skip_all => 'the data directory lies in memory: nothing is ever read from a disk';
}

my $pages = 40;
$node->safe_psql('postgres', <<'SQL');
CREATE EXTENSION nexusmem;
SELECT setseed(0.5);
CREATE TABLE customers AS SELECT k, repeat('c', 900) AS pad FROM (SELECT k FROM generate_series(0, 9999) k ORDER BY hashint4(k)) s;
CREATE TABLE orders AS SELECT k, repeat('o', 900) AS pad FROM (SELECT k FROM generate_series(0, 9999) k ORDER BY hashint4(k + 7)) s;
CREATE TABLE lines AS SELECT k, repeat('l', 900) AS pad FROM (SELECT k FROM generate_series(0, 9999) k ORDER BY hashint4(k + 77)) s;
ALTER TABLE customers ADD PRIMARY KEY (k);
ALTER TABLE orders ADD PRIMARY KEY (k);
ALTER TABLE lines ADD PRIMARY KEY (k);
VACUUM (FREEZE, ANALYZE) customers, orders, lines;
-- the rows of a page, as far as the tables are named
CREATE FUNCTION page(page int, VARIADIC tables text[]) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	t text; key int; row text; digest text := '';
BEGIN
	FOR i IN 0 .. 23 LOOP
		t := (ARRAY['customers', 'orders', 'lines'])[1 + i % 3];
		key := abs(hashint4(page * 100 + i)) % 10000;
		CONTINUE WHEN t <> ALL (tables);
		CASE t
			WHEN 'customers' THEN SELECT pad INTO row FROM customers WHERE k = key;
			WHEN 'orders' THEN SELECT pad INTO row FROM orders WHERE k = key;
			WHEN 'lines' THEN SELECT pad INTO row FROM lines WHERE k = key;
		END CASE;
		digest := md5(digest || row || key);
	END LOOP;
	RETURN digest;
END $$;
CREATE FUNCTION known() RETURNS bigint LANGUAGE sql AS $$
SELECT count(*) FROM generate_series(0, 1200) b, LATERAL nexusmem.predictor_predict('customers', b) $$;
CHECKPOINT;
SQL
my $paths = q{SELECT pg_relation_filepath(c) FROM unnest('{customers,orders,lines,customers_pkey,orders_pkey,lines_pkey}'::regclass[]) c};
my @files = split /\n/, $node->safe_psql('postgres', $paths);
my $saved = $node->data_dir . '/pg_nexusmem/learned';
my $dir = PostgreSQL::Test::Utils::tempdir();
my %clock = clock_to_set($dir);
my $where = q{SELECT state FROM nexusmem.status WHERE feature = 'learned look-ahead'};

# cold([mode]): restarts the server with the tables in no cache, and its clock right
sub cold
{
	my ($n, $mode) = @_;
	$n->stop($mode // 'fast');
	evict($n, @files);
	unlink "$dir/back";
	local @ENV{keys %clock} = values %clock;
	$n->start;
	return;
}
sub active
{
	my ($n) = @_;
	return $n->poll_query_until('postgres', $where, 'active');
}
# run($tables, $order): the digest of all pages in an order, and the session's counts
sub run
{
	my ($n, $tables, $order) = @_;
	my $got = $n->safe_psql('postgres', <<SQL);
SET statement_timeout = '${PostgreSQL::Test::Utils::timeout_default}s';
SELECT md5(string_agg(d, ',' ORDER BY p)) FROM (SELECT p, page(p, $tables) AS d FROM (SELECT p FROM generate_series(1, $pages) p ORDER BY $order) o OFFSET 0) s;
SELECT issued, used, wasted, skipped FROM nexusmem.session_prefetch() WHERE kind = 'learned';
SQL
	return $got =~ /^(\w+)\n(\d+)\|(\d+)\|(\d+)\|(\d+)$/m;
}
my $all = q{'customers', 'orders', 'lines'};
# settled(): how much is known, when the sessions before have ended: what they missed last is
# recorded before they leave pg_stat_activity.
sub settled
{
	wait_until($node, q{SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()});
	return $node->safe_psql('postgres', 'SELECT known()');
}

# off
is($node->safe_psql('postgres', $where), 'off', 'off is the default');
is($node->safe_psql('postgres', 'SELECT known()'), 0, 'nothing is known then');
cold($node);
my ($rows, $none) = run($node, $all, 'p');
is($none, 0, 'nothing is predicted then');
ok(!-e $saved, 'and nothing saved');

# on by a reload, learns
$node->append_conf('postgresql.conf', 'nexusmem.enable_learned_prefetch = on');
cold($node);
ok(active($node), 'status tells that it is on');
my ($taught) = run($node, $all, 'p');
is($taught, $rows, 'learning: same rows');
my $known = $node->safe_psql('postgres', 'SELECT known()');
cmp_ok($known, '>', 100, 'what was missed is known');
is($node->safe_psql('postgres', q{SELECT count(DISTINCT relid) >= 3 FROM generate_series(0, 1200) b, LATERAL nexusmem.predictor_predict('customers', b)}), 't',
	'across relations');
is($node->safe_psql('postgres', q{SELECT bool_and(confidence BETWEEN 0 AND 1) FROM generate_series(0, 1200) b, LATERAL nexusmem.predictor_predict('customers', b)}), 't',
	'with a confidence');

# a clean restart; reads ahead
cold($node);
ok(-e $saved, 'it was saved');
is((stat $saved)[2] & 0777, 0600, 'for nobody else to read');
ok(active($node), 'status after a restart');
cmp_ok($node->safe_psql('postgres', 'SELECT known()'), '>=', $known * 0.9, 'a restart keeps what was known');
my ($issued, $used) = reads_ahead('reading ahead', $rows, sub { $_[0] > 200 }, sub {
	cold($node);
	active($node);
	# each round in another order takes some of what was known
	$known = $node->safe_psql('postgres', 'SELECT known()');
	$node->safe_psql('postgres', 'SELECT nexusmem.stat_prefetch_reset()');
	return run($node, $all, 'hashint4(p)');
});
cmp_ok($issued, '>', 200, "blocks are read ahead ($issued)");
cmp_ok($used, '>', $issued * 0.6, "and most are used ($used)");
ok($node->poll_query_until('postgres', q{SELECT count(*) >= 3 AND bool_and(issued = used + wasted) FROM nexusmem.stat_prefetch WHERE kind = 'learned'}),
	'stat_prefetch has them by relation');

# a crash; a worker that is ended
cold($node, 'immediate');
ok(active($node), 'status after a crash');
cmp_ok($node->safe_psql('postgres', 'SELECT known()'), '>=', $known * 0.9, 'a crash keeps what was saved');
my $worker = $node->safe_psql('postgres', q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'nexusmem memory'});
unlink $saved;
run($node, $all, 'hashint4(p + 9)');
$node->safe_psql('postgres', "SELECT pg_terminate_backend($worker)");
ok($node->poll_query_until('postgres', qq{SELECT count(*) = 1 FROM pg_stat_activity WHERE backend_type = 'nexusmem memory' AND pid <> $worker}),
	'the worker is started again');
ok(-e $saved, 'the worker has saved before it ended');

# relations that are gone, shorter, or locked, while they are predicted
sub foretell_lines
{
	my ($name) = @_;
	@files = split /\n/, $node->safe_psql('postgres', $paths);
	my $foretold = 0;
	# twice is enough as a rule; what is out of date counts against the first ones
	for (my $rounds = 0; $rounds < 2 || ($rounds < 6 && $foretold <= 50); $rounds++)
	{
		cold($node);
		active($node);
		run($node, $all, 'p');
		$foretold = $node->safe_psql('postgres', q{SELECT count(*) FROM generate_series(0, 1200) b, LATERAL (SELECT * FROM nexusmem.predictor_predict('customers', b) UNION ALL SELECT * FROM nexusmem.predictor_predict('orders', b)) p WHERE p.relid = 'lines'::regclass AND p.confidence >= 0.3});
	}
	cmp_ok($foretold, '>', 50, "$name: it is foretold");
	return;
}
cold($node);
ok(active($node), 'status');
my ($fewer) = run($node, q{'customers', 'orders'}, 'p');
foretell_lines('a relation to be locked');
my $from = -s $node->logfile;
cold($node);
active($node);
my $locker = session($node);
ask($locker, 'BEGIN; LOCK lines IN ACCESS EXCLUSIVE MODE');
my ($got, $i_locked) = run($node, q{'customers', 'orders'}, 'hashint4(p)');
is($got, $fewer, 'a locked relation: same rows, no wait');
is($node->safe_psql('postgres', q{SELECT count(*) FROM pg_locks WHERE NOT granted}), 0, 'nobody waits for it');
ask($locker, 'COMMIT');
close_session($locker);
$node->safe_psql('postgres', 'CREATE TABLE keep AS TABLE lines');
foretell_lines('a relation to be truncated');
$node->safe_psql('postgres', 'TRUNCATE lines');
cold($node);
active($node);
$node->safe_psql('postgres', 'SELECT nexusmem.stat_prefetch_reset()');
($got) = run($node, q{'customers', 'orders'}, 'hashint4(p + 1)');
is($got, $fewer, 'a truncated relation: same rows');
is($node->safe_psql('postgres', q{SELECT count(*) FROM nexusmem.stat_prefetch WHERE kind = 'learned' AND relid = 'lines'::regclass}), 0,
	'and no block past its end is asked for');
$node->safe_psql('postgres', 'INSERT INTO lines SELECT * FROM keep ORDER BY hashint4(k + 77); CHECKPOINT');
foretell_lines('a relation to be dropped');
$node->safe_psql('postgres', 'DROP TABLE lines');
cold($node);
active($node);
($got) = run($node, q{'customers', 'orders'}, 'hashint4(p + 2)');
is($got, $fewer, 'a dropped relation: same rows');

# a file that somebody took away: the lookups that do not need it go on
$node->safe_psql('postgres', q{CREATE TABLE lines AS SELECT * FROM keep ORDER BY hashint4(k + 77); ALTER TABLE lines ADD PRIMARY KEY (k); VACUUM (FREEZE, ANALYZE) lines; CHECKPOINT});
@files = split /\n/, $node->safe_psql('postgres', $paths);
cold($node);
active($node);
my ($full) = run($node, $all, 'p');
is($full, $rows, 'a new table: same rows');
my $heap = $node->data_dir . '/' . $node->safe_psql('postgres', q{SELECT pg_relation_filepath('lines')});
cold($node);
active($node);
rename $heap, "$heap.away";
($got) = run($node, q{'customers', 'orders'}, 'hashint4(p + 3)');
is($got, $fewer, 'a relation without its file: same rows');
rename "$heap.away", $heap;
unlike(server_log($node, $from), qr/ERROR|WARNING|TRAP|leak/, 'no complaint in the log');

# another database, dropped
$node->safe_psql('postgres', 'CREATE DATABASE other TEMPLATE postgres');
cold($node);
active($node);
is($node->safe_psql('other', "SELECT page(1, $all) IS NOT NULL"), 't', 'another database learns');
is($node->psql('postgres', q{SET statement_timeout = '120s'; DROP DATABASE other}, on_error_stop => 1), 0, 'DROP DATABASE is not delayed');

# a hot standby, promoted
cold($node);
active($node);
$node->backup('b');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($node, 'b', has_streaming => 1);
# both have theirs at the same time, in a container in a /dev/shm of 64 MB
$standby->append_conf('postgresql.conf', 'nexusmem.predictor_memory = 4MB');
$standby->start;
$node->wait_for_catchup($standby);
cold($standby);
ok(active($standby), 'standby: status');
cmp_ok($standby->safe_psql('postgres', 'SELECT known()'), '>', 0, 'standby: it knows what its primary knew');
my ($sissued) = reads_ahead('standby', $rows, sub { $_[0] > 0 }, sub {
	cold($standby);
	active($standby);
	return run($standby, $all, 'hashint4(p + 4)');
});
cmp_ok($sissued, '>', 0, 'standby: blocks are read ahead');
$standby->promote;
cmp_ok($standby->safe_psql('postgres', 'SELECT known()'), '>', 0, 'promoted: nothing is forgotten');
$standby->stop;

# reset; the file goes at once, whatever the worker comes to
my $busy = $node->safe_psql('postgres', q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'nexusmem memory'});
ok(-e $saved, 'reset: a file is there');
kill 'STOP', $busy;
$node->safe_psql('postgres', 'SELECT nexusmem.predictor_reset()');
ok(!-e $saved, 'reset: and goes');
kill 'CONT', $busy;
is($node->safe_psql('postgres', 'SELECT known()'), 0, 'reset: nothing is known');
# not by status, which tells of an earlier save too
ok($node->poll_query_until('postgres', q{SELECT size > 0 FROM pg_stat_file('pg_nexusmem/learned', true)}), 'reset: the file is written');
cold($node, 'immediate');
active($node);
is($node->safe_psql('postgres', 'SELECT known()'), 0, 'reset: nor after a crash');
# where it is switched off nothing has been loaded
ok(-e $saved, 'reset: the file is kept');
$node->safe_psql('postgres', 'ALTER SYSTEM SET nexusmem.enable_learned_prefetch = off');
$node->restart;
$node->safe_psql('postgres', 'SELECT nexusmem.predictor_reset()');
ok(!-e $saved, 'reset: switched off, the file goes');
$node->safe_psql('postgres', 'ALTER SYSTEM RESET nexusmem.enable_learned_prefetch');
$node->restart;

# refused(what, message, \&damage): a file that is not loaded
sub refused
{
	my ($what, $message, $damage) = @_;
	cold($node);
	active($node);
	run($node, $all, 'p');
	$node->stop;
	unlink "$saved.refused";
	$damage->($saved);
	my $at = -s $node->logfile;
	$node->start;
	# degraded alone it is as well while its memory is being made
	ok($node->poll_query_until('postgres', q{SELECT state = 'degraded' AND detail ~ 'saved ones were not loaded' AND hint ~ 'log' FROM nexusmem.status WHERE feature = 'learned look-ahead'}), "$what: status tells");
	like(server_log($node, $at), qr/WARNING:  learned sequences in file "pg_nexusmem\/learned" were not loaded: $message/, "$what: a warning");
	ok(-e "$saved.refused", "$what: the file is kept beside");
	is($node->safe_psql('postgres', 'SELECT known()'), 0, "$what: nothing was loaded");
	return;
}
sub change
{
	my ($file, $offset, $bytes) = @_;
	open my $fh, '+<:raw', $file or die;
	seek $fh, $offset, 0;
	print $fh $bytes;
	close $fh;
	return;
}
refused('a changed byte', 'its checksum is wrong', sub { change($_[0], (-s $_[0]) / 2, "\xff\x00\xff") });
refused('a torn file', 'it has \d+ bytes instead of', sub { truncate $_[0], (-s $_[0]) / 2 });
refused('another file', 'it is not a file of learned sequences', sub { change($_[0], 0, 'NXMSAVE') });
refused('a changed header', 'the checksum of its header', sub { change($_[0], 24, "\x01\x02") });
refused('an empty file', 'it is truncated', sub { truncate $_[0], 0 });

# a load that takes minutes, as the worker is to end: it is given up, and the file stays
sub crc32c
{
	my ($bytes) = @_;
	my $crc = 0xffffffff;
	foreach my $byte (unpack 'C*', $bytes)
	{
		$crc ^= $byte;
		$crc = $crc >> 1 ^ ($crc & 1 ? 0x82f63b78 : 0) for 1 .. 8;
	}
	return $crc ^ 0xffffffff;
}
sub loading
{
	my $pid;
	for (1 .. 10 * $PostgreSQL::Test::Utils::timeout_default)
	{
		$pid = $node->safe_psql('postgres', q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'nexusmem memory'});
		return $pid if grep { (readlink($_) // '') =~ /pg_nexusmem\/learned/ } glob "/proc/$pid/fd/*";
	}
	die 'the worker does not load';
}
cold($node);
active($node);
run($node, $all, 'p');
$known = settled();
$node->stop;
unlink "$saved.refused";
rename $saved, "$saved.good";
my $long = 1 << 40;
my $header = substr(PostgreSQL::Test::Utils::slurp_file("$saved.good"), 0, 52);
substr($header, 24, 8) = pack 'Q', $long;
append_to_file($saved, $header . pack('L', crc32c($header)));
truncate $saved, $long or die "$saved: $!";
$from = -s $node->logfile;
$node->start;
loading();
$node->stop;
is(-s $saved, $long, 'a stop while it is loaded: the file stays');
$node->start;
$worker = loading();
rename "$saved.good", $saved;
$node->safe_psql('postgres', "SELECT pg_terminate_backend($worker)");
ok(active($node), 'a worker that is ended while it loads: the next one loads');
is($node->safe_psql('postgres', 'SELECT known()'), $known, 'a worker that is ended while it loads: all of it');
ok(!-e "$saved.refused", 'a load that was given up refuses no file');
unlike(server_log($node, $from), qr/learned sequences|worker failed/, 'and is no complaint in the log');

# off again: what is known stays, and nothing is added
cold($node);
active($node);
run($node, $all, 'p');
$known = settled();
my $s = session($node);
ask($s, "SELECT page(1, $all)");
$node->append_conf('postgresql.conf', 'nexusmem.enable_learned_prefetch = off');
$node->reload;
ok($node->poll_query_until('postgres', $where, 'off'), 'off by a reload');
ask($s, "SELECT page(900, $all)");
is($node->safe_psql('postgres', 'SELECT known()'), $known, 'what was known is not lost');
close_session($s);

# between two shutdowns: saved at the interval, dropped databases forgotten before
my $relations = q{SELECT substring(detail from 'associations, of (\d+) relations') FROM nexusmem.status WHERE feature = 'learned look-ahead'};
$node->append_conf('postgresql.conf', q{nexusmem.enable_learned_prefetch = on});
cold($node);
active($node);
my $here = $node->safe_psql('postgres', $relations);
$node->safe_psql('postgres', 'CREATE DATABASE other TEMPLATE postgres');
$node->safe_psql('other', "SELECT page(1, $all)");
cmp_ok($node->safe_psql('postgres', $relations), '>', $here, 'relations of another database are known');
$node->safe_psql('postgres', 'DROP DATABASE other');
unlink $saved;
mkdir "$saved.tmp" or die;
$node->append_conf('postgresql.conf', 'nexusmem.predictor_save_interval = 1s');
$node->reload;
# more is recorded by each of the questions: else a save would be of nothing new
my $missing = 2000;
sub eventually
{
	my ($question, $expected) = @_;
	for (1 .. 10 * $PostgreSQL::Test::Utils::timeout_default)
	{
		$node->safe_psql('postgres', "SELECT page(" . $missing++ . ", $all)");
		return 1 if $node->safe_psql('postgres', $question) eq $expected;
	}
	return 0;
}
ok(eventually(q{SELECT state || coalesce(substring(detail from 'were not saved: could not create the file'), '') FROM nexusmem.status WHERE feature = 'learned look-ahead'}, 'degradedwere not saved: could not create the file'),
	'interval: a file that cannot be written degrades it');
rmdir "$saved.tmp" or die;
ok(eventually($where, 'active'), 'interval: and the next one that can mends it');
ok(-s $saved, 'interval: it was saved');
is($node->safe_psql('postgres', $relations), $here, 'interval: a dropped database is forgotten');
append_to_file("$dir/back", 'x');
unlink $saved;
ok(eventually(q{SELECT size > 0 FROM pg_stat_file('pg_nexusmem/learned', true)}, 't'), 'interval: saved also after the clock was set back');
$node->append_conf('postgresql.conf', 'nexusmem.predictor_save_interval = 5min');

# what workers have read is no miss of the leader's
$node->safe_psql('postgres', <<'SQL');
CREATE FUNCTION here(int) RETURNS bool LANGUAGE plpgsql PARALLEL RESTRICTED AS 'BEGIN RETURN true; END';
CREATE TABLE small AS SELECT k, repeat('f', 100) AS pad FROM generate_series(0, 9999) k;
ALTER TABLE small ADD PRIMARY KEY (k);
VACUUM (FREEZE, ANALYZE) small;
SQL
cold($node);
active($node);
$node->safe_psql('postgres', 'SELECT nexusmem.predictor_reset()');
my $parallel = q{SELECT count(s.pad) FROM lines l LEFT JOIN small s ON s.k = l.k AND here(s.k)};
my $gathered = $node->safe_psql('postgres', <<SQL);
SET parallel_setup_cost = 0; SET parallel_tuple_cost = 0; SET min_parallel_table_scan_size = 0;
SET parallel_leader_participation = off; SET enable_hashjoin = off; SET enable_mergejoin = off; SET enable_material = off;
SET enable_memoize = off; SET enable_bitmapscan = off; SET enable_indexonlyscan = off;
-- small is cached from here on
SET enable_seqscan = off; SELECT count(pad) FROM small WHERE k >= 0; SELECT nexusmem.predictor_reset(); RESET enable_seqscan;
EXPLAIN $parallel;
$parallel;
SQL
like($gathered, qr/Nested Loop.*Gather.*Workers Planned.*Seq Scan on lines.*Index Scan using small_pkey.*^10000$/ms, 'a leader looks up what its workers find');
is($node->safe_psql('postgres', $relations), 0,
	'what workers have read is recorded for no tuple of the leader');

# limited(pid, bytes): lets a process map so many bytes more; as many as it likes
sub limited
{
	my ($pid, $bytes) = @_;
	my $status = PostgreSQL::Test::Utils::slurp_file("/proc/$pid/status");
	my ($size) = $status =~ /^VmSize:\s+(\d+) kB/m;
	my $limit = defined $bytes ? $size * 1024 + $bytes : 'unlimited';
	return system('prlimit', '--pid', $pid, "--as=$limit:") == 0;
}
SKIP:
{
	skip 'prlimit does not work here', 9 if system("prlimit --pid $$ --as=unlimited: 2>/dev/null") != 0;

	# a session that cannot map it
	my $poor = session($node);
	ok(limited($poor->{pid}, 8 << 20), 'a session that may not map so much');
	is(ask($poor, $where), 'degraded', 'a session that cannot map it says so');
	is(ask($poor, "SELECT count(*) FROM nexusmem.predictor_predict('customers', 1)"), 0, 'and knows nothing');
	is(ask($poor, 'SELECT reserved_bytes > 8000000 AND resident_bytes IS NULL FROM nexusmem.node_memory WHERE node IS NULL AND owner = ' . q{'learned sequences'}), 't', 'but how much there is');
	limited($poor->{pid});
	append_to_file("$dir/back", 'x');
	my $state = '';
	for (my $until = time + $PostgreSQL::Test::Utils::timeout_default; $state ne 'active' && time < $until;)
	{
		$state = ask($poor, $where);
	}
	is($state, 'active', 'later it can, by a clock that was set back');
	# what is swapped out is not resident
	my $resident = `cat /proc/swaps 2>/dev/null` =~ /^Filename.*\n\z/ ? '= used_bytes' : 'BETWEEN 1 AND used_bytes';
	is(ask($poor, "SELECT reserved_bytes = used_bytes AND resident_bytes $resident AND on_node_bytes IS NULL FROM nexusmem.node_memory WHERE node IS NULL AND owner = " . q{'learned sequences'}), 't', 'node_memory asks the kernel then');
	close_session($poor);

	# an error while the file is open
	$node->append_conf('postgresql.conf', 'nexusmem.enable_learned_prefetch = off');
	run($node, $all, 'p');
	cold($node);
	$node->poll_query_until('postgres', q{SELECT count(*) = 1 FROM pg_stat_activity WHERE backend_type = 'nexusmem memory'});
	$worker = $node->safe_psql('postgres', q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'nexusmem memory'});
	# enough for the predictor, not for reading the file
	ok(limited($worker, (16 << 20) + 200000), 'a worker that may not map much more');
	$node->append_conf('postgresql.conf', 'nexusmem.enable_learned_prefetch = on');
	$node->reload;
	ok($node->poll_query_until('postgres', q{SELECT detail ~ 'worker failed: out of memory' FROM nexusmem.status WHERE feature = 'learned look-ahead'}), 'an error of the worker is told');
	is(scalar(grep { (readlink($_) // '') =~ /pg_nexusmem/ } glob "/proc/$worker/fd/*"), 0, 'and leaves no file open');
	limited($worker);
}

# a btree that is not the one that look-ahead was compiled for
SKIP:
{
	skip 'no compiler', 4 if !may_build();
	build("$dir/hooks", "'$FindBin::RealBin'/../modules/nxm_hooks/.", 'COPT=-Werror');
	cold($node);
	$node->safe_psql('postgres', "CREATE FUNCTION swell(regclass) RETURNS void LANGUAGE c STRICT AS '$dir/hooks/nxm_hooks', 'nxm_hooks_swell'");
	is($node->safe_psql('postgres', q{SET enable_seqscan = off; SET enable_bitmapscan = off;
		SELECT FROM swell('customers_pkey'); SELECT count(pad) FROM customers WHERE k < 1000}), 1000, 'another scan state: same rows');
	is($node->safe_psql('postgres', q{SELECT state, detail, hint FROM nexusmem.status WHERE feature = 'index look-ahead'}),
		'off|switched off by its self-check: the size of a btree scan\'s private state is not that of the PostgreSQL that nexusmem was built for|Rebuild nexusmem for this PostgreSQL.',
		'another scan state: index look-ahead sees it, and is off');
	is($node->safe_psql('postgres', q{SELECT state, detail, hint FROM nexusmem.status WHERE feature = 'learned look-ahead'}),
		'off|index look-ahead, which it needs, is off|Rebuild nexusmem for this PostgreSQL.',
		'another scan state: so is learned look-ahead');
}
cold($node);
active($node);
run($node, $all, 'p');
$node->stop;

# no memory of another kind: a worker that may make no file of its size
SKIP:
{
	skip 'prlimit does not work here', 3 if system("prlimit --pid $$ --fsize=unlimited: 2>/dev/null") != 0;
	$node->append_conf('postgresql.conf', "dynamic_shared_memory_type = mmap\nnexusmem.enable_learned_prefetch = off");
	$node->start;
	ok(workers_run($node), 'segments of kind mmap: the workers run');
	my $pid = $node->safe_psql('postgres', q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'nexusmem memory'});
	# in whole blocks: a write that is cut short gives no reason
	is(system('prlimit', "--pid=$pid", '--fsize=8388608:'), 0, 'one may make no large file');
	$node->append_conf('postgresql.conf', 'nexusmem.enable_learned_prefetch = on');
	$node->reload;
	ok($node->poll_query_until('postgres', q{SELECT detail ~ 'no memory for the learned predictor: .*File too large' AND hint ~ '^Give the server more shared memory, or lower nexusmem.predictor_memory' FROM nexusmem.status WHERE feature = 'learned look-ahead'}),
		'status gives a hint that is not of /dev/shm');
	$node->append_conf('postgresql.conf', 'dynamic_shared_memory_type = posix');
	$node->stop;
}

# /dev/shm too small, in a mount namespace with a small one of its own
SKIP:
{
	skip 'not allowed to mount here', 8 if !may_mount();
	my $at = -s $node->logfile;
	unlink "$dir/back";
	{
		local @ENV{keys %clock} = values %clock;
		is(start_in_small_shm($node, 24, 'head -c 16000000 /dev/zero >/dev/shm/filler'), 0, '/dev/shm too full: the server starts');
	}
	ok($node->poll_query_until('postgres', q{SELECT state = 'degraded' AND detail ~ 'no memory for the learned predictor: .*No space left' AND hint ~ '/dev/shm' FROM nexusmem.status WHERE feature = 'learned look-ahead'}),
		'/dev/shm too full: status tells');
	is($node->safe_psql('postgres', 'SELECT known()'), 0, '/dev/shm too full: nothing is known');
	is($node->safe_psql('postgres', q{SELECT count(*) FROM nexusmem.node_memory WHERE owner = 'learned sequences'}), 0, '/dev/shm too full: and nothing taken');
	is((run($node, $all, 'p'))[0], $rows, '/dev/shm too full: same rows');
	# a worker tries again when it starts, and else each minute, and when the clock was set back
	$node->safe_psql('postgres', q{COPY (SELECT WHERE false) TO PROGRAM 'rm /dev/shm/filler'});
	append_to_file("$dir/back", 'x');
	$node->safe_psql('postgres', %clock ? 'SELECT pg_reload_conf()' : q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'nexusmem memory'});
	ok(active($node), '/dev/shm with room again: it is made');
	cmp_ok($node->safe_psql('postgres', 'SELECT known()'), '>', 0, 'and what was saved is loaded');
	unlike(server_log($node, $at), qr/terminated by signal|TRAP|PANIC/, 'no SIGBUS');
	$node->stop;
}

# Of a nested loop of many scans each has its own share recorded, and no more.
unlink "$dir/back";
$node->append_conf('postgresql.conf', "shared_buffers = 1MB\njoin_collapse_limit = 1");
$node->start;
my $tables = 50;
my $chain = join ' ', map { "JOIN c$_ USING (k)" } 1 .. $tables;
$node->safe_psql('postgres', <<SQL);
CREATE TABLE driver AS SELECT k FROM generate_series(1, 400) k ORDER BY hashint4(k);
DO \$\$ BEGIN
	FOR i IN 1 .. $tables LOOP
		EXECUTE format('CREATE TABLE c%s AS SELECT k, repeat(''x'', 500) AS pad FROM generate_series(1, 400) k', i);
		EXECUTE format('CREATE INDEX ON c%s (k)', i);
	END LOOP; END \$\$;
SQL
ok(active($node), 'a small server');
my ($pads, $recorded, $distinct) = $node->safe_psql('postgres', <<SQL) =~ /^(\d+)\n(\d+)\|(\d+)$/m;
SET enable_seqscan = off; SET enable_bitmapscan = off; SET enable_hashjoin = off; SET enable_mergejoin = off;
SET enable_material = off; SET enable_memoize = off; SET enable_indexonlyscan = off;
SELECT FROM nexusmem.predictor_reset();
SELECT sum(length(c1.pad)) FROM driver $chain;
SELECT substring(detail FROM ': ([0-9]+) of'), substring(detail FROM 'of ([0-9]+) relations') FROM nexusmem.status WHERE feature = 'learned look-ahead';
SQL
is($pads, 400 * 500, "$tables scans in one another: the rows");
cmp_ok($recorded, '>', 5 * $tables, 'something is recorded');
cmp_ok($distinct, '>=', $tables, 'of each of them');
cmp_ok($recorded, '<=', 64 * ($tables + 1), 'and no more than its share');
$node->stop;
done_testing();

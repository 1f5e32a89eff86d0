# Learned look-ahead: what is recorded, that it survives, that it reads ahead, and that
# nothing that happens to a relation makes it raise an error or wait.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
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
my @files = split /\n/, $node->safe_psql('postgres', q{SELECT pg_relation_filepath(c) FROM unnest('{customers,orders,lines,customers_pkey,orders_pkey,lines_pkey}'::regclass[]) c});
my $saved = $node->data_dir . '/pg_nexusmem/learned';
my $where = q{SELECT state FROM nexusmem.status WHERE feature = 'learned look-ahead'};

# cold([mode]): restarts the server with the tables in no cache
sub cold
{
	my ($n, $mode) = @_;
	$n->stop($mode // 'fast');
	evict($n, @files);
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
SET statement_timeout = '60s';
SELECT md5(string_agg(d, ',' ORDER BY p)) FROM (SELECT p, page(p, $tables) AS d FROM (SELECT p FROM generate_series(1, $pages) p ORDER BY $order) o OFFSET 0) s;
SELECT issued, used, wasted, skipped FROM nexusmem.session_prefetch() WHERE kind = 'learned';
SQL
	return $got =~ /^(\w+)\n(\d+)\|(\d+)\|(\d+)\|(\d+)$/m;
}
my $all = q{'customers', 'orders', 'lines'};

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
$node->safe_psql('postgres', 'SELECT nexusmem.stat_prefetch_reset()');
my ($again, $issued, $used, $wasted) = run($node, $all, 'hashint4(p)');
is($again, $rows, 'reading ahead: same rows');
cmp_ok($issued, '>', 200, "blocks are read ahead ($issued)");
is($used + $wasted, $issued, 'issued = used + wasted');
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

# relations that are gone, shorter, or locked
cold($node);
ok(active($node), 'status');
my ($fewer) = run($node, q{'customers', 'orders'}, 'p');
my $from = -s $node->logfile;
cold($node);
active($node);
my $locker = session($node);
ask($locker, 'BEGIN; LOCK lines IN ACCESS EXCLUSIVE MODE');
my ($got, $i_locked) = run($node, q{'customers', 'orders'}, 'hashint4(p)');
is($got, $fewer, 'a locked relation: same rows, no wait');
is($node->safe_psql('postgres', q{SELECT count(*) FROM pg_locks WHERE NOT granted}), 0, 'nobody waits for it');
ask($locker, 'COMMIT');
$node->safe_psql('postgres', 'CREATE TABLE keep AS TABLE lines');
ask($locker, 'TRUNCATE lines');
cold($node);
active($node);
$node->safe_psql('postgres', 'SELECT nexusmem.stat_prefetch_reset()');
($got) = run($node, q{'customers', 'orders'}, 'hashint4(p + 1)');
is($got, $fewer, 'a truncated relation: same rows');
is($node->safe_psql('postgres', q{SELECT count(*) FROM nexusmem.stat_prefetch WHERE kind = 'learned' AND relid = 'lines'::regclass}), 0,
	'and no block past its end is asked for');
$node->safe_psql('postgres', 'DROP TABLE lines');
cold($node);
active($node);
($got) = run($node, q{'customers', 'orders'}, 'hashint4(p + 2)');
is($got, $fewer, 'a dropped relation: same rows');
close_session($locker);

# a file that somebody took away: the lookups that do not need it go on
$node->safe_psql('postgres', q{CREATE TABLE lines AS SELECT * FROM keep ORDER BY hashint4(k + 77); ALTER TABLE lines ADD PRIMARY KEY (k); VACUUM (FREEZE, ANALYZE) lines; CHECKPOINT});
@files = split /\n/, $node->safe_psql('postgres', q{SELECT pg_relation_filepath(c) FROM unnest('{customers,orders,lines,customers_pkey,orders_pkey,lines_pkey}'::regclass[]) c});
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
is($node->psql('postgres', q{SET statement_timeout = '30s'; DROP DATABASE other}, on_error_stop => 1), 0, 'DROP DATABASE is not delayed');

# a hot standby, promoted
cold($node);
active($node);
$node->backup('b');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($node, 'b', has_streaming => 1);
$standby->start;
$node->wait_for_catchup($standby);
cold($standby);
ok(active($standby), 'standby: status');
cmp_ok($standby->safe_psql('postgres', 'SELECT known()'), '>', 0, 'standby: it knows what its primary knew');
my ($srows, $sissued) = run($standby, $all, 'hashint4(p + 4)');
is($srows, $rows, 'standby: same rows');
cmp_ok($sissued, '>', 0, 'standby: blocks are read ahead');
$standby->promote;
cmp_ok($standby->safe_psql('postgres', 'SELECT known()'), '>', 0, 'promoted: nothing is forgotten');
$standby->stop;

# reset
$node->safe_psql('postgres', 'SELECT nexusmem.predictor_reset()');
is($node->safe_psql('postgres', 'SELECT known()'), 0, 'reset: nothing is known');
ok($node->poll_query_until('postgres', q{SELECT detail ~ 'saved at' FROM nexusmem.status WHERE feature = 'learned look-ahead'}),
	'reset: the file is written');
cold($node, 'immediate');
active($node);
is($node->safe_psql('postgres', 'SELECT known()'), 0, 'reset: nor after a crash');

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
	ok($node->poll_query_until('postgres', $where, 'degraded'), "$what: status tells");
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

# off again: what is known stays, and nothing is added
cold($node);
active($node);
run($node, $all, 'p');
$known = $node->safe_psql('postgres', 'SELECT known()');
my $s = session($node);
ask($s, "SELECT page(1, $all)");
$node->append_conf('postgresql.conf', 'nexusmem.enable_learned_prefetch = off');
$node->reload;
ok($node->poll_query_until('postgres', $where, 'off'), 'off by a reload');
ask($s, "SELECT page(900, $all)");
is($node->safe_psql('postgres', 'SELECT known()'), $known, 'what was known is not lost');
close_session($s);
$node->stop;
done_testing();

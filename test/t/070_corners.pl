# Corners: logins that fail in every way, processes that end while pinned, races of
# pinning and leaving, settings kept from another machine, one user and no
# superuser, drops that are undone or prepared, recovery conflicts, single-user mode.
use strict;
use warnings;
use FindBin;
use IO::Socket::UNIX;
use lib "$FindBin::RealBin/../perl";
use NxmTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PostgreSQL::Test::Cluster->new('corners');
$node->init(allows_streaming => 1);
$node->append_conf('postgresql.conf', q{
shared_preload_libraries = 'nexusmem'
nexusmem.num_nodes = 4
nexusmem.enable_numa_optimizations = on
max_connections = 100
max_prepared_transactions = 5
log_statement = none
shared_buffers = 4MB
enable_seqscan = off
enable_bitmapscan = off
enable_sort = off
});
$node->start;
$node->safe_psql('postgres', 'CREATE EXTENSION nexusmem');
sub q1 { return $node->safe_psql('postgres', $_[0]); }
# Are this many backends counted, besides the one that asks?
sub counted
{
	my ($n) = @_;
	return wait_until($node, 'SELECT sum(backends) FROM nexusmem.nodes', $n);
}
my ($out, $err);

# logins that fail: before, in and after authentication
q1(q{SET password_encryption = 'scram-sha-256'; CREATE ROLE scram LOGIN PASSWORD 'right'; CREATE ROLE full_up LOGIN CONNECTION LIMIT 0; CREATE ROLE fine LOGIN});
my $hba = slurp_file($node->data_dir . '/pg_hba.conf');
unlink($node->data_dir . '/pg_hba.conf');
$node->append_conf('pg_hba.conf', "local all scram scram-sha-256\nlocal all rejected reject\n$hba");
$node->reload;
my %failing = (
	'wrong password' => [ 'scram', 'postgres', qr/password authentication failed/ ],
	'rejected' => [ 'rejected', 'postgres', qr/rejects connection/ ],
	'no such role' => [ 'nobody', 'postgres', qr/does not exist/ ],
	'no such database' => [ 'fine', 'nowhere', qr/does not exist/ ],
	'too many connections' => [ 'full_up', 'postgres', qr/too many connections/ ],
);
foreach my $name (sort keys %failing)
{
	my ($role, $db, $message) = @{ $failing{$name} };
	local $ENV{PGPASSWORD} = 'wrong';
	for (1 .. 4)
	{
		IPC::Run::run([ 'psql', '-X', '-d', $node->connstr($db) . " user=$role", '-c', 'SELECT 1' ], '<', \'', '>', \$out, '2>', \$err);
	}
	like($err, $message, "$name: refused");
	ok(counted(1), "$name: nothing stays counted");
}
{
	local $ENV{PGPASSWORD} = 'right';
	my $s = session($node, 'postgres', user => 'scram');
	is(q1("SELECT count(*) FROM nexusmem.backends WHERE pid = $s->{pid} AND node IS NOT NULL"), 1, 'the right password: placed');
	close_session($s);
}

# a walsender comes and goes
$node->backup('b');
ok(counted(1), 'walsenders of a base backup are not counted when they have left');

# one that only ever sends is placed, and follows a reload
sub cpus_of
{
	my ($pid) = @_;
	my ($cpus) = slurp_file("/proc/$pid/status") =~ /^Cpus_allowed_list:\s*(\S+)/m;
	return $cpus;
}
sub set_pinning
{
	my ($on) = @_;
	q1("ALTER SYSTEM SET nexusmem.enable_numa_optimizations = $on");
	$node->reload;
	return $node->poll_query_until('postgres', 'SHOW nexusmem.enable_numa_optimizations', $on);
}
my ($all) = slurp_file('/proc/self/status') =~ /^Cpus_allowed_list:\s*(\S+)/m;
my $receiver = IPC::Run::start([ 'pg_receivewal', '-D', $node->archive_dir, '-d', $node->connstr('postgres'), '-n' ], '<', \'', '>&', \$out);
my $sender = q{FROM nexusmem.backends JOIN nexusmem.nodes USING (node) WHERE backend_type = 'walsender' AND cpus_allowed = cpus AND reason = 'background'};
ok($node->poll_query_until('postgres', "SELECT count(*) = 1 $sender"), 'a physical walsender is placed by the worker');
my $sender_pid = q1(q{SELECT pid FROM pg_stat_replication});
set_pinning('off');
ok($node->poll_query_until('postgres', "SELECT cpus_allowed = '$all' AND node IS NULL FROM nexusmem.backends WHERE pid = $sender_pid"), 'turned off: it has its CPUs back');
set_pinning('on');
ok($node->poll_query_until('postgres', "SELECT count(*) = 1 $sender"), 'turned on: it is placed again');

# a session that the worker pins while it still authenticates, begun while pinning
# was off, and its first statement comes when it is off again
SKIP:
{
	skip 'one CPU: every mask is the same', 4 if `nproc` + 0 < 2;
	q1(q{CREATE ROLE slow LOGIN PASSWORD 'right'});
	$hba = slurp_file($node->data_dir . '/pg_hba.conf');
	unlink($node->data_dir . '/pg_hba.conf');
	$node->append_conf('pg_hba.conf', "local all slow password\n$hba");
	set_pinning('off');
	my $sock = IO::Socket::UNIX->new(Peer => $node->host . '/.s.PGSQL.' . $node->port) or die "socket: $!";
	# reads messages up to one of this type
	my $expect = sub {
		my ($wanted) = @_;
		for (;;)
		{
			my ($head, $body) = ('', '');
			$sock->read($head, 5) == 5 or return;
			my ($type, $len) = unpack('aN', $head);
			$len == 4 or $sock->read($body, $len - 4);
			return $body if $type eq $wanted;
		}
	};
	my $startup = pack('N', 196608) . "user\0slow\0database\0postgres\0\0";
	$sock->print(pack('N', 4 + length $startup) . $startup);
	is(unpack('N', $expect->('R')), 3, 'a session is asked for its password');
	# of this server, for the same test may be running for another one
	my ($postmaster) = split /\n/, slurp_file($node->data_dir . '/postmaster.pid');
	my ($slow) = grep { (eval { slurp_file("/proc/$_/stat") } // '') =~ /\) \S $postmaster / && (eval { slurp_file("/proc/$_/cmdline") } // '') =~ /slow postgres .*authentication/ }
	  map { /(\d+)/ } glob '/proc/[0-9]*';
	set_pinning('on');
	for (1 .. 10 * $PostgreSQL::Test::Utils::timeout_default) { last if cpus_of($slow) ne $all; select(undef, undef, undef, 0.1); }
	isnt(cpus_of($slow), $all, 'and pinned by the worker meanwhile');
	$sock->print('p' . pack('N', 10) . "right\0");
	$expect->('Z');
	set_pinning('off');
	$node->poll_query_until('postgres', "SELECT cpus_allowed = '$all' FROM nexusmem.backends WHERE pid = $sender_pid");
	$sock->print('Q' . pack('N', 13) . "SELECT 1\0");
	ok(defined $expect->('Z'), 'off again, it runs a statement');
	is(cpus_of($slow), $all, 'and has all CPUs');
	$sock->close;
	set_pinning('on');
}
$receiver->signal('INT');
$receiver->finish;
ok(counted(1), 'it was never counted as a backend');

# placed twice, counted once
q1('ALTER ROLE fine SET nexusmem.preferred_node = 3');
my @s = map { session($node, 'postgres', user => 'fine') } 1 .. 5;
is(q1('SELECT backends >= 5 FROM nexusmem.nodes WHERE node = 3'), 't', 'five prefer node 3');
ok(counted(6), 'and are counted once each');
close_session($_) foreach @s;
ok(counted(1), 'and not after they left');

# pinning while they come and go
my $hammer = $node->basedir . '/hammer.sql';
append_to_file($hammer, q{
DO $$ DECLARE p int; BEGIN
	FOR p IN SELECT pid FROM pg_stat_activity WHERE application_name = 'comes and goes' LOOP
		PERFORM nexusmem.pin_backend(p, (random() * 3)::int);
	END LOOP;
END $$;
SELECT nexusmem.rebalance();
});
my $victim = $node->basedir . '/victim.sql';
append_to_file($victim, "SELECT 1;\n");
# off last: there nobody but the processes themselves sees to the counts
foreach my $on ('on', 'off')
{
	q1("ALTER SYSTEM SET nexusmem.enable_numa_optimizations = $on");
	$node->reload;
	$node->poll_query_until('postgres', 'SHOW nexusmem.enable_numa_optimizations', $on);
	# without rebalance() in the second round, for it also cleans up
	PostgreSQL::Test::Utils::system_log("sed -i /rebalance/d $hammer") if $on eq 'off';
	my ($o1, $o2) = ('', '');
	my $h = IPC::Run::start([ 'env', 'PGAPPNAME=hammer', 'pgbench', '-n', '-c', 2, '-T', 3, '-f', $hammer, $node->connstr('postgres') ], '<', \'', '>&', \$o1);
	my $v = IPC::Run::start([ 'env', 'PGAPPNAME=comes and goes', 'pgbench', '-n', '-C', '-c', 4, '-T', 3, '-f', $victim, $node->connstr('postgres') ], '<', \'', '>&', \$o2);
	$_->finish foreach ($h, $v);
	$o1 =~ s/^WARNING:  PID \d+ is not a server process$//mg;
	unlike("$o1$o2", qr/aborted|WARNING/, "pinning while backends come and go, pinning $on: no error");
	ok(counted($on eq 'on' ? 1 : 0), "and none stays counted, pinning $on");
}

# pinning is off now. A background process pinned by hand ends
my $launcher = q1(q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'autovacuum launcher'});
is(q1("SELECT nexusmem.pin_backend($launcher, 1)"), 't', 'a background process is pinned by hand');
q1('ALTER SYSTEM SET autovacuum = off');
$node->reload;
$node->poll_query_until('postgres', "SELECT count(*) FROM pg_stat_activity WHERE pid = $launcher", '0');
ok(counted(0), 'it ends, and is not counted any more');

# pinned by hand while pinning is off: its workers follow
my $leader = session($node);
my $cpu_count = q1('SELECT max(cpu_count) FROM nexusmem.nodes');
my $force = force_parallel($node);
q1(q{CREATE FUNCTION my_cpus() RETURNS text LANGUAGE plpgsql PARALLEL SAFE AS
	$$ BEGIN RETURN substring(pg_read_file('/proc/self/status') FROM 'Cpus_allowed_list:\s*(\S+)'); END $$});
ask($leader, "SET $force = on");
is(ask($leader, 'SELECT my_cpus()'), $all, "pinning off: a worker has all CPUs");
q1("SELECT nexusmem.pin_backend($leader->{pid}, 0)");
is(q1("SELECT count(*) > 0 FROM nexusmem.nodes WHERE cpus = '" . ask($leader, 'SELECT my_cpus()') . "'"), 't', 'its leader pinned by hand: one node');
q1("SELECT nexusmem.unpin_backend($leader->{pid})");
is(ask($leader, 'SELECT my_cpus()'), $all, 'unpinned: all CPUs');
close_session($leader);

# the worker is killed: a crash, and all comes back
my ($worker) = q1(q{SELECT detail FROM nexusmem.status WHERE feature = 'background worker'}) =~ /pid (\d+)/;
q1('ALTER SYSTEM SET restart_after_crash = on');
$node->reload;
ok(survives_kill($node, $worker), 'the background worker is killed: the server recovers');
ok($node->poll_query_until('postgres', "SELECT state = 'active' AND detail <> 'pid $worker' FROM nexusmem.status WHERE feature = 'background worker'"),
	'and the worker comes back');
# ended in an orderly way, it comes back too, and without a crash
($worker) = q1(q{SELECT detail FROM nexusmem.status WHERE feature = 'background worker'}) =~ /pid (\d+)/;
kill 'TERM', $worker;
ok($node->poll_query_until('postgres', "SELECT state = 'active' AND detail <> 'pid $worker' FROM nexusmem.status WHERE feature = 'background worker'"),
	'as it does after a SIGTERM');

# stat_prefetch: undone and prepared drops. Blocks that are in the OS cache count as skipped.
sub looked
{
	my ($db, @tables) = @_;
	# a table larger than shared_buffers: its blocks are read
	$node->safe_psql($db, "CREATE TABLE $_ AS SELECT i * 7919 % 20011 AS k, repeat('x', 400) AS pad FROM generate_series(1, 20000) AS i; CREATE INDEX ON $_ (k); ANALYZE $_; SELECT sum(length(pad)) FROM (SELECT pad FROM $_ WHERE k BETWEEN 1000 AND 3000 ORDER BY k) s") foreach @tables;
	return;
}
sub rows
{
	my ($what) = @_;
	return q1("SELECT count(*) FROM nexusmem.read_stat_prefetch() WHERE relid = $what");
}
looked('postgres', qw(d1 d2 d3));
my %oid = map { $_ => q1("SELECT '$_'::regclass::oid") } qw(d1 d2 d3);
is(rows($oid{$_}), 1, "$_ is in stat_prefetch") foreach qw(d1 d2 d3);
q1('BEGIN; DROP TABLE d1; ROLLBACK');
is(rows($oid{d1}), 1, 'a drop rolled back');
q1('BEGIN; SAVEPOINT s; DROP TABLE d1; ROLLBACK TO s; COMMIT');
is(rows($oid{d1}), 1, 'a drop rolled back to a savepoint');
q1('BEGIN; SAVEPOINT s; DROP TABLE d1; RELEASE s; COMMIT');
is(rows($oid{d1}), 0, 'a drop in a savepoint');
q1(q{BEGIN; DROP TABLE d2; PREPARE TRANSACTION 'p'});
is($node->safe_psql('template1', "CREATE EXTENSION IF NOT EXISTS nexusmem; SELECT count(*) FROM nexusmem.read_stat_prefetch() WHERE relid = $oid{d2}"), 1, 'a drop that is prepared');
q1(q{COMMIT PREPARED 'p'});
is(rows($oid{d2}), 0, 'and committed');
q1('SELECT count(*) FROM d3 WHERE k > 5; TRUNCATE d3; VACUUM FULL d3');
is(rows($oid{d3}), 1, 'TRUNCATE and VACUUM FULL are no drops');
$node->safe_psql('postgres', 'CREATE DATABASE gone');
looked('gone', 'd4');
is(q1(q{SELECT count(*) FROM nexusmem.stat_prefetch WHERE datname = 'gone'}), 1, 'another database in the view');
my $gone = $node->safe_psql('gone', q{SELECT 'd4'::regclass::oid});
q1('DROP DATABASE gone');
is(rows($gone), 0, 'DROP DATABASE');

# a hot standby ends a query whose rows are gone, in the middle of its scan
my $standby = PostgreSQL::Test::Cluster->new('corners_standby');
looked('postgres', 'c');
q1('VACUUM (FREEZE) c');
$node->backup('c');
$standby->init_from_backup($node, 'c', has_streaming => 1);
$standby->append_conf('postgresql.conf', "max_standby_streaming_delay = 0\nhot_standby_feedback = off");
$standby->start;
$node->wait_for_catchup($standby);
my $r = session($standby);
my $lock = session($standby);
ask($lock, 'SELECT pg_advisory_lock(1)');
# its 40th row waits, with reads under way
send_query($r, "SELECT count(*) FROM (SELECT CASE WHEN k = 1040 THEN pg_advisory_lock(1) END FROM c WHERE k > 1000 AND pad <> '' ORDER BY k) s");
$standby->poll_query_until('postgres', "SELECT wait_event = 'advisory' FROM pg_stat_activity WHERE pid = $r->{pid}");
q1('DELETE FROM c WHERE k > 1000');
q1('VACUUM c');
$node->wait_for_catchup($standby);
like(answer($r), qr/conflict with recovery/, 'standby: a scan in the middle is ended by recovery');
close_session($lock);
close_session($r);
$r = session($standby);
is(ask($r, 'SELECT count(*), min(k), max(k) FROM (SELECT k FROM c WHERE k > 900 ORDER BY k) s'), '100|901|1000', 'standby: goes on');
is(ask($r, 'SELECT nexusmem.my_node() BETWEEN 0 AND 3'), 't', 'standby: nodes');
close_session($r);
$standby->promote;
is($standby->safe_psql('postgres', 'CREATE TABLE p AS SELECT 1 AS i; SELECT nexusmem.rebalance() >= 0; SELECT count(*) FROM c'), "t\n" . q1('SELECT count(*) FROM c'), 'standby: promoted');
$standby->stop;
unlike(server_log($standby), qr/WARNING|TRAP|PANIC|leak/, 'standby: no complaint in the log');

# moved to a smaller machine: settings of roles and databases name nodes that are not there
q1('ALTER DATABASE postgres SET nexusmem.preferred_node = 2; ALTER SYSTEM SET nexusmem.enable_numa_optimizations = on; GRANT USAGE ON SCHEMA nexusmem TO fine');
$node->append_conf('postgresql.conf', 'nexusmem.num_nodes = 2');
$node->restart;
foreach my $role ('fine', $ENV{PGUSER} // scalar getpwuid($<))
{
	IPC::Run::run([ 'psql', '-XAtq', '-d', $node->connstr('postgres') . " user=$role", '-c', q{SELECT nexusmem.my_node() < 2, (SELECT state FROM nexusmem.status WHERE feature = 'pinning')} ], '<', \'', '>', \$out, '2>', \$err);
	is("$out$err", "t|degraded\n", ($role eq 'fine' ? 'a role' : 'a superuser') . ' with a preferred_node that is gone: connects, without a word, and status tells');
}
# and a dump of the larger one can be restored, by pg_upgrade too
my $rc;
($rc, $out, $err) = $node->psql('postgres', q{SET check_function_bodies = off;
	CREATE ROLE reporting LOGIN IN ROLE fine;
	ALTER ROLE reporting SET nexusmem.preferred_node = 3;
	CREATE FUNCTION far() RETURNS int LANGUAGE sql SET nexusmem.preferred_node = 3 RETURN 1});
is($rc, 0, 'ALTER ROLE and CREATE FUNCTION with a preferred_node that is gone');
my $gone_node = qr/  invalid value for parameter "nexusmem\.preferred_node": 3\n.*from 0 to 1.*nexusmem\.nodes/s;
like($err, qr/NOTICE:$gone_node.*NOTICE:$gone_node/s, 'are told so');
IPC::Run::run([ 'psql', '-XAtq', '-d', $node->connstr('postgres') . ' user=reporting', '-c', q{SELECT nexusmem.my_node() < 2, state, detail ~ 'preferred_node 3' FROM nexusmem.status WHERE feature = 'pinning'} ], '<', \'', '>', \$out, '2>', \$err);
is("$out$err", "t|degraded|t\n", 'that role connects, and status tells');
foreach my $use ('SET nexusmem.preferred_node = 3', 'SELECT far()')
{
	($rc, $out, $err) = $node->psql('postgres', $use);
	like($err, qr/ERROR:$gone_node/, "$use: refused");
}
IPC::Run::run([ 'env', 'PGOPTIONS=-c nexusmem.preferred_node=99', 'psql', '-XAtq', '-d', $node->connstr('template1'), '-c', 'SELECT 1' ], '<', \'', '>', \$out, '2>', \$err);
is("$out$err", "1\n", 'in PGOPTIONS: connects');
$node->stop;

# single-user mode
$out = '';
IPC::Run::run([ 'postgres', '--single', '-D', $node->data_dir, 'template1' ], '<', \"SELECT count(*) AS rows FROM nexusmem.status\nSELECT nexusmem.my_node() < 2 AS placed\n", '>&', \$out);
like($out, qr/rows = "\d+".*placed = "t"/s, 'single-user mode');
unlike($out, qr/ERROR|FATAL|PANIC|WARNING/, 'without a complaint');
# what it is asked for without starting
like((qx{postgres -D '@{[$node->data_dir]}' -C shared_memory_size})[0], qr/^\d+$/, 'postgres -C');

# not preloaded, and not a superuser
$node->append_conf('postgresql.conf', "shared_preload_libraries = ''");
$node->start;
my $u = session($node, 'postgres', user => 'fine');
is(ask($u, 'SELECT nexusmem.my_node() >= 0'), 't', 'not preloaded: the library comes with the first call');
foreach my $from (qw(nodes status backends stat_prefetch shared_buffers_nodes session_prefetch()))
{
	unlike(ask($u, "SELECT count(*) FROM nexusmem.$from"), qr/ERROR|FATAL/, "not preloaded, no superuser: $from");
}
like(ask($u, 'SELECT nexusmem.rebalance()'), qr/permission denied/, 'not preloaded, no superuser: privileges hold');
is(ask($u, 'SELECT pg_backend_pid()'), $u->{pid}, 'the same session still');
close_session($u);
$node->stop;

# nothing of ours is FATAL, and nothing leaks
my $log = server_log($node);
my @bad = grep { /TRAP|PANIC|leak|could not place|self-check/ } split /\n/, $log;
is("@bad", '', 'no complaint in the log');
@bad = grep { /FATAL: .*background worker "nexusmem"/ } split /\n/, $log;
is(scalar @bad, 0, 'the background worker ends without a FATAL in the log');

# refused by the kernel: one LOG line, with pinning on and buffers to be placed
my $deny = PostgreSQL::Test::Utils::tempdir() . '/deny';
SKIP:
{
	skip 'no compiler, or no seccomp on this kernel', 4
	  if system("cc -O2 -o '$deny' '$FindBin::RealBin/../numa/deny.c' 2>/dev/null && '$deny' mbind -- true") != 0;
	$node->append_conf('postgresql.conf', "shared_preload_libraries = 'nexusmem'\nnexusmem.shared_buffers_placement = partition");
	foreach my $calls ('mbind,set_mempolicy,get_mempolicy,move_pages,sched_setaffinity', 'sched_setaffinity')
	{
		my $from = -s $node->logfile;
		is(start_behind($node, $deny, $calls, '--'), 0, "starts without $calls");
		$node->psql('template1', 'SELECT 1') for 1 .. 3;
		$node->poll_query_until('template1', q{SELECT state = 'active' FROM nexusmem.status WHERE feature = 'background worker'});
		$node->stop;
		my @lines = grep { /LOG:.*nexusmem/ && !/background worker/ } split /\n/, server_log($node, $from);
		is(scalar @lines, 1, 'one LOG line') or diag(join("\n", @lines));
	}
}
done_testing();

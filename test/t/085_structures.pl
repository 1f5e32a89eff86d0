# Counters, maps, stacks and queues among sessions, databases, roles, servers.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use NxmTest;
use POSIX ();
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PostgreSQL::Test::Cluster->new('structures');
$node->init(allows_streaming => 1);
$node->append_conf('postgresql.conf', q{
shared_preload_libraries = 'nexusmem'
autovacuum = off
max_connections = 100
max_prepared_transactions = 2
nexusmem.num_nodes = 2
});
$node->start;

sub sql { return $node->safe_psql($_[1] // 'postgres', "SET search_path = public, nexusmem; $_[0]") }

# runs pgbench scripts at once; all must end well
sub bench
{
	my ($name, $args, @scripts) = @_;
	my $dir = PostgreSQL::Test::Utils::tempdir();
	my @files;
	for my $i (0 .. $#scripts)
	{
		my $file = "$dir/script$i.sql";
		open(my $fh, '>', $file) or die $!;
		print $fh $scripts[$i];
		close $fh;
		push @files, '-f', $file;
	}
	my ($out, $err) = ('', '');
	my $ok = IPC::Run::run([ 'pgbench', '-n', '-d', $node->connstr('postgres'), @$args, @files ], '>', \$out, '2>', \$err);
	ok($ok && $err !~ /error|aborted/i, $name) or diag("$out\n$err");
	return;
}

# waits until a query says 't'
sub wait_for
{
	my ($query, $name, $db) = @_;
	ok($node->poll_query_until($db // 'postgres', $query), $name);
	return;
}

sql('CREATE EXTENSION nexusmem');

# a session that is moved to another node takes that node's memory from then on
{
	my $s = session($node);
	# asked elsewhere: the view itself takes a new home over
	my $used = sub { return sql("SELECT used_bytes FROM node_memory WHERE owner = 'structures' AND node = $_[0]") };
	my $round = 0;
	foreach my $home (0, 1, 0)
	{
		$round++;
		ask($s, "SELECT nexusmem.pin_backend(pg_backend_pid(), $home)");
		my ($here, $there) = ($used->($home), $used->(1 - $home));
		ask($s, qq{SELECT count(nexusmem.map_put('moved', '$round' || i, repeat('x', 100000))) FROM generate_series(1, 5) i});
		cmp_ok($used->($home) - $here, '>=', 400_000, "what is put is in the memory of node $home");
		cmp_ok($used->(1 - $home) - $there, '<', 200_000, 'and not of the other');
	}
	# to a striped counter it adds in a stripe of that node: when that is full, the one of
	# the other node is not
	my $pin = sub { return ask($s, "SELECT nexusmem.pin_backend(pg_backend_pid(), $_[0])") };
	foreach my $home (0, 1)
	{
		my $add = sub { return ask($s, "SELECT nexusmem.counter_add('spread $home', $_[0])") };
		sql("SELECT counter_create('spread $home', true)");
		$pin->($home);
		is($add->('9223372036854775807'), '', "the stripe of node $home is full");
		$pin->(1 - $home);
		is($add->(1), '', 'that of the other node is another one');
		$pin->($home);
		like($add->(1), qr/^ERROR:  counter "spread $home" is out of range/, "back on node $home");
	}
	close_session($s);
	sql(q{SELECT map_drop('moved'), counter_drop('spread 0'), counter_drop('spread 1')});
}

# sums are exact, and each value is given out once
sql(q{SELECT counter_create('sum'), counter_create('striped', true); CREATE TABLE seen (v bigint)});
bench('8 clients add to counters', [ '-c', 8, '-t', 500 ], q{
SELECT nexusmem.counter_add('sum');
SELECT nexusmem.counter_add('striped', 2), nexusmem.map_add('map', 'key', 3);
INSERT INTO seen SELECT nexusmem.counter_add('seen');
});
is(sql(q{SELECT counter_get('sum'), counter_get('striped'), map_get('map', 'key'), counter_get('seen'), count(DISTINCT v), max(v) FROM seen}),
	'4000|8000|12000|4000|4000|4000', 'sums are exact');

# what is pushed is popped, once
sql('CREATE TABLE popped (v text)');
bench('clients push and pop', [ '-c', 8, '-t', 500 ], q{
SELECT nexusmem.stack_push('stack', pg_backend_pid() || ' ' || nexusmem.counter_add('pushed'));
SELECT nexusmem.queue_push('queue', pg_backend_pid() || ' ' || nexusmem.counter_add('pushed'));
INSERT INTO popped VALUES (nexusmem.stack_pop('stack')), (nexusmem.queue_pop('queue'));
});
is(sql(q{INSERT INTO popped SELECT stack_pop('stack') FROM generate_series(1, stack_depth('stack'));
	INSERT INTO popped SELECT queue_pop('queue') FROM generate_series(1, queue_length('queue'));
	SELECT count(v), count(DISTINCT v), stack_depth('stack'), queue_length('queue') FROM popped}),
	'8000|8000|0|0', 'every value is popped once');

# names come and go under those who use them
bench('structures are dropped while others use them', [ '-c', 8, '-t', 400 ],
	q{
\set n random(1, 5)
SELECT nexusmem.counter_add('c' || :n), nexusmem.map_put('m' || :n, 'k' || :client_id, repeat('v', :n * 100)), nexusmem.map_get('m' || :n, 'k1');
SELECT nexusmem.stack_push('s' || :n, 'v'), nexusmem.queue_push('q' || :n, 'v'), nexusmem.stack_pop('s' || :n), nexusmem.queue_pop('q' || :n);
}, q{
\set n random(1, 5)
SELECT nexusmem.counter_drop('c' || :n), nexusmem.map_drop('m' || :n), nexusmem.stack_drop('s' || :n), nexusmem.queue_drop('q' || :n);
}, q{
\set n random(1, 5)
SELECT count(*) FROM nexusmem.structures, nexusmem.map_entries('m' || :n);
DO $$ BEGIN
	PERFORM nexusmem.map_put('m' || :n, 'x', 'y'), nexusmem.map_clear('m' || :n), nexusmem.share('map', 'm' || :n, NULL, 'read'), nexusmem.counter_add('shares');
EXCEPTION WHEN undefined_object THEN
	NULL;
END $$;
});
cmp_ok(sql(q{SELECT counter_get('shares')}), '>', 0, 'and shared');
is(sql(q{SELECT count(DISTINCT (kind, name)) = count(*) FROM structures}), 't', 'a name is there once');
sql(q{SELECT CASE kind WHEN 'counter' THEN counter_drop(name) WHEN 'map' THEN map_drop(name)
	WHEN 'stack' THEN stack_drop(name) ELSE queue_drop(name) END FROM structures});
is(sql('SELECT count(*) FROM structures'), 0, 'all dropped');

# what one changes of the sharing another does not take back
sql(q{CREATE ROLE shared0; CREATE ROLE shared1; SELECT map_put('shared', 'k', 'v')});
bench('2 clients share a map, with a role each', [ '-c', 2, '-t', 1 ], q{
DO $$ BEGIN
	FOR i IN 1 .. 10000 LOOP
		IF NOT (nexusmem.share('map', 'shared', 'shared:client_id', 'read') AND nexusmem.unshare('map', 'shared', 'shared:client_id', 'read')) THEN
			RAISE EXCEPTION 'round %: another took it back', i;
		END IF;
	END LOOP;
	PERFORM nexusmem.share('map', 'shared', 'shared:client_id', 'read');
END $$;
});
sql('GRANT USAGE ON SCHEMA nexusmem TO shared0, shared1');
is(sql("SET ROLE shared$_; SELECT map_get('shared', 'k')"), 'v', "shared with role $_") foreach 0, 1;
sql(q{SELECT map_drop('shared')});

# a session that ends in the middle of a transaction gives back what it drained
sql(q{SELECT counter_set('drained', 5)});
my $s = session($node);
ask($s, 'BEGIN');
is(ask($s, q{SELECT value FROM nexusmem.counter_drain('drained')}), 5, 'drained');
is(sql(q{SELECT counter_get('drained')}), 0, 'at once for all to see');
sql("SELECT pg_terminate_backend($s->{pid})");
wait_for(q{SELECT nexusmem.counter_get('drained') = 5}, 'given back by a session that was terminated');
close_session($s);
$s = session($node);
ask($s, 'BEGIN');
ask($s, q{SELECT value FROM nexusmem.counter_drain('drained')});
close_session($s);
wait_for(q{SELECT nexusmem.counter_get('drained') = 5}, 'and by one that left');

# nor is anything drained where the end of the transaction is not its own
sql(q{CREATE FUNCTION mislabeled() RETURNS numeric LANGUAGE plpgsql PARALLEL SAFE AS
	$$ BEGIN RETURN (SELECT sum(value) FROM nexusmem.counter_drain('drained')); END $$});
my $force = force_parallel($node);
$s = session($node);
ask($s, "SET $force = on");
like(ask($s, 'SELECT mislabeled()'), qr/ERROR:  cannot drain counters in a parallel worker/, 'not in a parallel worker');
close_session($s);
is(sql(q{SELECT counter_get('drained')}), 5, 'and nothing was taken');

# nothing is remembered of a savepoint that was rolled back, when the rest of the
# transaction is prepared; the one after it drains more, so that it would have to grow
sql(q{SELECT count(counter_set('prepared' || i, 1)) FROM generate_series(1, 600) i});
$s = session($node);
ask($s, 'BEGIN');
ask($s, 'SAVEPOINT s');
is(ask($s, q{SELECT sum(value) FROM nexusmem.counter_drain('prepared1%')}), 111, 'drained in a savepoint');
ask($s, 'ROLLBACK TO s');
is(ask($s, "PREPARE TRANSACTION 'p'"), '', 'which was rolled back, so that the transaction can be prepared');
ask($s, 'BEGIN');
is(ask($s, q{SELECT sum(value) FROM nexusmem.counter_drain('prepared%')}), 600, 'drained in the next transaction');
like(ask($s, "PREPARE TRANSACTION 'q'"), qr/cannot PREPARE a transaction that has drained counters/, 'which cannot');
ask($s, 'ROLLBACK');
is(ask($s, "COMMIT PREPARED 'p'"), '', 'the session is still there');

# nor of what nothing was taken of, however often that was drained
ask($s, 'BEGIN');
ask($s, q{DO $$ BEGIN FOR i IN 1 .. 200 LOOP PERFORM nexusmem.counter_drain('prepared%'); END LOOP; END $$});
cmp_ok(ask($s, q{SELECT sum(total_bytes) FROM pg_backend_memory_contexts WHERE name = 'TopTransactionContext'}), '<', 1_000_000,
	'a transaction that drains again and again remembers what it took');
ask($s, 'ROLLBACK');
ask($s, q{SELECT nexusmem.counter_set('of zero', 0)});
ask($s, 'BEGIN');
is(ask($s, q{SELECT value FROM nexusmem.counter_drain('of zero')}), 0, 'drained, but nothing was taken');
is(ask($s, "PREPARE TRANSACTION 'z'"), '', 'that transaction can be prepared');
is(ask($s, q{COMMIT PREPARED 'z'}), '', 'and committed');
ask($s, q{SELECT nexusmem.counter_drop('of zero')});
close_session($s);
is(sql(q{SELECT sum(counter_get(name)), count(counter_drop(name)) FROM structures WHERE name LIKE 'prepared%'}), '600|600', 'and all was given back');

# the limit of a role, where another session takes what is left
$s = session($node);
ask($s, q{SET nexusmem.role_limit = '8MB'});
ask($s, q{SELECT nexusmem.cache_set('x', 'x')});
is(sql(q{SELECT count(map_put('beside', i::text, repeat('x', 1000))) FROM generate_series(1, 6500) i}), 6500, 'most of the room is taken');
is(ask($s, q{SELECT count(nexusmem.cache_set('k' || i, repeat('x', 500000))) FROM generate_series(1, 14) i}), 14, 'a session writes large values to a cache');
cmp_ok(sql('SELECT sum(bytes) FROM structures'), '<', 9_000_000, 'it has seen that in time');
close_session($s);
sql(q{SELECT map_drop('beside'), cache_drop('default')});

# by maps that it empties, whose indexes remain
$s = session($node);
ask($s, q{SET nexusmem.role_limit = '8MB'});
my $refused = '';
for (my $n = 1; $refused eq '' && $n <= 10; $n++)
{
	$refused = $1 if ask($s, "SELECT count(nexusmem.map_put('emptied' || $n, 'k' || i, '')) FROM generate_series(1, 100000) i") =~ /(ERROR:.*)/;
	ask($s, "SELECT count(nexusmem.map_delete('emptied' || $n, 'k' || i)) FROM generate_series(1, 100000) i");
}
like($refused, qr/role_limit/, 'maps that were filled and emptied again count, for the memory that they keep');
cmp_ok(sql(q{SELECT bytes FROM structures WHERE name = 'emptied1'}), '>', 1_000_000, 'as is shown');
ask($s, q{SELECT nexusmem.map_clear(name) FROM nexusmem.structures WHERE name LIKE 'emptied%'});
is(ask($s, q{SELECT nexusmem.map_put('emptied1', 'k', '')}), 't', 'clearing them makes room');
ask($s, q{SELECT nexusmem.map_drop(name) FROM nexusmem.structures WHERE name LIKE 'emptied%'});
close_session($s);

# each database has its own names
$node->safe_psql('postgres', 'CREATE DATABASE other');
sql('CREATE EXTENSION nexusmem', 'other');
is(sql(q{SELECT counter_get('drained') IS NULL, counter_add('drained', 3)}, 'other'), 't|3', 'another counter in another database');
is(sql(q{SELECT counter_get('drained')}), 5, 'not this one');
is(sql('SELECT count(*) FROM counter_drain()', 'other'), 1, 'draining stays in the database');
sql(q{SELECT count(map_put('big', i::text, repeat('x', 1000))) FROM generate_series(1, 20000) i}, 'other');
my $used = sql('SELECT sum(used_bytes) FROM node_memory');
cmp_ok($used, '>', 20_000_000, 'memory is used');
$node->safe_psql('postgres', 'DROP DATABASE other');
wait_for(q{SELECT sum(used_bytes) < 10000000 FROM nexusmem.node_memory}, 'DROP DATABASE frees it');

# many, in front of which there are those of another database that was dropped later
foreach my $db ('d1', 'd2')
{
	$node->safe_psql('postgres', "CREATE DATABASE $db");
	is(sql(q{CREATE EXTENSION nexusmem; SELECT count(counter_create('c' || i)) FROM generate_series(1, 30000) i}, $db), 30000, "many counters in $db");
}
my $worker = sql(q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'nexusmem memory'});
sub worker_seconds { return (split ' ', slurp_file("/proc/$worker/stat") =~ s/.*\)//sr)[11] / POSIX::sysconf(POSIX::_SC_CLK_TCK()); }
# to see that nothing of so many is gone takes the worker little memory of its own
SKIP:
{
	skip 'no /proc/PID/clear_refs', 2 if !-w "/proc/$worker/clear_refs";
	append_to_file("/proc/$worker/clear_refs", '5');	# its VmHWM begins anew
	my $time = sql('SELECT clock_timestamp()');
	$node->safe_psql('postgres', 'DROP DATABASE IF EXISTS nothing');
	wait_for("SELECT state = 'idle' AND state_change > '$time' FROM pg_stat_get_activity($worker)", 'the worker has looked');
	my %kb = slurp_file("/proc/$worker/status") =~ /^(\w+):\s*(\d+) kB/mg;
	cmp_ok($kb{VmHWM} - $kb{RssShmem} - $kb{RssFile}, '<', 16 * 1024, 'in little memory');
}

my $seconds = worker_seconds();
# the second one when the worker has dropped the first one's, which wait for the epoch then;
# all by one session, for those that come and go move the epoch
$s = session($node);
ask($s, 'CHECKPOINT; SELECT count(*) FROM nexusmem.node_memory');
my $time = ask($s, 'SELECT clock_timestamp()');
ask($s, 'DROP DATABASE d1');
for (my ($i, $idle) = (0, ''); $idle ne 't' && $i < 600; $i++)
{
	$idle = ask($s, "SELECT state = 'idle' AND state_change > '$time' FROM pg_sleep(0.01), pg_stat_get_activity($worker)");
}
ask($s, 'DROP DATABASE d2');
my $freed = '';
for (my $i = 0; $freed ne 't' && $i < 600; $i++)
{
	$freed = ask($s, 'SELECT sum(used_bytes) < 10000000 FROM pg_sleep(0.1), nexusmem.node_memory');
}
is($freed, 't', 'DROP DATABASE of both frees them');
close_session($s);
cmp_ok(worker_seconds() - $seconds, '<', 10, 'in little time');

# a dropped role's go to the database's owner
$node->safe_psql('postgres', q{
CREATE ROLE boss; CREATE ROLE worker; CREATE ROLE guest;
CREATE DATABASE owned OWNER boss});
sql('CREATE EXTENSION nexusmem; GRANT USAGE ON SCHEMA nexusmem TO PUBLIC', 'owned');
sql(q{SET ROLE worker; SELECT counter_add('mine', 4), share('counter', 'mine', 'guest', 'read')}, 'owned');
sql(q{SET ROLE boss; SELECT counter_add('shared', 4), share('counter', 'shared', 'worker', 'read'), share('counter', 'shared', 'guest', 'read')}, 'owned');
sql('DROP OWNED BY worker; DROP ROLE worker', 'owned');
wait_for(q{SELECT owner = 'boss' FROM nexusmem.structures WHERE name = 'mine'}, 'a dropped role\'s counter is the database owner\'s', 'owned');
is(sql(q{SET ROLE boss; SELECT counter_add('mine')}, 'owned'), 5, 'who can use it');
is(sql(q{SET ROLE guest; SELECT counter_get('mine'), counter_get('shared')}, 'owned'), '5|4', 'as those it was shared with');

# a role that is not committed yet keeps what it made
$s = session($node, 'owned');
ask($s, 'BEGIN');
ask($s, 'CREATE ROLE young; SET ROLE young');
is(ask($s, q{SELECT nexusmem.counter_add('early')}), 1, 'made by a role of this transaction');
sql(q{CREATE ROLE x; SET ROLE x; SELECT counter_add('of x'); RESET ROLE; DROP ROLE x}, 'owned');
wait_for(q{SELECT owner = 'boss' FROM nexusmem.structures WHERE name = 'of x'}, 'others have been looked for that are gone', 'owned');
is(sql(q{SELECT owner FROM structures WHERE name = 'early'}, 'owned'), 'unknown (OID=' . sql(q{SELECT substring(owner::text FROM '\d+') FROM structures WHERE name = 'early'}, 'owned') . ')',
	'owned by a role that others do not see');
ask($s, 'COMMIT');
is(sql(q{SELECT owner FROM structures WHERE name = 'early'}, 'owned'), 'young', 'which it stays');
close_session($s);

# what is shared or not any more while somebody looks who is gone stays so
$s = session($node, 'owned');
my $other = session($node, 'owned');
sql(q{CREATE ROLE leaver; SET ROLE leaver; SELECT counter_add('left', 4), share('counter', 'left', 'guest', 'read'), share('counter', 'left', 'guest', 'write')}, 'owned');
ask($s, 'BEGIN; LOCK TABLE pg_authid IN ACCESS EXCLUSIVE MODE; DROP ROLE leaver');
ask($other, 'DROP DATABASE IF EXISTS nothing');
my $waits = '';
for (my $i = 0; $waits ne '1' && $i < 600; $i++)
{
	$waits = ask($s, "SELECT (SELECT count(*) FROM pg_locks WHERE relation = 'pg_authid'::regclass AND NOT granted AND pid = $worker) FROM pg_sleep(0.1)");
}
is($waits, '1', 'the worker has copied what is shared, and waits for the catalog');
is(ask($s, q{SELECT nexusmem.unshare('counter', 'left', 'guest', 'write')}), 't', 'something is not shared any more');
ask($s, 'COMMIT');
close_session($_) foreach $s, $other;
wait_for(q{SELECT owner = 'boss' FROM nexusmem.structures WHERE name = 'left'}, 'its owner was dropped', 'owned');
is(sql(q{SET ROLE guest; SELECT counter_get('left')}, 'owned'), 4, 'it may be read yet');
like(($node->psql('owned', q{SET ROLE guest; SELECT nexusmem.counter_add('left')}))[2], qr/permission denied/, 'and not written to');

# switched off
$node->append_conf('postgresql.conf', 'nexusmem.enable_lock_free_structures = off');
$s = session($node);
is(ask($s, q{SELECT nexusmem.counter_add('drained')}), 6, 'a session uses a counter');
$node->reload;
wait_for(q{SELECT current_setting('nexusmem.enable_lock_free_structures') = 'off'}, 'reloaded');
like(ask($s, q{SELECT nexusmem.counter_add('drained')}), qr/lock-free structures are disabled/, 'and no more');
close_session($s);
foreach my $call (q{counter_get('drained')}, q{counter_create('x')}, q{counter_drop('drained')}, q{counter_drain()}, q{map_put('m', 'k', 'v')},
	q{map_get('m', 'k')}, q{map_entries('m')}, q{stack_pop('s')}, q{queue_push('q', 'v')}, q{share('counter', 'drained', NULL, 'read')})
{
	my ($rc, $out, $err) = $node->psql('postgres', "SELECT nexusmem.$call", extra_params => [ '-v', 'VERBOSITY=verbose' ]);
	like($err, qr/55000: lock-free structures are disabled.*HINT:  Set nexusmem.enable_lock_free_structures = on/s, "$call says so");
}
is(sql(q{SELECT kind, name FROM structures}), 'counter|drained', 'the view shows what there is');
is(sql(q{SELECT state, detail, hint FROM status WHERE feature = 'structures'}),
	'off|nexusmem.enable_lock_free_structures is off|Set nexusmem.enable_lock_free_structures = on and reload.', 'and status tells');
$node->adjust_conf('postgresql.conf', 'nexusmem.enable_lock_free_structures', 'on');
$node->reload;
wait_for(q{SELECT current_setting('nexusmem.enable_lock_free_structures') = 'on'}, 'on again');
is(sql(q{SELECT counter_get('drained')}), 6, 'nothing was lost');
is(sql(q{SELECT state, hint FROM status WHERE feature = 'structures'}), 'active|', 'status: active');

# on a hot standby
$node->backup('backup');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($node, 'backup', has_streaming => 1);
$standby->start;
is($standby->safe_psql('postgres', q{SET search_path = nexusmem;
	SELECT pg_is_in_recovery(), counter_get('drained') IS NULL, counter_add('s', 2), map_put('m', 'k', 'v'), map_get('m', 'k'), stack_push('s', 'v'), stack_pop('s'), queue_push('q', 'v'), queue_pop('q')}),
	't|t|2|t|v||v||v', 'a standby has its own');
is($standby->safe_psql('postgres', q{SET search_path = nexusmem; SELECT * FROM counter_drain();
	SELECT counter_get('s'), share('map', 'm', NULL, 'read'), map_clear('m'), map_drop('m'), counter_drop('s'), stack_drop('s'), queue_drop('q');
	SELECT count(*) FROM structures}), "s|2\n0|t|1|t|t|t|t\n0", 'all functions work there');
$standby->stop;

# what a dropped database had goes with it, whatever the worker does: one that was told to
# end begins nothing for seconds
sql('SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = $$nexusmem memory$$');
$node->safe_psql('postgres', 'CREATE DATABASE secrets');
sql(q{CREATE EXTENSION nexusmem; SELECT counter_add('secret', 42), map_put('m', 'k', 'of another database'), cache_set('k', 'v')}, 'secrets');
my $oid = sql(q{SELECT oid FROM pg_database WHERE datname = 'secrets'});
$node->safe_psql('postgres', 'DROP DATABASE secrets');
$node->safe_psql('postgres', "CREATE DATABASE heir OID $oid");
is(sql(q{CREATE EXTENSION nexusmem; SELECT count(*), counter_get('secret'), map_get('m', 'k'), cache_get('k') FROM structures}, 'heir'), '0|||',
	'a database with the OID of a dropped one has nothing of that one');
$node->stop;
done_testing();

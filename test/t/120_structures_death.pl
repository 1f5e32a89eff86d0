# Processes that die or are stopped in the middle of operations on the shared
# structures. By default 200 backends and 200 background workers are ended by SIGTERM
# and 40 backends by SIGKILL; NXM_KILLS=200 makes that 200, NXM_KILLS=0 none.
#
# Two servers: one with the library as it is installed, whose processes are ended at
# random, and one with a build of the same sources that has places to stop at
# (src/core/pause.h), where each of them is tried.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use File::Copy;
use IPC::Run ();
use NxmTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep);

my $MB = 1048576;
my $kills = $ENV{NXM_KILLS} // 40;
my $root = "$FindBin::RealBin/../..";
my $dir = PostgreSQL::Test::Utils::tempdir();
my $node;

sub q1 { return $node->safe_psql('postgres', $_[0]); }
sub used { return q1('SELECT sum(used_bytes) FROM nexusmem.node_memory'); }
sub status { return q1(q{SELECT state || ': ' || detail FROM nexusmem.status WHERE feature = 'structure memory'}); }
sub wait_for
{
	local $PostgreSQL::Test::Utils::timeout_default = 30;
	return $node->poll_query_until('postgres', $_[0]);
}

# build($name, $source, $options): a copy of a module's sources, made in $dir.
sub build
{
	my ($name, $source, $options) = @_;
	mkdir "$dir/$name" or die;
	system("cp -r $source '$dir/$name'") == 0 or die;
	unlink glob("$dir/$name/*.o $dir/$name/src/*.o $dir/$name/src/core/*.o $dir/$name/*.so");
	my $output = `make -j2 -C '$dir/$name' PG_CONFIG=pg_config with_llvm=no $options 2>&1`;
	is($?, 0, "$name is built") or BAIL_OUT($output);
	return;
}

# script($file, $library): an extension's script, as CREATE EXTENSION would run it.
sub script
{
	my ($file, $library) = @_;
	my $script = slurp_file($file);
	$script =~ s/^\\echo.*\n//m;
	$script =~ s/MODULE_PATHNAME/$library/g;
	return $script;
}

sub make
{
	my ($name, $path) = @_;
	$node = PostgreSQL::Test::Cluster->new($name);
	$node->init;
	$node->append_conf('postgresql.conf', qq{
shared_preload_libraries = 'nexusmem'
dynamic_library_path = '$path'
nexusmem.num_nodes = 2
shared_buffers = 1MB
max_wal_size = 32MB
fsync = off
autovacuum = off
restart_after_crash = on
log_min_messages = warning
});
	$node->start;
	return;
}

# What a backend does until it is killed. As in nxm_torture.c, `done` and `begun` are
# bounds of what is there, wherever it ends.
my $victims = q{
CREATE PROCEDURE operate(n int) LANGUAGE plpgsql AS $$
DECLARE
	v text;
	k text;
	i int := 0;
BEGIN
	PERFORM nexusmem.counter_add('begun ' || x, 0), nexusmem.counter_add('done ' || x, 0) FROM generate_series(0, 2) x;
	LOOP
		i := i + 1;
		EXIT WHEN i = n;
		k := 'k' || (random() * 3000)::int;
		PERFORM nexusmem.map_put('torture', k, repeat('x', i % 300));
		PERFORM nexusmem.map_get('torture', k);
		IF i % 3 = 0 THEN PERFORM nexusmem.map_delete('torture', k); END IF;
		PERFORM nexusmem.counter_add('begun 0');
		PERFORM nexusmem.map_add('torture', 'sum', 1);
		PERFORM nexusmem.counter_add('done 0');
		PERFORM nexusmem.counter_add('begun 1'), nexusmem.counter_add('begun 2');
		PERFORM nexusmem.queue_push('torture', repeat('y', i % 500));
		PERFORM nexusmem.stack_push('torture', repeat('z', i % 500));
		PERFORM nexusmem.counter_add('done 1'), nexusmem.counter_add('done 2');
		FOR j IN 1 .. i % 3 LOOP
			PERFORM nexusmem.counter_add('done 1', -1), nexusmem.counter_add('done 2', -1);
			v := nexusmem.queue_pop('torture');
			IF v IS NULL THEN PERFORM nexusmem.counter_add('done 1'); ELSE PERFORM nexusmem.counter_add('begun 1', -1); END IF;
			v := nexusmem.stack_pop('torture');
			IF v IS NULL THEN PERFORM nexusmem.counter_add('done 2'); ELSE PERFORM nexusmem.counter_add('begun 2', -1); END IF;
		END LOOP;
		-- structures that come and go
		IF i % 50 = 0 THEN
			PERFORM nexusmem.map_put('passing', repeat('p', 20), 'v'), nexusmem.queue_push('passing', 'v'), nexusmem.map_clear('passing');
			PERFORM nexusmem.map_drop('passing'), nexusmem.queue_drop('passing');
		END IF;
		PERFORM nexusmem.counter_add('rounds');
	END LOOP;
END $$;
-- what is there is between `done` and `begun`, which differ by at most one a process
CREATE FUNCTION consistent(dead int) RETURNS text LANGUAGE sql AS $$
	SELECT string_agg(CASE WHEN there BETWEEN done AND begun AND begun - done <= dead THEN 'ok'
		ELSE format('%s: %s, done %s, begun %s', what, there, done, begun) END, ', ' ORDER BY what)
	FROM (VALUES (0, nexusmem.map_get('torture', 'sum')::bigint), (1, nexusmem.queue_length('torture')), (2, nexusmem.stack_depth('torture'))) t (what, there),
		LATERAL (SELECT nexusmem.counter_get('begun ' || what) AS begun, nexusmem.counter_get('done ' || what) AS done) c
$$;
-- every entry can be reached, and everything can be popped
CREATE FUNCTION whole() RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	n bigint := 0;
	v bytea;
	lengths bigint := nexusmem.queue_length('torture') + nexusmem.stack_depth('torture');
BEGIN
	IF nexusmem.map_size('torture') <> (SELECT count(*) FROM nexusmem.map_entries('torture')) OR
		EXISTS (SELECT FROM nexusmem.map_entries('torture') WHERE key LIKE 'k%' AND nexusmem.map_get('torture', key) IS DISTINCT FROM value) OR
		EXISTS (SELECT FROM nexusmem.map_entries('torture') WHERE key LIKE 'w%' AND nexusmem.map_get_bytea('torture', key)::text IS DISTINCT FROM value) THEN
		RETURN 'map';
	END IF;
	FOR i IN 1 .. lengths LOOP
		BEGIN
			IF nexusmem.queue_pop('torture') IS NOT NULL THEN n := n + 1; CONTINUE; END IF;
		EXCEPTION WHEN datatype_mismatch THEN
			IF nexusmem.queue_pop_bytea('torture') IS NOT NULL THEN n := n + 1; CONTINUE; END IF;
		END;
		BEGIN
			IF nexusmem.stack_pop('torture') IS NOT NULL THEN n := n + 1; END IF;
		EXCEPTION WHEN datatype_mismatch THEN
			IF nexusmem.stack_pop_bytea('torture') IS NOT NULL THEN n := n + 1; END IF;
		END;
	END LOOP;
	RETURN CASE WHEN n = lengths AND nexusmem.queue_length('torture') = 0 AND nexusmem.stack_depth('torture') = 0 THEN 'ok' ELSE 'lists' END;
END $$;
CREATE FUNCTION drop_all() RETURNS void LANGUAGE sql AS $$
	SELECT CASE kind WHEN 'map' THEN nexusmem.map_drop(name) WHEN 'counter' THEN nexusmem.counter_drop(name)
		WHEN 'stack' THEN nexusmem.stack_drop(name) ELSE nexusmem.queue_drop(name) END FROM nexusmem.structures
$$;
};

# start_victims($n): psqls that are in the middle of it.
sub start_victims
{
	my ($n) = @_;
	my @started;
	my $before = q1(q{SELECT coalesce(nexusmem.counter_get('rounds'), 0)});
	foreach my $i (1 .. $n)
	{
		my $v = { out => '' };
		$v->{h} = IPC::Run::start([ 'psql', '-XAtq', '-d', $node->connstr('postgres') . ' application_name=victim', '-c', 'CALL operate(1000000000)' ],
			'<', \undef, '>&', \$v->{out}, IPC::Run::timeout($PostgreSQL::Test::Utils::timeout_default));
		push @started, $v;
	}
	wait_for("SELECT count(*) = $n AND nexusmem.counter_get('rounds') > $before FROM pg_stat_activity WHERE application_name = 'victim' AND state = 'active'");
	return @started;
}

# stopped($pid): waits until the process is.
sub stopped
{
	my ($pid) = @_;
	foreach my $try (1 .. 1000)
	{
		my $stat = eval { slurp_file("/proc/$pid/stat") } // '';
		return 1 if $stat =~ /^\d+ \(.*\) T /;
		usleep(10_000);
	}
	return 0;
}

# The module that all of this needs.
system("cc --version >/dev/null 2>&1") == 0 && -e (`pg_config --pgxs` =~ s/\n//r) or plan skip_all => 'no compiler';
mkdir "$dir/include" or die;
mkdir "$dir/include/nexusmem" or die;
copy("$root/src/nexusmem_api.h", "$dir/include/nexusmem/") or die;
build('torture', "'$root'/test/modules/nxm_torture/.", "NEXUSMEM_INCLUDE='$dir/include' COPT=-Werror");

make('death', "$dir/torture:\$libdir");
my $create = 'CREATE EXTENSION nexusmem;' . script("$dir/torture/nxm_torture--1.0.sql", 'nxm_torture') . $victims;
q1($create);

# SIGTERM to backends
my @victims = start_victims(5);
my $session = session($node);
ask($session, q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'victim'});
$_->{h}->finish foreach @victims;
wait_for(q{SELECT count(*) = 0 FROM pg_stat_activity WHERE application_name = 'victim'});
is(q1('SELECT whole()'), 'ok', 'warmed up');
ask($session, 'SELECT drop_all()');
wait_for("SELECT sum(used_bytes) < 8 * $MB FROM nexusmem.node_memory");
my $before = used();
my $dead = 0;
foreach my $round (1 .. 20)
{
	@victims = start_victims(10);
	$dead += ask($session, q{SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = 'victim'});
	$_->{h}->finish foreach @victims;
}
is($dead, 200, '200 backends are terminated while they operate');
wait_for(q{SELECT count(*) = 0 FROM pg_stat_activity WHERE application_name = 'victim'});
is(q1("SELECT consistent($dead)"), 'ok, ok, ok', 'what they counted is there');
is(q1('SELECT whole()'), 'ok', 'and whole');
like(status(), qr/^active/, 'status: nothing was lost');
ask($session, 'SELECT drop_all()');
ok(wait_for("SELECT sum(used_bytes) < $before + $MB FROM nexusmem.node_memory"), 'the memory is as it was') or diag("$before before, now " . used());

# SIGTERM to background workers that die where they are
ask($session, q{
CREATE PROCEDURE end_workers(n int) LANGUAGE plpgsql AS $$
DECLARE
	goal bigint;
BEGIN
	FOR i IN 1 .. n LOOP
		goal := coalesce(nexusmem.counter_get('rounds'), 0) + 1 + i % 500;
		PERFORM torture_worker_start('all', '');
		WHILE coalesce(nexusmem.counter_get('rounds'), 0) < goal LOOP END LOOP;
		IF NOT torture_worker_end() THEN RAISE EXCEPTION 'not ended'; END IF;
	END LOOP;
END $$});
my $from = -s $node->logfile;
is(ask($session, 'CALL end_workers(200)'), '', '200 background workers die where they are') or diag(server_log($node, $from));
is(q1('SELECT consistent(200)'), 'ok, ok, ok', 'what they counted is there');
is(q1('SELECT whole()'), 'ok', 'and whole');
like(status(), qr/^active/, 'status: nothing was lost');
my $fatal = () = server_log($node, $from) =~ /FATAL:  terminating background worker/g;
cmp_ok($fatal, '>', 150, 'by FATAL out of the signal handler');
ask($session, 'SELECT drop_all()');
ok(wait_for("SELECT sum(used_bytes) < $before + $MB FROM nexusmem.node_memory"), 'the memory is as it was') or diag("$before before, now " . used());
close_session($session);
unlike(server_log($node), qr/terminated by signal|TRAP|PANIC/, 'the log is quiet');

# SIGKILL
my ($recovered, $empty, $usable) = (0, 0, 0);
foreach my $round (1 .. $kills)
{
	@victims = start_victims(2);
	my $pid = q1(q{SELECT pid FROM pg_stat_activity WHERE application_name = 'victim' LIMIT 1});
	$from = -s $node->logfile;
	kill 'KILL', $pid;
	$_->{h}->finish foreach @victims;
	$recovered++ if $node->wait_for_log(qr/database system is ready to accept connections/, $from) && wait_for('SELECT true');
	$empty++ if q1('SELECT count(*) FROM nexusmem.structures') eq '0';
	$usable++ if q1(q{CALL operate(20); SELECT consistent(0), whole()}) eq 'ok, ok, ok|ok';
}
SKIP:
{
	skip 'NXM_KILLS is 0', 4 if $kills == 0;
	is($recovered, $kills, "SIGKILL in mid-operation, $kills times (NXM_KILLS): the server recovers");
	is($empty, $kills, 'structures are gone');
	is($usable, $kills, 'and usable again');
	like(status(), qr/^active/, 'status');
}
$node->stop;
unlike(server_log($node), qr/TRAP|PANIC|terminated by signal (?!9)/, 'no other crash');
done_testing();

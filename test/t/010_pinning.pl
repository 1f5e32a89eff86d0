# Where backends run: policies, settings, reload, pinning by hand, exits.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use NxmTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $cpus = `nproc` + 0;
my $node = PostgreSQL::Test::Cluster->new('pinning');
$node->init;
$node->append_conf('postgresql.conf', q{
shared_preload_libraries = 'nexusmem'
nexusmem.num_nodes = 4
nexusmem.enable_numa_optimizations = on
autovacuum = off
restart_after_crash = on
});
$node->start;
$node->safe_psql('postgres', 'CREATE EXTENSION nexusmem');

my $clients = q{backend_type = 'client backend' AND pid <> pg_backend_pid()};
my $load = 'SELECT sum(backends) FROM nexusmem.nodes';
sub q1 { return $node->safe_psql('postgres', $_[0]); }
# this many backends are counted, besides the one that asks
sub wait_for_load
{
	my ($n) = @_;
	return $node->poll_query_until('postgres', $load, $n + 1);
}
sub nodes_of { return join ',', sort map { ask($_, 'SELECT nexusmem.my_node()') } @_; }

is(q1('SELECT count(*) FROM nexusmem.nodes'), 4, 'num_nodes makes 4 nodes');

# least_loaded
my @s = map { session($node) } 1 .. 4;
# which is by CPU
my $even = q1('SELECT count(DISTINCT cpu_count) FROM nexusmem.nodes') == 1;
SKIP:
{
	skip 'some nodes have more CPUs than others', 1 if !$even;
	is(nodes_of(@s), '0,1,2,3', 'least_loaded: four backends on four nodes');
}
is(q1("SELECT DISTINCT reason FROM nexusmem.backends WHERE $clients"), 'policy', 'reason: policy');
is(q1("SELECT bool_and(b.cpus_allowed = n.cpus) FROM nexusmem.backends b JOIN nexusmem.nodes n USING (node) WHERE $clients"),
	't', "the kernel holds them to their node's CPUs");
ok(wait_for_load(4), 'each is counted once');
close_session($_) for @s;
ok(wait_for_load(0), 'none is counted after they have left');

# a login that fails after authentication
q1('CREATE ROLE nobody_in NOLOGIN');
# by -c: psql ends before it would read its input
$node->psql('postgres', undef, extra_params => [ '-U', 'nobody_in', '-c', 'SELECT 1' ]) for 1 .. 5;
ok(wait_for_load(0), 'failed logins leave nothing counted');

# preferred_node
q1('CREATE ROLE pref LOGIN; GRANT USAGE ON SCHEMA nexusmem TO pref; ALTER ROLE pref SET nexusmem.preferred_node = 2');
my $p = session($node, 'postgres', user => 'pref');
is(ask($p, 'SELECT nexusmem.my_node()'), 2, 'ALTER ROLE SET preferred_node');
is(q1("SELECT reason FROM nexusmem.backends WHERE pid = $p->{pid}"), 'preferred_node', 'and its reason');
like(ask($p, 'SET nexusmem.preferred_node = 1'), qr/permission denied/, 'only a superuser may set it');
close_session($p);
my ($rc, $out, $err) = $node->psql('postgres', 'SET nexusmem.preferred_node = 4', extra_params => [ '-v', 'VERBOSITY=verbose' ]);
like($err, qr/22023.*: 4.*Nodes are numbered from 0 to 3.*nexusmem\.nodes/s, 'a node that does not exist: SQLSTATE, range and hint');
# as if kept from a larger machine
$node->append_conf('postgresql.conf', 'nexusmem.preferred_node = 100');
$node->restart;
is(q1('SELECT nexusmem.my_node() BETWEEN 0 AND 3'), 't', 'preferred_node of another machine in postgresql.conf: the policy decides');
like(q1(q{SELECT state || detail FROM nexusmem.status WHERE feature = 'pinning'}), qr/^degraded.*100/, 'and status says so');
$node->append_conf('postgresql.conf', 'nexusmem.preferred_node = -1');
$node->reload;

# round_robin and database
$node->append_conf('postgresql.conf', "nexusmem.scheduling_policy = 'round_robin'");
$node->reload;
$node->poll_query_until('postgres', 'SHOW nexusmem.scheduling_policy', 'round_robin');
@s = map { session($node) } 1 .. 4;
is(nodes_of(@s), '0,1,2,3', 'round_robin: four backends on four nodes');
close_session($_) for @s;
q1('CREATE DATABASE other');
$node->safe_psql('other', 'CREATE EXTENSION nexusmem');
$node->append_conf('postgresql.conf', "nexusmem.scheduling_policy = 'database'");
$node->reload;
$node->poll_query_until('postgres', 'SHOW nexusmem.scheduling_policy', 'database');
@s = map { session($node, $_) } qw(postgres other postgres other);
my @n = map { ask($_, 'SELECT nexusmem.my_node()') } @s;
ok($n[0] == $n[2] && $n[1] == $n[3] && $n[0] != $n[1], 'database: one node a database, another for another');
close_session($_) for @s;
$node->append_conf('postgresql.conf', "nexusmem.scheduling_policy = 'least_loaded'");
$node->reload;
$node->poll_query_until('postgres', 'SHOW nexusmem.scheduling_policy', 'least_loaded');

# by hand, on another session
my ($all) = slurp_file('/proc/self/status') =~ /^Cpus_allowed_list:\s*(\S+)/m;
my $a = session($node);
my $was = ask($a, 'SELECT nexusmem.my_node()');
my $to = ($was + 2) % 4;
is(q1("SELECT nexusmem.pin_backend($a->{pid}, $to)"), 't', 'pin_backend');
is(q1("SELECT b.node = $to AND b.cpus_allowed = n.cpus AND b.reason = 'pin_backend' FROM nexusmem.backends b, nexusmem.nodes n WHERE b.pid = $a->{pid} AND n.node = $to"),
	't', 'takes effect at once');
is(ask($a, 'SELECT nexusmem.my_node()'), $to, 'and the session knows at its next statement');
# in the middle of a statement that uses structures before and after
my $b = session($node);
ask($b, 'SELECT pg_advisory_lock(1)');
send_query($a, q{SELECT nexusmem.cache_get('k'), pg_advisory_lock_shared(1), nexusmem.cache_get('k')});
ok($node->poll_query_until('postgres', "SELECT count(*) = 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted AND pid = $a->{pid}"),
	'a statement that waits');
is(q1("SELECT nexusmem.pin_backend($a->{pid}, $was)"), 't', 'pin_backend in its middle');
ask($b, 'SELECT pg_advisory_unlock(1)');
close_session($b);
is(answer($a), '||', 'it goes on');
is(ask($a, q{SELECT nexusmem.map_put('new', 'k', 'v'); SELECT node FROM nexusmem.structures WHERE name = 'new'}), "t\n$was",
	'what the session makes next lies on the new node');
ask($a, q{SELECT nexusmem.map_drop('new')});
is(q1("SELECT nexusmem.unpin_backend($a->{pid})"), 't', 'unpin_backend');
is(q1("SELECT nexusmem.unpin_backend($a->{pid})"), 'f', 'nothing to unpin a second time');
ask($a, 'SELECT 1');
is(q1("SELECT cpus_allowed FROM nexusmem.backends WHERE pid = $a->{pid}"), $all, 'original CPUs restored, and the policy leaves it so');
close_session($a);

# rebalance: eight sessions, then those of two nodes leave; asked by one that stays, for those
# that come and go are counted a while
@s = map { session($node) } 1 .. 8;
my $x = session($node);
my %by;
push @{ $by{ ask($_, 'SELECT nexusmem.my_node()') } }, $_ for @s;
close_session($_) for map { @{ delete $by{$_} // [] } } (2, 3);
my @left = map { @$_ } values %by;
my $counted = '';
for (1 .. 10 * $PostgreSQL::Test::Utils::timeout_default)
{
	$counted = ask($x, $load);
	last if $counted eq @left + 1;
	select(undef, undef, undef, 0.1);
}
is($counted, @left + 1, 'two nodes are left');
my $moved = ask($x, 'SELECT nexusmem.rebalance()');
cmp_ok($moved, '>', 0, "rebalance moves backends ($moved)");
SKIP:
{
	skip 'some nodes have more CPUs than others', 1 if !$even;
	# the one that asks is counted as well
	is(ask($x, 'SELECT max(backends) - min(backends) <= 1 FROM nexusmem.nodes'), 't', 'no node has two more than another then');
}
is(ask($x, "SELECT bool_and(b.cpus_allowed = n.cpus) FROM nexusmem.backends b JOIN nexusmem.nodes n USING (node) WHERE $clients"),
	't', "on their new node's CPUs");
close_session($_) for @left, $x;

# parallel workers
q1(q{CREATE FUNCTION my_cpus() RETURNS text LANGUAGE plpgsql PARALLEL SAFE AS
	$$ BEGIN RETURN substring(pg_read_file('/proc/self/status') FROM 'Cpus_allowed_list:\s*(\S+)'); END $$});
my $force = force_parallel($node);
my $r = q1("SET $force = on; SELECT (SELECT cpus FROM nexusmem.nodes WHERE node = nexusmem.my_node()), (SELECT cpu_count FROM nexusmem.nodes WHERE node = nexusmem.my_node()); SELECT my_cpus()");
my ($leader_cpus, $leader_count, $worker_cpus) = $r =~ /^(\S+?)\|(\d+)\n(\S+)$/;
if ($leader_count > 1)
{
	is($worker_cpus, $leader_cpus, "a parallel worker runs on its leader's node");
}
else
{
	is(q1("SELECT count(*) > 0 FROM nexusmem.nodes WHERE cpus = '$worker_cpus'"), 't',
		"a parallel worker runs on one node (its leader's has one CPU, and so is full)");
}

# off and on again, for a session that stays open
SKIP:
{
	skip 'one CPU: every mask is the same', 14 if $cpus < 2;
	ok($node->poll_query_until('postgres', q{SELECT bool_and(reason = 'background') FROM nexusmem.backends WHERE backend_type IN ('checkpointer', 'walwriter', 'background writer')}),
		'background processes are placed by the worker');
	$a = session($node);
	my $node_a = ask($a, 'SELECT nexusmem.my_node()');
	$node->safe_psql('postgres', 'ALTER SYSTEM SET nexusmem.enable_numa_optimizations = off');
	$node->reload;
	$node->poll_query_until('postgres', 'SHOW nexusmem.enable_numa_optimizations', 'off');
	ask($a, 'SELECT 1');
	is(q1("SELECT cpus_allowed, node IS NULL FROM nexusmem.backends WHERE pid = $a->{pid}"), "$all|t", 'turned off: an open session has its CPUs back at its next statement');
	ok($node->poll_query_until('postgres', "SELECT bool_and(cpus_allowed = '$all') FROM nexusmem.backends WHERE backend_type IN ('checkpointer', 'walwriter', 'background writer')"),
		'and so have background processes');
	is(q1($load), 0, 'nobody is counted');
	$node->safe_psql('postgres', 'ALTER SYSTEM SET nexusmem.enable_numa_optimizations = on');
	$node->reload;
	$node->poll_query_until('postgres', 'SHOW nexusmem.enable_numa_optimizations', 'on');
	ask($a, 'SELECT 1');
	is(q1("SELECT b.cpus_allowed = n.cpus FROM nexusmem.backends b JOIN nexusmem.nodes n USING (node) WHERE b.pid = $a->{pid}"), 't', 'turned on: it is pinned at its next statement');
	like(q1(q{SELECT detail FROM nexusmem.status WHERE feature = 'pinning'}), qr/policy least_loaded/, 'status: pinning');
	is(ask($a, 'SELECT nexusmem.my_node() BETWEEN 0 AND 3'), 't', 'my_node');

	# a pin that the kernel has let go of, as when the cpuset is written to
	my $pinned = "SELECT b.cpus_allowed = n.cpus FROM nexusmem.backends b JOIN nexusmem.nodes n USING (node) WHERE b.pid =";
	my $checkpointer = q1(q{SELECT pid FROM nexusmem.backends WHERE backend_type = 'checkpointer'});
	ok($node->poll_query_until('postgres', "$pinned $checkpointer"), 'the checkpointer is pinned');
	foreach my $pid ($a->{pid}, $checkpointer)
	{
		is(system("taskset -pc $all $pid >/dev/null"), 0, "process $pid may use all CPUs");
		ok($node->poll_query_until('postgres', "$pinned $pid"), 'it gets its pin back');
	}
	close_session($a);

	# and all that the server was started with
	my $topology = q{SELECT state = 'degraded' AND detail ~ 'have changed since the start' FROM nexusmem.status WHERE feature = 'topology'};
	my $postmaster = (split /\n/, slurp_file($node->data_dir . '/postmaster.pid'))[0];
	my $first = (split /[,-]/, $all)[0];
	system("taskset -pc $first $postmaster >/dev/null");
	is(q1($topology), 't', 'status: other CPUs than at the start');
	system("taskset -pc $all $postmaster >/dev/null");
	is(q1($topology), 'f', 'status: the same again');
}

# a backend killed without a word
@s = map { session($node) } 1 .. 3;
ok(survives_kill($node, $s[0]{pid}), 'a backend is killed: the server recovers');
eval { $_->{h}->kill_kill } for @s;
ok(wait_for_load(0), 'after a crash nobody is counted');
is(q1(q{SELECT state FROM nexusmem.status WHERE feature = 'shared memory'}), 'active', 'and the library works');
ok($node->poll_query_until('postgres', q{SELECT state = 'active' FROM nexusmem.status WHERE feature = 'background worker'}), 'its worker too');

# a server that is allowed one CPU
$node->stop;
my $first = (split /[,-]/, $all)[0];
is(start_behind($node, 'taskset', '-c', $first), 0, 'started on one CPU');
is(q1('SELECT string_agg(DISTINCT cpus, \',\') FROM nexusmem.nodes'), $first, 'nodes are made of allowed CPUs alone');
is(q1('SELECT nexusmem.unpin_backend(pg_backend_pid()); SELECT cpus_allowed FROM nexusmem.backends WHERE pid = pg_backend_pid()'), "t\n$first", 'unpinning gives back no more than was allowed');
$node->stop;

unlike(server_log($node), qr/TRAP|PANIC|leak/, 'nothing bad in the log');
done_testing();

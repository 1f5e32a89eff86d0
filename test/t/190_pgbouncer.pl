# The cache through PgBouncer, with transaction and with statement pooling: clients share
# fewer server connections than they are, and get another one each time.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use IPC::Run ();
use NxmTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my ($pgbouncer) = grep { -x $_ } map { "$_/pgbouncer" } split(/:/, $ENV{PATH}), '/usr/sbin', '/usr/local/sbin';
plan skip_all => 'pgbouncer is not installed' if !$pgbouncer;
plan skip_all => 'pgbouncer does not run as root' if $> == 0;
my ($major, $minor) = `$pgbouncer --version` =~ /(\d+)\.(\d+)/;
# statements with names, of the protocol
my $prepares = $major > 1 || $minor >= 21;

my $node = PostgreSQL::Test::Cluster->new('pgbouncer');
$node->init;
$node->append_conf('postgresql.conf', "shared_preload_libraries = 'nexusmem'");
$node->start;

sub sql { return $node->safe_psql('postgres', "SET search_path = public, nexusmem; $_[0]") }

my $me = sql('SELECT current_user');
sql(q{CREATE EXTENSION nexusmem;
GRANT USAGE ON SCHEMA nexusmem TO PUBLIC;
SELECT counter_create('runs');
CREATE ROLE web LOGIN;
CREATE FUNCTION slow() RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	PERFORM nexusmem.counter_add('runs');
	PERFORM pg_advisory_xact_lock_shared(1);
	RETURN 'computed';
END $$});

# PgBouncer, on a socket of its own, with two server connections for each role
my $dir = PostgreSQL::Test::Utils::tempdir_short();
my $port = $node->port;
my $databases = join('', map { "$_ = host=" . $node->host . " port=$port dbname=postgres pool_mode=$_\n" } 'transaction', 'statement');
append_to_file("$dir/users", qq{"$me" ""\n"web" ""\n});
append_to_file("$dir/ini", "[databases]\n$databases" . qq{[pgbouncer]
listen_addr =
listen_port = $port
unix_socket_dir = $dir
auth_type = trust
auth_file = $dir/users
default_pool_size = 2
logfile = $dir/log
pidfile = $dir/pid
} . ($prepares ? "max_prepared_statements = 100\n" : ''));
my $pooler = IPC::Run::start([ $pgbouncer, "$dir/ini" ], '<', \undef, '>', "$dir/out", '2>', "$dir/err");

# for session()
sub Pool::connstr { return "host=$dir port=$port user=$_[0]{user} dbname=$_[1]" }
my $pool = bless { user => $me }, 'Pool';
my $web = bless { user => 'web' }, 'Pool';

# what is said to a client that connects anew
sub pooled
{
	my ($mode, $sql, $as) = @_;
	my ($out, $err) = ('', '');
	IPC::Run::run([ 'psql', '-XAtq', '-v', 'ON_ERROR_STOP=1', '-d', ($as // $pool)->connstr($mode) ],
		'<', \$sql, '>', \$out, '2>', \$err);
	chomp($out, $err);
	return $out . $err;
}

my $answer = '';
foreach (1 .. 10 * $PostgreSQL::Test::Utils::timeout_default)
{
	last if ($answer = pooled('transaction', 'SELECT 1')) eq '1';
	select(undef, undef, undef, 0.1);
}
is($answer, '1', "PgBouncer $major.$minor runs") or die slurp_file(-e "$dir/log" ? "$dir/log" : "$dir/err");

foreach my $mode ('transaction', 'statement')
{
	is(pooled($mode, qq{SELECT nexusmem.cache_set('$mode', 'value', '1 hour');
SELECT nexusmem.cache_get('$mode');
SELECT nexusmem.cache_mset(ARRAY['$mode a', '$mode b'], ARRAY['1', '2'], '1 hour');
SELECT string_agg(key || '=' || coalesce(value, 'none'), ',') FROM nexusmem.cache_mget(ARRAY['$mode b', '$mode c', '$mode a']);
SELECT nexusmem.cache_fetch('$mode query', 'SELECT count(*) FROM pg_class WHERE relname = ''pg_class''', '1 hour');
SELECT nexusmem.cache_delete('$mode a')}),
		"\nvalue\n2\n$mode b=2,$mode c=none,$mode a=1\n1\nt", "$mode pooling: set, get, mset, mget, fetch, delete");
	is(pooled($mode, qq{SELECT nexusmem.cache_get('$mode'), nexusmem.cache_get('$mode query'), nexusmem.cache_get('$mode a') IS NULL}), 'value|1|t', 'another client sees it');
}
is(sql(q{SELECT cache_get('transaction'), cache_get('statement')}), 'value|value', 'so does one without PgBouncer');
is(pooled('transaction', q{SELECT nexusmem.cache_get('transaction') IS NULL}, $web), 't', q{the cache "default" is each role's own});
is(pooled('statement', q{SELECT nexusmem.cache_set('transaction', 'of web'); SELECT nexusmem.cache_get('transaction')}, $web), "\nof web", 'which that role writes to');

# on two server connections at the same time, and a third client that waits for one of them
my @s = map { session($pool, 'transaction') } 1 .. 3;
my $first = ask($s[0], q{BEGIN; SELECT pg_backend_pid(); SELECT nexusmem.cache_set('shared', '1')});
my $second = ask($s[1], q{BEGIN; SELECT pg_backend_pid(); SELECT nexusmem.cache_get('shared')});
isnt((split /\n/, $first)[0], (split /\n/, $second)[0], 'two transactions are on two connections');
is((split /\n/, $second)[1], '1', 'what one has set the other sees before it ends');
send_query($s[2], q{SELECT nexusmem.cache_get('shared')});
ask($s[0], q{SELECT nexusmem.cache_set('shared', '2'); ROLLBACK});
is(answer($s[2]), '2', 'a client that waited for a connection sees the newest value, which ROLLBACK did not undo');
is(ask($s[1], q{SELECT nexusmem.cache_get('shared'); COMMIT}), '2', 'so does the other transaction');

# one of two clients computes
my $keeper = session($node);
ask($keeper, 'SELECT pg_advisory_lock(1)');
send_query($_, q{SELECT nexusmem.cache_fetch('slow', 'SELECT public.slow()')}) foreach @s[ 0, 1 ];
ok($node->poll_query_until('postgres', q{SELECT count(*) FILTER (WHERE objsubid = 1) = 1 AND count(*) FILTER (WHERE objsubid = 20056) = 1
	FROM pg_locks WHERE locktype = 'advisory' AND NOT granted}), 'one computes, and one waits for it');
send_query($s[2], q{SELECT nexusmem.cache_fetch('slow', 'SELECT public.slow()')});
ask($keeper, 'SELECT pg_advisory_unlock(1)');
is(join(' ', map { answer($_) } @s), 'computed computed computed', 'all have the value');
is(sql(q{SELECT counter_get('runs')}), '1', 'which was computed once');
is(sql(q{SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'}), '0', 'no lock is left on a connection');
close_session($_) foreach @s, $keeper;

# eight clients on two connections: each reads what it has written
append_to_file("$dir/script", q{\set n random(1, 100)
SELECT nexusmem.cache_set('own' || :client_id, repeat(:n::text, 3));
SELECT 1 / (nexusmem.cache_get('own' || :client_id) = repeat(:n::text, 3))::int;
SELECT 1 / (nexusmem.cache_fetch('all', 'SELECT 7') = '7')::int;
SELECT 1 / (count(value) >= 1)::int FROM nexusmem.cache_mget(ARRAY['own' || :client_id, 'other' || :n]);
});
foreach my $how ('extended', $prepares ? 'prepared' : ())
{
	foreach my $mode ('transaction', 'statement')
	{
		my ($out, $err) = ('', '');
		my $ok = IPC::Run::run([ 'pgbench', '-n', '-M', $how, '-c', 8, '-j', 2, '-t', 50, '-f', "$dir/script", $pool->connstr($mode) ],
			'<', \undef, '>', \$out, '2>', \$err);
		ok($ok && $err !~ /aborted|error/i && $out =~ m{processed: 400/400}, "$mode pooling, eight clients, -M $how") or diag("$out\n$err");
	}
}
cmp_ok(sql(q{SELECT count(*) FROM pg_stat_activity WHERE usename IS NOT NULL AND backend_type = 'client backend' AND pid <> pg_backend_pid()}), '<=', 8, 'of two pools and two roles two connections each');

$pooler->signal('INT');
eval { $pooler->finish };
unlike(server_log($node), qr/TRAP|terminated by signal|PANIC/, 'no complaint in the log');
$node->stop;
done_testing();

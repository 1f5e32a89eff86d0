# Sharing where memory is full, the memory worker when it cannot look at the catalogs, and
# what pg_dump tells of the schema.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use NxmTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PostgreSQL::Test::Cluster->new('rights');
$node->init;
$node->append_conf('postgresql.conf', q{
shared_preload_libraries = 'nexusmem'
autovacuum = off
nexusmem.num_nodes = 1
nexusmem.memory_limit = 4MB
});
my $dir = PostgreSQL::Test::Utils::tempdir();
my %clock = clock_to_set($dir);
{
	local @ENV{keys %clock} = values %clock;
	$node->start;
}

sub q1 { return $node->safe_psql('postgres', "SET search_path = nexusmem; $_[0]"); }
# sql($sql): what psql says to it, errors with their SQLSTATE.
sub sql
{
	my ($rc, $out, $err) = $node->psql('postgres', "SET search_path = nexusmem; $_[0]", extra_params => [ '-v', 'VERBOSITY=verbose' ]);
	return "$out$err";
}
sub worker { return q1(q{SELECT pid FROM pg_stat_get_activity(NULL) WHERE backend_type = 'nexusmem memory'}); }

# shared with as many roles as may be, and no room for another sharing
q1(q{CREATE EXTENSION nexusmem; GRANT USAGE ON SCHEMA nexusmem TO PUBLIC; CREATE ROLE other; CREATE ROLE leaver;
	SELECT format('CREATE ROLE r%s', i) FROM generate_series(1, 63) i \gexec
	SELECT map_put('lent', 'k', 'v'), share('map', 'lent', 'leaver', 'read');
	SELECT count(share('map', 'lent', ('r' || i)::regrole, p)) FROM generate_series(1, 63) i, unnest('{read,write}'::text[]) p;
	SET ROLE leaver; SELECT counter_add('left')});
my $worker = worker();
# by a session that stays: one that ends gives back what it keeps for later
my $filler = session($node);
ok($node->poll_query_until('postgres', q{SELECT count(*) = 2 FROM pg_stat_activity WHERE backend_type = 'client backend'}), 'no other session is there');
like(ask($filler, "SELECT nexusmem.map_put('$_', k::text, repeat('x', 1000)) FROM generate_series(1, 10000) k"), qr/ERROR: .* memory limit/, "$_: full")
  foreach 'full', 'nothing more';
like(sql(q{SELECT share('map', 'lent', 'other', 'read')}), qr/ERROR:  54000: .*shared with too many roles/, 'shared with as many as may be');

is(sql(q{SELECT unshare('map', 'lent', 'r1', 'write')}), 't', 'a right is taken back where there is no memory');
is(sql(q{SET ROLE r1; SELECT map_get('lent', 'k')}), 'v', 'it may be read yet');
like(sql(q{SET ROLE r1; SELECT map_put('lent', 'k', 'w')}), qr/ERROR:  42501: permission denied/, 'and not written to');
is(sql(q{SELECT unshare('map', 'lent', 'r1'), unshare('map', 'lent', 'r1'), unshare('map', 'lent', 'r2')}), 't|f|t', 'all rights');
like(sql(qq{SET ROLE $_; SELECT map_get('lent', 'k')}), qr/ERROR:  42501: permission denied/, "$_ does not read any more") foreach 'r1', 'r2';
is(sql(q{SET ROLE r3; SELECT map_put('lent', 'k', 'w')}), 'f', 'and another one writes');
like(sql(q{SELECT share('map', 'lent', 'other', 'read')}), qr/ERROR:  53400/, 'for a new role there is no memory');
is(sql(q{SELECT share('map', 'lent', 'r1', 'read'), share('map', 'lent', 'r1', 'read'), share('map', 'lent', 'r2', 'read')}), 't|f|t', 'for those that were there it needs none');
is(sql(q{SET ROLE r1; SELECT map_get('lent', 'k')}), 'w', 'and they read');

# a role is gone
like(sql(q{SELECT share('map', 'lent', 'other', 'read')}), qr/ERROR:  54000/, 'they are as many as before');
is(q1("SELECT pg_cancel_backend($worker)"), 't', 'the worker is told to cancel, and has no statement');
q1('DROP ROLE leaver');
ok($node->poll_query_until('postgres', q{SELECT owner = current_user FROM nexusmem.structures WHERE name = 'left'}), 'what a dropped role owned has a new owner');
is(worker(), $worker, 'the memory worker goes on');
q1(q{SELECT map_drop('full')});
ok($node->poll_query_until('postgres', q{SELECT nexusmem.share('map', 'lent', 'other', 'read')}), 'and what was shared with the role can be shared with another one');
is(sql(q{SET ROLE other; SELECT map_get('lent', 'k')}), 'w', 'which reads');
is(sql(q{SET ROLE r63; SELECT map_put('lent', 'k', 'x')}), 'f', 'as do the ones before');

# the catalogs cannot be read
my $times_out = $node->pg_version >= 17;
my ($s, $other);
{
	local $ENV{PGOPTIONS} = '-c transaction_timeout=0' if $times_out;
	($s, $other) = map { session($node) } 1 .. 2;
}
my $from = -s $node->logfile;
if ($times_out)
{
	# for sessions, and not for the worker; only now, for a login is a transaction as well
	$node->append_conf('postgresql.conf', 'transaction_timeout = 500ms');
	$node->reload;
	$node->wait_for_log(qr/parameter "transaction_timeout" changed/, $from);
}
ask($s, 'BEGIN; LOCK TABLE pg_authid IN ACCESS EXCLUSIVE MODE');
ask($other, 'DROP DATABASE IF EXISTS nothing');
ok($node->wait_for_log(qr/WARNING:  nexusmem could not look for structures of dropped databases and roles: canceling statement due to lock timeout/, $from),
	'the worker cannot look at the catalogs, and says so');
is(ask($other, q{SELECT pid FROM pg_stat_get_activity(NULL) WHERE backend_type = 'nexusmem memory'}), $worker, 'and goes on');
SKIP:
{
	skip 'no compiler', 1 if !%clock;
	# not while it waits for the lock, which it would do until the clock has caught up
	ask($s, 'COMMIT');
	append_to_file("$dir/back", 'x');
	$from = -s $node->logfile;
	ask($s, 'BEGIN; LOCK TABLE pg_authid IN ACCESS EXCLUSIVE MODE');
	ask($other, 'DROP DATABASE IF EXISTS nothing');
	ok($node->wait_for_log(qr/WARNING:  nexusmem could not look for structures of dropped databases and roles/, $from), 'the clock set back: it does not wait with that');
}
$node->stop;
unlink "$dir/back";
$node->append_conf('postgresql.conf', 'transaction_timeout = 0') if $times_out;
close_session($_) foreach $s, $other, $filler;
$node->start;
is(q1(q{SELECT map_get('lent', 'k'), counter_get('left')}), 'x|1', 'a shutdown then saves all');
is(sql(q{SET ROLE other; SELECT map_get('lent', 'k')}), 'x', 'with whom it is shared');

# who may use the schema: what the script grants is not dumped, what others did is
sub dumped
{
	my ($db) = @_;
	# its statements have words in them that the log is searched for
	local $ENV{PGOPTIONS} = '-c log_statement=none';
	my ($out) = run_command([ 'pg_dump', '-s', '-d', $node->connstr($db) ]);
	return join '; ', $out =~ /^(?:GRANT|REVOKE) \w+ ON SCHEMA nexusmem .*(?=;)/mg;
}
my $grant = 'GRANT USAGE ON SCHEMA nexusmem TO other';
q1("CREATE DATABASE $_") foreach 'again', 'before', 'defaults';
$node->safe_psql('again', "CREATE EXTENSION nexusmem; $grant");
is(dumped('again'), $grant, 'pg_dump has what was granted on the schema');
$node->safe_psql('again', 'DROP EXTENSION nexusmem; CREATE EXTENSION nexusmem');
is(dumped('again'), $grant, 'also after the extension was made anew');
$node->safe_psql('before', "CREATE SCHEMA nexusmem; $grant; CREATE EXTENSION nexusmem");
is(dumped('before'), $grant, 'and what was granted before it was made');
$node->safe_psql('defaults', "ALTER DEFAULT PRIVILEGES GRANT USAGE ON SCHEMAS TO other; CREATE EXTENSION nexusmem");
is(dumped('defaults'), $grant, 'and what default privileges granted');
is($node->safe_psql($_, q{SELECT has_schema_privilege('pg_monitor', 'nexusmem', 'USAGE')}), $_ eq 'again' ? 't' : 'f', "database $_: pg_monitor is given a schema that had no grants alone") foreach 'again', 'before', 'defaults';
$node->stop;
unlike(server_log($node), qr/terminated by signal|TRAP|PANIC|leak/, 'the log is quiet');
done_testing();

# Without the memory worker, as where max_worker_processes leaves no room: sessions load what
# was saved, and look for what belonged to dropped databases and roles.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use NxmTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

needs_shm(32);

my $node = PostgreSQL::Test::Cluster->new('without_worker');
$node->init;
$node->append_conf('postgresql.conf', q{
shared_preload_libraries = 'nexusmem'
autovacuum = off
nexusmem.memory_limit = 20MB
});
my $from = 0;

sub sql { return $node->safe_psql('postgres', $_[0]); }
# More than half of the limit.
sub fill { return qq{SELECT count(nexusmem.map_put('$_[0]', i::text, repeat('x', 1000))) FROM generate_series(1, 12000) i}; }

# What a session's load leaves out is for the log: a name may be another role's, of another
# database, in an encoding that the session's client could not be sent.
$node->start;
sql(q{CREATE EXTENSION nexusmem; GRANT USAGE ON SCHEMA nexusmem TO PUBLIC; CREATE ROLE bob LOGIN; CREATE ROLE dave});
sql(q{SELECT nexusmem.counter_add('c', 12); CREATE DATABASE latin ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0});
$node->safe_psql('latin', "CREATE EXTENSION nexusmem; SET client_encoding = 'LATIN1'; " . fill("gr\xf6\xdfe"));
$node->append_conf('postgresql.conf', "max_worker_processes = 0\nnexusmem.memory_limit = 8MB");
$node->stop;
$from = -s $node->logfile;
$node->start;
{
	local $ENV{PGCLIENTENCODING} = 'LATIN1';
	my $rc = $node->psql('postgres', q{SET client_min_messages = log; SELECT nexusmem.counter_get('not there')}, extra_params => [ '-U', 'bob' ], stdout => \my $out, stderr => \my $err);
	is("$rc|$out", '0|', 'less memory than saved: a session loads');
	unlike($err, qr/saved|loaded|ERROR|WARNING/, 'of which it is told nothing');
}
my $log = server_log($node, $from);
like($log, qr/WARNING:  saved map "gr\xf6\xdfe" was not loaded: .*limit/, 'the log is told which');
like($log, qr/WARNING:  saved structures in file .* were not loaded: 1 of 2 could not be/, 'and of the file');
is(sql(q{SELECT nexusmem.counter_get('c')}), '12', 'what fits is there');

# What belonged to a database that was dropped where the library did not see it, as on the
# primary of a standby, goes when there is no memory ...
sub drop_unseen { return sql(q{CHECKPOINT; SET allow_system_table_mods = on; DELETE FROM pg_database WHERE datname = 'other'}); }
sub fill_other
{
	sql('CREATE DATABASE other');
	return is($node->safe_psql('other', 'CREATE EXTENSION nexusmem; ' . fill('wide')), '12000', 'another database has filled memory');
}
$node->append_conf('postgresql.conf', 'nexusmem.memory_limit = 20MB');
$node->reload;
$node->poll_query_until('postgres', q{SELECT current_setting('nexusmem.memory_limit') = '20MB'});
my $s = session($node);
is(ask($s, q{SELECT nexusmem.counter_add('c', 1)}), '13', 'a session that has used structures');
fill_other();
like(ask($s, fill('wide')), qr/memory limit/, 'there is no room for as much again');
is(ask($s, q{SELECT nexusmem.map_drop('wide')}), 't', 'dropped');
drop_unseen();
is(ask($s, fill('wide')), '12000', 'there is where that database was dropped');
is(ask($s, q{SELECT nexusmem.map_drop('wide')}), 't', 'dropped again');

# ... when a session comes to use structures, ...
my $little = q{SELECT sum(used_bytes) < 8000000 FROM nexusmem.node_memory};
# who drops something helps for a moment; $s, which has used structures before, looks for nothing
sub is_freed
{
	my ($what) = @_;
	for (1 .. 50)
	{
		last if sql($little) eq 't';
		ask($s, q{SELECT nexusmem.counter_drop('passing') FROM nexusmem.counter_add('passing')});
	}
	return is(sql($little), 't', $what);
}
fill_other();
drop_unseen();
is(sql($little), 'f', 'a dropped database has memory yet');
is(sql(q{SELECT nexusmem.counter_get('c')}), '13', 'a session comes to use structures');
is_freed('that frees it');

# ... and before a database is made, which may have its OID; who drops something frees it.
fill_other();
drop_unseen();
sql('CREATE DATABASE another');
is_freed('a database was made: what belonged to the dropped one is gone');

# A role that a session has dropped itself it may have back.
sql(q{SET ROLE dave; SELECT nexusmem.counter_add('his', 1)});
my $owner = q{SELECT owner FROM nexusmem.structures WHERE name = 'his'};
is(sql("BEGIN; DROP ROLE dave; SELECT nexusmem.counter_get('his'); ROLLBACK; $owner"), "1\ndave", 'a DROP ROLE that is not committed');
sql('DROP ROLE dave');
is(sql("SELECT owner::text = current_user FROM ($owner) s"), 't', 'one that is');
close_session($s);
$node->stop;
unlike(server_log($node), qr/terminated by signal|TRAP|PANIC/, 'the log is quiet');
done_testing();

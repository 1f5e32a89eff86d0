# Learned look-ahead in checks of foreign keys. PostgreSQL 19's scan the referenced index
# themselves; where blocks are predicted, messages are accepted in the middle of that by
# which what the check has cached of the foreign key is invalid.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use NxmTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PostgreSQL::Test::Cluster->new('foreign_keys');
$node->init;
$node->append_conf('postgresql.conf', q{
shared_preload_libraries = 'nexusmem'
autovacuum = off
nexusmem.enable_learned_prefetch = on
nexusmem.predictor_memory = 2MB
});
$node->start;

# 19 checks the rows of a statement in batches of 64: of two columns, one after the other
$node->safe_psql('postgres', <<'SQL');
CREATE EXTENSION nexusmem;
CREATE TABLE referenced AS SELECT k AS a, k AS b, repeat('r', 900) AS pad FROM (SELECT k FROM generate_series(0, 9999) k ORDER BY hashint4(k)) s;
ALTER TABLE referenced ADD PRIMARY KEY (a, b);
CREATE TABLE referring (n int, a int, b int, CONSTRAINT refers FOREIGN KEY (a, b) REFERENCES referenced);
CREATE FUNCTION wait_at_128() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	IF NEW.n = 128 THEN
		PERFORM pg_advisory_lock(1);
	END IF;
	RETURN NULL;
END $$;
-- before the check, by its name
CREATE TRIGGER "A" AFTER INSERT ON referring FOR EACH ROW EXECUTE FUNCTION wait_at_128();
CREATE FUNCTION look_up(first int, last int) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
	row text; bytes bigint := 0;
BEGIN
	FOR n IN first .. last LOOP
		SELECT pad INTO row FROM referenced WHERE a = n * 31 % 10000 AND b = n * 31 % 10000;
		bytes := bytes + length(row);
	END LOOP;
	RETURN bytes;
END $$;
VACUUM (FREEZE, ANALYZE) referenced;
SQL
sub active
{
	return $node->poll_query_until('postgres', q{SELECT state FROM nexusmem.status WHERE feature = 'learned look-ahead'}, 'active');
}
# what has been predicted, in a session
my $counts = q{SELECT issued + skipped FROM nexusmem.session_prefetch() WHERE kind = 'learned'};

$node->restart;
ok(active(), 'status');
is($node->safe_psql('postgres', 'SELECT look_up(65, 128)'), 64 * 900, 'a sequence is taught');
$node->restart;
ok(active(), 'status after a restart');

my $from = -s $node->logfile;
my $locker = session($node);
ask($locker, 'SELECT pg_advisory_lock(1)');
my $s = session($node);
# its index is one that learned look-ahead has a seat in
ask($s, 'SELECT look_up(1, 1)');
my $before = ask($s, $counts);
send_query($s, 'INSERT INTO referring SELECT n, k, k FROM (SELECT n, CASE WHEN n > 64 THEN n * 31 % 10000 ELSE 31 END AS k FROM generate_series(1, 128) n ORDER BY n) s');
ok(wait_until($node, q{SELECT count(*) > 0 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted}), 'in front of the last check');
# told to the session as soon as it asks
$node->safe_psql('postgres', q{UPDATE pg_constraint SET conname = conname WHERE conname = 'refers'});
ask($locker, 'SELECT pg_advisory_unlock(1)');
is(eval { answer($s) } // 'lost', '', 'the rows are checked');
is(eval { ask($s, 'SELECT count(*) FROM referring') } // 'lost', 128, 'and there');
my $after = eval { ask($s, $counts) } // 'lost';
cmp_ok($after, '>', $before, 'in which blocks are predicted');
unlike(server_log($node, $from), qr/terminated by signal|TRAP/, 'nothing crashed');
close_session($s);
close_session($locker);
done_testing();

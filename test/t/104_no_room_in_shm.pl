# A start with a /dev/shm that has no room for what was saved: what fits is loaded, and the
# rest is in the file that is kept beside.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use NxmTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

needs_shm(128);
plan skip_all => 'not allowed to mount here' if !may_mount();

my $node = PostgreSQL::Test::Cluster->new('no_room_in_shm');
$node->init;
$node->append_conf('postgresql.conf', q{
shared_preload_libraries = 'nexusmem'
nexusmem.num_nodes = 1
nexusmem.memory_limit = 80MB
nexusmem.cache_size = 16MB
nexusmem.save = all
autovacuum = off
});
my $file = $node->data_dir . '/pg_nexusmem/structures';
my $from = 0;

sub q1 { return $node->safe_psql('postgres', $_[0]); }
# The part of the log since this was called last.
sub news { return log_since($node, \$from); }
sub status { return q1(q{SELECT state || ': ' || detail || ' ' || hint FROM nexusmem.status WHERE feature = 'saved structures'}); }

# values of 1,000 bytes
$node->start;
q1(q{CREATE EXTENSION nexusmem;
SELECT nexusmem.counter_set('c', 7), nexusmem.counter_create('striped', true), nexusmem.counter_add('striped', 8);
SELECT count(nexusmem.map_put('large', k::text, repeat('x', 1000))) FROM generate_series(1, 25000) k;
SELECT count(nexusmem.map_put('small', k::text, repeat('x', 1000))) FROM generate_series(1, 1000) k;
SELECT count(nexusmem.stack_push('deep', k || repeat('x', 1000))) FROM generate_series(1, 20000) k;
SELECT count(nexusmem.stack_push('flat', k || repeat('x', 1000))) FROM generate_series(1, 1000) k;
SELECT count(nexusmem.queue_push('long', k || repeat('x', 1000))) FROM generate_series(1, 20000) k;
SELECT count(nexusmem.queue_push('short', k || repeat('x', 1000))) FROM generate_series(1, 1000) k;
SELECT count(nexusmem.cache_set('k' || k, k || repeat('x', 1000))) FROM generate_series(1, 12000) k});
my $structures = q{SELECT string_agg(kind || ' ' || name || ' ' || coalesce(entries::text, '-'), ',' ORDER BY kind, name) FROM nexusmem.structures WHERE kind <> 'cache'};
my $all = q1($structures);
my $fits = join ',', grep { !/large|deep|long/ } split /,/, $all;
my $cached = q{SELECT count(*) FROM generate_series(1, 12000) k WHERE nexusmem.cache_get('k' || k) = k || repeat('x', 1000)};
$node->stop;
cmp_ok(-s $file, '>', 75_000_000, 'more than 75 MB are saved');
news();

is(start_in_small_shm($node, 16), 0, '/dev/shm of 16 MB: the server starts');
is(q1($structures), $fits, 'what fits is there, and what does not is left out whole');
is(q1(q{SELECT nexusmem.counter_get('c'), nexusmem.counter_get('striped'),
	(SELECT count(*) FROM generate_series(1, 1000) k WHERE nexusmem.map_get('small', k::text) = repeat('x', 1000)),
	(SELECT bool_and(nexusmem.stack_pop('flat') = k || repeat('x', 1000)) FROM generate_series(1000, 501, -1) k),
	(SELECT bool_and(nexusmem.queue_pop('short') = k || repeat('x', 1000)) FROM generate_series(1, 500) k)}), '7|8|1000|t|t', 'as it was');
my ($entries, $right) = (q1('SELECT sum(entries) FROM nexusmem.stat_cache'), q1($cached));
cmp_ok($entries, '>', 1000, 'of the cache there is as much as has room');
cmp_ok($entries, '<', 12000, 'and no more');
is($right, $entries, 'as it was, too');
# the last that is done about it
ok($node->wait_for_log(qr/were not loaded: 3 of/, $from), 'what was not loaded is told');
my $log = news();
like($log, qr/WARNING:  saved $_ was not loaded: the operating system has no more shared memory/, "the log tells of $_") foreach 'map "large"', 'stack "deep"', 'queue "long"';
my $total = () = $all =~ /,/g;
$total += 2;
like($log, qr/LOG:  loaded @{[$total - 3]} of $total saved structures/, 'how many were loaded');
like($log, qr/WARNING:  saved structures in file .* were not loaded: 3 of $total could not be/, 'and of the file');
is(status(), "degraded: 3 of $total saved structures were not loaded See the server's log.", 'as status does');
ok(!-e $file && -s "$file.refused", 'the file is kept beside');
is(q1(q{SELECT nexusmem.map_put('small', 'new', 'v'), nexusmem.cache_set('new', 'v'), nexusmem.cache_get('new')}), 't||v', 'and there is room for more');
unlike($log . news(), qr/terminated by signal|TRAP|PANIC|malformed/, 'no SIGBUS');
ok($node->stop('fast', fail_ok => 1), 'the server stops');
like(news(), qr/LOG:  saved @{[$total - 3]} shared structures/, 'and saves what it had');

# all of it, as the documentation says
rename "$file.refused", $file or die $!;
$node->start;
is(q1($structures), $all, 'the file renamed, and a /dev/shm with room: all structures are there');
is(q1($cached), 12000, 'and all of the cache');
is(q1(q{SELECT nexusmem.map_get('small', 'new') IS NULL}), 't', 'and nothing later');
unlike(news(), qr/WARNING/, 'without a warning');
$node->stop;
news();

# less than the smallest segment takes, when PostgreSQL has got the MB that it begins with
is(start_in_small_shm($node, 4, 'head -c 2400K /dev/zero >/dev/shm/filler'), 0, '/dev/shm with room for nothing: the server starts');
is(q1('SELECT count(*) FROM nexusmem.structures'), '0', 'empty');
my (undef, undef, $err) = $node->psql('postgres', q{SELECT nexusmem.counter_add('c')}, extra_params => [ '-v', 'VERBOSITY=verbose' ]);
like($err, qr/ERROR:  53200/, 'and a write is an error');
is(q1(q{SELECT nexusmem.cache_set('k', 'v'), nexusmem.cache_get('k') IS NULL}), '|t', 'but of a cache');
ok($node->wait_for_log(qr/were not loaded: $total of/, $from), 'what was not loaded is told');
like(status(), qr/^degraded: $total of $total saved structures were not loaded/, 'status tells');
ok(!-e $file && -s "$file.refused", 'the file is kept beside');
q1(q{COPY (SELECT 1) TO PROGRAM 'cat >/dev/null; rm /dev/shm/filler'});
is(q1(q{SELECT nexusmem.counter_add('c')}), '1', 'with some room there is no error');
unlike(news(), qr/terminated by signal|TRAP|PANIC|malformed/, 'no SIGBUS');
$node->stop;
done_testing();

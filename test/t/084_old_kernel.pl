# Kernels that cannot be asked for memory before it is touched (Linux before 5.14), or do not
# take any back: segments stay as they were made, and a full /dev/shm is an error there, too.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use NxmTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

needs_shm(96);

my $MB = 1048576;
my $deny = PostgreSQL::Test::Utils::tempdir() . '/deny';
plan skip_all => 'no compiler, or no seccomp on this kernel'
  if system("cc -O2 -o '$deny' '$FindBin::RealBin/../numa/deny.c' 2>/dev/null && '$deny' madvise_populate,madvise_remove -- true") != 0;

my $node = PostgreSQL::Test::Cluster->new('old_kernel');
$node->init;
$node->append_conf('postgresql.conf', q{
shared_preload_libraries = 'nexusmem'
nexusmem.num_nodes = 1
nexusmem.memory_limit = 24MB
nexusmem.cache_size = 8MB
nexusmem.save = all
autovacuum = off
});

sub q1 { return $node->safe_psql('postgres', $_[0]); }

# sql($sql): what psql says to it, errors with their SQLSTATE.
sub sql
{
	my ($rc, $out, $err) = $node->psql('postgres', $_[0], extra_params => [ '-v', 'VERBOSITY=verbose' ]);
	return "$out$err";
}

# fill($map, $from, $to): that many values of 1,000 bytes. read_all() counts those that are right.
sub fill { return "SELECT count(nexusmem.map_put('$_[0]', k::text, repeat('x', 1000))) FROM generate_series($_[1], $_[2]) k"; }
sub read_all { return "SELECT count(*) FROM generate_series(1, $_[1]) k WHERE nexusmem.map_get('$_[0]', k::text) = repeat('x', 1000)"; }
sub fill_cache { return "SELECT count(nexusmem.cache_set('k' || i, repeat('y', 1000))) FROM generate_series(1, $_[0]) i"; }
my $own = q{nexusmem.node_memory WHERE owner IN ('structures', 'caches')};
sub reserved { return q1("SELECT sum(reserved_bytes) FROM $own"); }
sub status { return q1(q{SELECT state || ': ' || detail || coalesce(' [' || hint || ']', '') FROM nexusmem.status WHERE feature = 'structure memory'}); }

# allocated(): bytes that files of the server's segments have. Of memory that was allocated and
# never touched mincore(), and so node_memory, says nothing.
sub allocated
{
	my $s = session($node);
	ask($s, 'SELECT * FROM nexusmem.node_memory');
	my %file = map { $_ => 1 } slurp_file("/proc/$s->{pid}/maps") =~ m{(/dev/shm/PostgreSQL\.\d+)}g;
	my $bytes = 0;
	$bytes += 512 * (stat $_)[12] foreach keys %file;
	close_session($s);
	return $bytes;
}

# set_limits($memory_limit, $cache_size), in MB, and status knows them
sub set_limits
{
	my @mb = @_;
	q1("ALTER SYSTEM SET nexusmem.memory_limit = '$mb[0]MB'");
	q1("ALTER SYSTEM SET nexusmem.cache_size = '$mb[1]MB'");
	$node->reload;
	return wait_until($node, qq{SELECT count(*) = 2 FROM nexusmem.status
		WHERE (feature = 'structure memory' AND detail LIKE '% of $mb[0].0 MB;%') OR (feature = 'cache' AND detail LIKE '% of $mb[1].0 MB,%')});
}

# little(): something of each kind, which $little reads.
sub little
{
	return q1(q{SELECT nexusmem.counter_set('c', 7), nexusmem.map_put('l', 'k', 'v'), nexusmem.cache_set('c', repeat('c', 100000), '1 day'), nexusmem.cache_set('d', 'd', NULL, 'another');
		SELECT count(nexusmem.stack_push('s', k || repeat('s', 500))), count(nexusmem.queue_push('q', k || repeat('q', 500))) FROM generate_series(1, 1000) k});
}
my $little = q{SELECT nexusmem.counter_get('c'), nexusmem.map_get('l', 'k'), nexusmem.cache_get('c') = repeat('c', 100000), nexusmem.cache_get('d', 'another'), nexusmem.stack_depth('s'), nexusmem.queue_length('q')};

# Limits reached, lowered and raised again, and a restart.
sub try_limits
{
	my ($told, @behind) = @_;
	is(sql(fill_cache(15000)), '15000', 'a cache is filled past its limit');
	like(sql(fill('m', 1, 30000)), qr/ERROR:  53400/, 'and a map to its limit');
	my $size = q1(q{SELECT nexusmem.map_size('m')});
	cmp_ok($size, '>', 20000, 'which was full');
	is(q1(read_all('m', $size)), $size, 'and has all of it');
	my $reserved = reserved();
	cmp_ok(allocated(), '>=', $reserved, 'all of the segments is there');
	ok(set_limits(8, 2), 'the limits are lowered');
	like(sql(fill('m', 30001, 30100)), qr/ERROR:  53400/, 'no more is stored');
	is(q1(qq{SELECT count(*) FILTER (WHERE nexusmem.map_delete('m', k::text)) FROM generate_series(3001, $size) k}), $size - 3000, 'what is deleted');
	ok(wait_until($node, "SELECT sum(used_bytes) < 7 * $MB FROM $own"), 'does not count any more, nor what gave way in the cache') or diag(status());
	cmp_ok(allocated(), '>=', $reserved, 'but the memory stays');
	is(sql(fill('m', 3001, 5000)), '2000', 'there is room below the limit');
	is(q1(read_all('m', 5000)), '5000', 'in which is what was stored');
	ok(set_limits(24, 8), 'the limits are raised');
	is(sql(fill('m', 5001, 20000) . ';' . fill_cache(5000)), "15000\n5000", 'about as much as before is stored');
	is(q1(read_all('m', 20000)), '20000', 'and read');
	is(reserved(), $reserved, 'in the memory that there was');
	is(q1(q{SELECT nexusmem.map_drop('m'), nexusmem.cache_clear() > 4000}), 't|t', 'dropped and cleared');
	ok(wait_until($node, "SELECT sum(used_bytes) < 4 * $MB FROM $own"), 'nothing of it counts') or diag(status());
	is(q1(q{SELECT bool_and(buffers >= 0) FROM nexusmem.shared_buffers_nodes}), 't', 'buffers are counted');

	little();
	is(sql(fill('m', 1, 5000)), '5000', 'something of each kind');
	$node->stop;
	is(start_behind($node, @behind), 0, 'a restart');
	is(q1($little), '7|v|t|d|1000|1000', 'loads what was saved');
	is(q1(read_all('m', 5000)), '5000', 'all of it');
	cmp_ok(reserved(), '<=', $reserved / 2, 'into less memory');
	cmp_ok(allocated(), '>=', reserved(), 'all of which is there');
	like(status(), qr/^degraded: .*$told/, 'as status tells');
	q1(q{SELECT nexusmem.map_drop('m')});
	return;
}

# A /dev/shm that is too small, in a mount namespace of its own.
sub try_small_shm
{
	my ($told, @behind) = @_;
	my $in_program = 'COPY (SELECT 1) TO PROGRAM';

	is(start_in_small_shm($node, 16, undef, @behind), 0, '/dev/shm of 16 MB: the server starts');
	is(q1($little), '7|v|t|d|1000|1000', 'and loads what was saved');
	# no page of a segment is touched before somebody uses it
	is(sql(fill('m', 1, 6000)), '6000', 'a map has one segment and a part of another');
	is(sql(qq{$in_program 'cat >/dev/null; head -c 64M /dev/zero >/dev/shm/filler 2>/dev/null; test \$(df --output=avail /dev/shm | tail -1) = 0'}), '', 'a file takes what is left');
	my $no_space = qr/ERROR:  53200: the operating system has no more shared memory.*HINT:  [^\n]*\/dev\/shm/s;
	like(sql(fill('m', 6001, 30000)), $no_space, 'the map can be filled to the end of its segments');
	cmp_ok(q1(qq{SELECT sum(used_bytes) FROM $own}), '>', reserved() * 0.9, 'of which all can be used');
	is(sql(qq{$in_program 'cat >/dev/null; rm /dev/shm/filler'}), '', 'the file goes');
	like(sql(fill('m', 1, 30000)), $no_space, 'full once more');
	like(sql(q{SET statement_timeout = '20s'; SELECT count(nexusmem.map_put('m', 'long', repeat('y', 1000000)))}), $no_space, 'for a value of many pages, too');
	my $size = q1(q{SELECT nexusmem.map_size('m')});
	cmp_ok($size, '>', 8000, 'most of it was used');
	is(q1(read_all('m', $size)), $size, 'nothing that was stored is lost');
	is(q1($little), '7|v|t|d|1000|1000', 'nor what was loaded');
	is(q1("SELECT count(*) FILTER (WHERE nexusmem.map_delete('m', k::text)) FROM generate_series(101, $size) k"), $size - 100, 'what is deleted');
	my $again = int($size * 0.9);
	is(sql(fill('m', 101, $again)), $again - 100, 'leaves memory');
	is(q1(read_all('m', $again)), $again, 'for other values');
	is(sql(fill_cache(5000)), '5000', 'a cache is written to without an error');
	is(q1(q{SELECT nexusmem.cache_get('k5000') = repeat('y', 1000)}), 't', 'and read');
	like(q1(q{SELECT state || ': ' || detail || hint FROM nexusmem.status WHERE feature = 'cache'}), qr{^degraded: .*no memory to reach the limit.*/dev/shm}, 'status tells of it');
	like(status(), qr/^degraded: .*$told/, 'and of segments');
	q1("SELECT count(nexusmem.map_delete('m', k::text)) FROM generate_series(3001, $again) k");
	# in the cache these may have given way
	q1(q{SELECT nexusmem.cache_clear(), nexusmem.cache_set('c', repeat('c', 100000)), nexusmem.cache_set('d', 'd', NULL, 'another')});
	ok($node->stop('fast', fail_ok => 1), 'the server stops');
	is(start_in_small_shm($node, 16, undef, @behind), 0, 'and starts');
	is(q1($little), '7|v|t|d|1000|1000', 'and loads what was saved');
	is(q1(read_all('m', 3000)), '3000', 'all of it');
	return;
}

my $cannot = 'cannot be given back and taken again';
foreach my $kernel (
	[ 'does not populate', 'madvise_populate', qr/; memory of \d+ $cannot \[Use Linux 5\.14 or newer\.\]$/ ],
	[ 'takes no memory back', 'madvise_remove', qr/; this kind of memory of \d+ $cannot$/ ],
	[ 'does neither', 'madvise_populate,madvise_remove', qr/; memory of \d+ $cannot \[Use Linux 5\.14 or newer\.\]$/ ])
{
	my ($name, $calls, $told) = @$kernel;
	my @behind = ($deny, $calls, '--');
	my $from = -s $node->logfile // 0;

	is(start_behind($node, @behind), 0, "a kernel that $name: the server starts");
	q1('CREATE EXTENSION IF NOT EXISTS nexusmem');
	like(status(), qr/^active: 0\.0 of 24\.0 MB; .* 0 segments of 0\.0 MB$/, 'of no segment there is nothing to tell');
	little();
	like(status(), qr/^degraded: .*$told/, 'of one there is');
	is(q1($little), '7|v|t|d|1000|1000', 'another session finds what one has stored');
	is(q1(q{SELECT nexusmem.stack_pop('s') = '1000' || repeat('s', 500), nexusmem.queue_pop('q') = '1' || repeat('q', 500), nexusmem.counter_add('c'), nexusmem.map_delete('l', 'k'), nexusmem.cache_delete('c'), nexusmem.cache_drop('another')}), 't|t|8|t|t|t', 'and takes it');
	is(q1(q{SELECT nexusmem.stack_drop('s'), nexusmem.queue_drop('q'), nexusmem.counter_drop('c'), nexusmem.map_drop('l')}), 't|t|t|t', 'and drops the rest');
	# where both are missing nothing else is done than where one is
	$calls =~ /,/ ? little() : try_limits($told, @behind);
	$node->stop;
	SKIP:
	{
		skip 'not allowed to mount here', 23 if !may_mount();
		try_small_shm($told, @behind);
		$node->stop;
	}
	unlike(server_log($node, $from), qr/terminated by signal|TRAP|PANIC|leak|not loaded/, 'the log is quiet');
	unlink $node->data_dir . '/pg_nexusmem/structures';
}
done_testing();

# Saves that fail or take too long: the shutdown is a clean one all the same, the log has a
# WARNING, and a file that was there before is whole. What a save that was cut short has left
# is not taken for a file.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use File::Copy;
use NxmTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PostgreSQL::Test::Cluster->new('save_fails');
$node->init;
$node->append_conf('postgresql.conf', "shared_preload_libraries = 'nexusmem'\nautovacuum = off\n");
my $dir = $node->data_dir . '/pg_nexusmem';
my $file = "$dir/structures";
my $tmp = "$file.tmp";
my $from = 0;

sub sql { return $node->safe_psql('postgres', $_[0]); }
sub counter { return sql(q{SELECT coalesce(nexusmem.counter_get('c')::text, 'none')}); }
# The part of the log since this was called last.
sub news { return log_since($node, \$from); }
sub state_of_cluster
{
	my ($state) = `pg_controldata '@{[$node->data_dir]}'` =~ /^Database cluster state: +(.*)$/m;
	return $state;
}
# fails($name, $what): a fast shutdown that cannot save, and says so.
sub fails
{
	my ($name, $what) = @_;
	news();
	$node->stop('fast');
	my $log = news();
	like($log, qr/WARNING:  shared structures were not saved: $what/, "$name: a warning");
	unlike($log, qr/ saved \d+ shared structure|FATAL:  (?!terminating)|PANIC|terminated by signal/, "$name: no more than that");
	is(state_of_cluster(), 'shut down', "$name: the shutdown is clean");
	return;
}
# starts_with($value, $name): the counter after a start.
sub starts_with
{
	my ($value, $name) = @_;
	news();
	$node->start;
	is(counter(), $value, $name);
	unlike(news(), qr/WARNING/, "$name: without a warning");
	return;
}

$node->start;
sql(q{CREATE EXTENSION nexusmem; SELECT nexusmem.counter_set('c', 1)});

# no place for the file
mkdir $dir or die "$dir: $!";
mkdir $file or die "$file: $!";
fails('a directory of that name', 'could not rename the file');
ok(-d $file && !-e $tmp, 'a directory of that name: nothing else is there');
rmdir $file;
starts_with('none', 'a directory of that name: nothing was saved');
sql(q{SELECT nexusmem.counter_set('c', 2)});
rmdir $dir;
append_to_file($dir, '');
fails('no directory', 'could not create the file');
starts_with('none', 'no directory: nothing was saved');
unlink $dir;

# a file that was there before
sql(q{SELECT nexusmem.counter_set('c', 3)});
$node->stop;
ok(-s $file && !-e $tmp, 'saved, when it can be');
copy($file, "$dir/older");
starts_with('3', 'and loaded');
sql(q{SELECT nexusmem.counter_set('c', 4)});
SKIP:
{
	skip 'root may write to any file', 7 if $> == 0;
	copy("$dir/older", $file);
	chmod 0400, $file;
	fails('an older file that cannot be replaced', 'could not rename the file');
	ok(slurp_file($file) eq slurp_file("$dir/older"), 'an older file that cannot be replaced: it is whole');
	ok(!-e $tmp, 'an older file that cannot be replaced: nothing else is there');
	unlink $file;
	starts_with('none', 'an older file that cannot be replaced: nothing was saved');
	sql(q{SELECT nexusmem.counter_set('c', 4)});
}

# what a save has left that was cut short: by a crash, as a crash of the machine
$node->stop;
copy($file, $tmp);
truncate $tmp, (-s $file) / 2;
starts_with('4', 'a part of a file besides a whole one: the whole one is loaded');
ok(!-e $tmp, 'and the part removed');
$node->stop;
rename $file, $tmp;
starts_with('none', 'a file that was not renamed yet: not loaded');
ok(!-e $tmp && !-e $file, 'and removed');
sql(q{SELECT nexusmem.counter_set('c', 5)});
mkdir $tmp or die "$tmp: $!";
fails('no name for it while it is written', 'could not create the file');
starts_with('none', 'no name for it while it is written: nothing was saved');
rmdir $tmp;
sql(q{SELECT nexusmem.counter_set('c', 6)});
$node->restart;
is(counter(), '6', 'and the next shutdown saves');

# learned sequences, of which an older file is there while the server runs
SKIP:
{
	skip 'root may write to any file', 6 if $> == 0;
	my $learned = "$dir/learned";
	my $state = q{SELECT state || ': ' || detail FROM nexusmem.status WHERE feature = 'learned look-ahead'};
	$node->append_conf('postgresql.conf', 'nexusmem.enable_learned_prefetch = on');
	$node->reload;
	$node->poll_query_until('postgres', "SELECT ($state) LIKE 'active: %'") or die sql($state);
	# which the worker saves at once
	sql('SELECT nexusmem.predictor_reset()');
	$node->poll_query_until('postgres', "SELECT ($state) LIKE '%; saved at %'") or die sql($state);
	copy($learned, "$dir/older");
	mkdir "$learned.tmp" or die "$learned.tmp: $!";
	sql('SELECT nexusmem.predictor_reset()');
	ok($node->poll_query_until('postgres', "SELECT ($state) LIKE 'degraded: %were not saved: could not create the file%'"), 'a reset that cannot be saved: status') or diag(sql($state));
	ok(!-e $learned, 'a reset that cannot be saved: what was reset is gone');
	copy("$dir/older", $learned);
	chmod 0400, $learned;
	rmdir "$learned.tmp";
	$node->append_conf('postgresql.conf', 'nexusmem.predictor_save_interval = 1');
	$node->reload;
	ok($node->poll_query_until('postgres', "SELECT ($state) LIKE 'degraded: %were not saved: could not rename the file%'"), 'learned sequences that cannot be saved: status') or diag(sql($state));
	$node->stop;
	is(state_of_cluster(), 'shut down', 'learned sequences that cannot be saved: the shutdown is clean');
	ok(slurp_file($learned) eq slurp_file("$dir/older") && !-e "$learned.tmp", 'the older file is whole, and nothing else is there');
	chmod 0600, $learned;
	append_to_file("$learned.tmp", 'half');
	$node->start;
	ok($node->poll_query_until('postgres', "SELECT ($state) LIKE 'active: %'"), 'and it is loaded, not the part of another one') or diag(sql($state));
}
$node->stop;

# 24 MB of a cache
sub put_wide { return sql(q{SELECT nexusmem.cache_create('wide'), count(nexusmem.cache_set(i::text, repeat('x', 1000000), NULL, 'wide')::text) FROM generate_series(1, 24) i}); }
# fits_without_caches($name, $what): a fast shutdown that saves structures, and no caches.
sub fits_without_caches
{
	my ($name, $what) = @_;
	news();
	$node->stop('fast');
	my $log = news();
	like($log, qr/LOG:  saved 1 shared structure,.*WARNING:  caches were not saved: $what/s, "$name: a warning");
	is(state_of_cluster(), 'shut down', "$name: the shutdown is clean");
	ok(-s $file && -s $file < 10000, "$name: structures are saved");
	return;
}

# a disk that fails while the file is written, long before its end, or is slow
my $shim_dir = PostgreSQL::Test::Utils::tempdir();
# 10 MB of a map
sub put_long { return sql(q{SELECT count(nexusmem.map_put('long', i::text, repeat('x', 1000000))) FROM generate_series(1, 10) i}); }
sub length_of_long { return sql(q{SELECT sum(length(nexusmem.map_get('long', i::text))) FROM generate_series(1, 10) i}); }
SKIP:
{
	my @shims = map { shim($shim_dir, $_) } 'flush_fails', 'flushes_told';
	skip 'no compiler', 24 if grep { $_ eq '' } @shims;
	# the checkpoint's own flushes would end the server
	$node->append_conf('postgresql.conf', "fsync = on\ncheckpoint_flush_after = 0\nbgwriter_flush_after = 0\nbackend_flush_after = 0\nnexusmem.enable_learned_prefetch = off\n");
	local @ENV{qw(LD_PRELOAD FLUSH_FAILS FLUSH_TAKES FLUSHES_TOLD FSYNC_FAILS)} =
	  ("@shims", "$shim_dir/fails", "$shim_dir/takes", "$shim_dir/told", "$shim_dir/no_room");
	$node->start;
	put_long();
	append_to_file("$shim_dir/fails", '');
	fails('a disk that fails', 'could not flush the file: Input/output error');
	ok(!-e $file && !-e $tmp, 'a disk that fails: nothing is there');
	unlink "$shim_dir/fails";
	$node->start;
	put_long();
	append_to_file("$shim_dir/fails", 'x');
	$node->restart;
	is(length_of_long(), '10000000', 'a kernel that cannot be told to write: saved all the same');
	unlike(news(), qr/WARNING/, 'a kernel that cannot be told to write: without a warning');
	unlink "$shim_dir/fails";

	# 31 seconds after 8 MB, of 30 that there are; then 21, of 20 for caches, which come last
	append_to_file("$shim_dir/takes", 'x' x 31);
	fails('a slow disk', 'writing took too long');
	ok(!-e $file && !-e $tmp, 'a slow disk: nothing is there');
	unlink "$shim_dir/takes";
	$node->append_conf('postgresql.conf', 'nexusmem.save = all');
	$node->start;
	put_long();
	sql(q{SELECT count(nexusmem.cache_set('k' || i, 'v', NULL, 'cut')::text) FROM generate_series(1, 100) i});
	append_to_file("$shim_dir/takes", 'x' x 21);
	news();
	$node->stop('fast');
	my $log = news();
	like($log, qr/LOG:  some entries of caches were not saved/, 'a disk that is slow for caches: said');
	unlike($log, qr/WARNING/, 'a disk that is slow for caches: without a warning');
	unlink "$shim_dir/takes";
	$node->start;
	is(length_of_long() . ' ' . sql(q{SELECT count(nexusmem.cache_get('k' || i, 'cut')) FROM generate_series(1, 100) i}), '10000000 0',
		'a disk that is slow for caches: the structures are there, entries of caches are not');
	sql(q{SELECT nexusmem.map_drop('long'), nexusmem.cache_drop('cut'), nexusmem.counter_set('c', 8)});
	# 31 after 8 MB of a cache
	put_wide();
	append_to_file("$shim_dir/takes", 'x' x 31);
	fits_without_caches('a disk that is too slow for caches', 'writing took too long');
	unlink "$shim_dir/takes";
	starts_with('8', 'a disk that is too slow for caches: structures are loaded');
	# room is looked for at last, as network file systems do
	put_wide();
	append_to_file("$shim_dir/no_room", 'x' x 20000);
	fits_without_caches('a disk that tells late of having no room', 'could not fsync the file: No space left on device');
	unlink "$shim_dir/no_room";
	starts_with('8', 'a disk that tells late of having no room: structures are loaded');

	# durable, whenever the machine should crash: the body before the header, which says that
	# the file is whole, and both before the name
	sql(q{SELECT nexusmem.counter_set('c', 7)});
	unlink "$shim_dir/told";
	$node->stop;
	my @told = slurp_file("$shim_dir/told") =~ m{^(\w+ (?:.*/)?pg_nexusmem(?:/[^/\n]*)?)$}mg;
	s{ .*?(?:pg_nexusmem/)?([^/]+)$}{ $1} for @told;
	# the first one: of the load, which ends after those have gone on that waited for it
	like(join(', ', @told), qr{^(?:fsync pg_nexusmem, )?fsync structures\.tmp, pwrite structures\.tmp, (?:fsync structures\.tmp, )+rename structures, fsync structures, fsync pg_nexusmem$},
		'flushed in this order');
	$node->append_conf('postgresql.conf', 'nexusmem.save = structures');
}

# a cache for which there is no room takes no structure along
$node->append_conf('postgresql.conf', 'nexusmem.save = all');
SKIP:
{
	skip 'prlimit does not work here', 10 if system("prlimit --pid $$ --fsize=unlimited: 2>/dev/null") != 0;
	$node->start;
	sql(q{SELECT nexusmem.counter_set('c', 9)});
	put_wide();
	my $limit = sub
	{
		workers_run($node);
		my $pid = sql(q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'nexusmem memory'});
		return is(system('prlimit', "--pid=$pid", '--fsize=20000000'), 0, $_[0]);
	};
	$limit->('a file may not be as long');
	fits_without_caches('a file that may not be as long', 'could not write the file: File too large');
	starts_with('9', 'a file that may not be as long: structures are loaded');
	# one of two caches alone is no file
	sql(q{SELECT nexusmem.counter_drop('c')});
	sql(qq{SELECT nexusmem.cache_create('$_'), count(nexusmem.cache_set(i::text, repeat('x', 1000000), NULL, '$_')::text) FROM generate_series(1, 12) i}) foreach 'one', 'two';
	$limit->('nor one of two caches');
	fails('two caches that do not fit', 'could not write the file: File too large');
}

# a disk that is nearly full: the server needs the rest for its checkpoint
sub start_on_disk_of
{
	my ($mb) = @_;
	my ($uid, $gid) = ($>, (split ' ', $))[0]);
	return started($node, system('unshare', '--user', '--map-root-user', '--mount', 'sh', '-c',
		"mount -t tmpfs -o size=${mb}m,mode=700 tmpfs '$dir' && exec unshare --user --map-user=$uid --map-group=$gid sh -c \"" .
		  "pg_ctl -D '@{[$node->data_dir]}' -l '@{[$node->logfile]}' -w -s start >/dev/null\""));
}
SKIP:
{
	skip 'not allowed to mount here', 9 if !may_mount();
	foreach ([ 32, 'WARNING:  shared structures were not saved: too little of the disk would be left to the server: No space left on device' ],
		[ 80, 'WARNING:  caches were not saved: too little of the disk would be left to the server: No space left on device' ],
		[ 512, 'LOG:  saved 1 shared structure,' ])
	{
		my ($mb, $said) = @$_;
		is(start_on_disk_of($mb), 0, "a disk of $mb MB: the server starts");
		sql(q{SELECT nexusmem.counter_set('c', 7)});
		put_wide() if $mb == 80;
		news();
		$node->stop;
		like(news(), qr/\Q$said/, "a disk of $mb MB: what is said");
		is(state_of_cluster(), 'shut down', "a disk of $mb MB: the shutdown is clean");
	}
}

# who may read a data directory may read what is saved there
my $readable = PostgreSQL::Test::Cluster->new('save_group_access');
$readable->init(extra => ['--allow-group-access']);
$readable->append_conf('postgresql.conf', "shared_preload_libraries = 'nexusmem'\n");
$readable->start;
$readable->safe_psql('postgres', q{CREATE EXTENSION nexusmem; SELECT nexusmem.counter_set('c', 1)});
$readable->stop;
is(sprintf('%o %o', map { (stat $readable->data_dir . "/pg_nexusmem$_")[2] & 07777 } '', '/structures'), '750 640', 'group access');

unlike(server_log($node), qr/TRAP|PANIC|terminated by signal|leak/, 'the log is quiet');
done_testing();

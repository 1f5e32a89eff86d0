# Node memory: growth, the limit, giving back, every kind of dynamic shared memory,
# a /dev/shm that is too small, stopped and killed processes, no preloading.
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
my $node;

sub q1 { return $node->safe_psql('postgres', $_[0]); }

# sql($sql): what psql says to it, errors with their SQLSTATE.
sub sql
{
	my ($rc, $out, $err) = $node->psql('postgres', $_[0], extra_params => [ '-v', 'VERBOSITY=verbose' ]);
	return "$out$err";
}

# fill($map, $from, $to): that many values of 1,000 bytes.
sub fill
{
	my ($map, $from, $to) = @_;
	return sql("SELECT count(nexusmem.map_put('$map', k::text, repeat('x', 1000))) FROM generate_series($from, $to) k");
}
sub used { return q1('SELECT sum(used_bytes) FROM nexusmem.node_memory'); }
sub resident { return q1('SELECT sum(resident_bytes) FROM nexusmem.node_memory'); }
sub status { return q1(q{SELECT state || ': ' || detail FROM nexusmem.status WHERE feature = 'structure memory'}); }

# wait_for($sql): until it is true.
sub wait_for { return wait_until($node, $_[0]); }

sub set_limit
{
	my ($limit) = @_;
	q1("ALTER SYSTEM SET nexusmem.memory_limit = '$limit'");
	$node->reload;
	return wait_for("SELECT current_setting('nexusmem.memory_limit') = '$limit'");
}

sub make
{
	my ($name, $conf) = @_;
	$node = PostgreSQL::Test::Cluster->new($name);
	$node->init;
	$node->append_conf('postgresql.conf', "shared_preload_libraries = 'nexusmem'\n$conf");
	return;
}

# growth
make('memory', "nexusmem.memory_limit = '64MB'\nnexusmem.num_nodes = 1\nrestart_after_crash = on\n");
$node->start;
q1('CREATE EXTENSION nexusmem');
is(q1(q{SELECT node, owner, reserved_bytes, used_bytes, resident_bytes FROM nexusmem.node_memory WHERE owner = 'structures'}), '0|structures|0|0|0', 'nothing is taken before it is needed');
like(status(), qr/^active: 0\.0 of 64\.0 MB/, 'status of nothing');
is(fill('m', 1, 20000), '20000', '20,000 values of 1,000 bytes');
cmp_ok(used(), '>', 20 * $MB, 'take memory');
cmp_ok(used(), '<', 26 * $MB, 'and little more than they must');
# looking makes a page again that is given back at that moment
ok(wait_for(q{SELECT resident_bytes BETWEEN used_bytes AND used_bytes + 4 * 65536 FROM nexusmem.node_memory WHERE owner = 'structures'}), 'as much as the kernel says there is');
ok(wait_for(q{SELECT coalesce(on_node_bytes, resident_bytes) = resident_bytes FROM nexusmem.node_memory WHERE owner = 'structures'}), 'on its node');
like(status(), qr/in [2-9] segments/, 'in several segments, for it grew');
is(q1(q{SELECT count(*) FROM generate_series(1, 20000) k WHERE nexusmem.map_get('m', k::text) = repeat('x', 1000)}), '20000', 'another session maps them all');

# the limit
my $full = fill('m', 20001, 100000);
like($full, qr/ERROR:  53400: shared structures have reached their memory limit/, 'full: configuration_limit_exceeded');
like($full, qr/DETAIL:  The limit is 65536 kB/, 'which tells the limit');
like($full, qr/HINT:  .*nexusmem\.memory_limit/, 'and the setting');
my $size = q1(q{SELECT nexusmem.map_size('m')});
cmp_ok($size, '>', 50000, 'it was full');
cmp_ok(used(), '<=', 64 * $MB, 'and took no more than allowed');
is(q1(qq{SELECT count(*) FROM generate_series(1, $size) k WHERE nexusmem.map_get('m', k::text) = repeat('x', 1000)}), $size, 'nothing that was stored is lost');
like(sql(q{SET statement_timeout = '20s'; SELECT count(nexusmem.map_put('m', 'long', repeat('y', 1000000)))}), qr/ERROR:  53400/, 'a value of many pages');
set_limit('96MB');
is(fill('m', 90001, 90100), '100', 'raised while the server runs');
is(fill('n', 1, 1000), '1000', 'another map');
set_limit('32MB');
like(fill('m', 90101, 95000), qr/ERROR:  53400/, 'lowered below what is used: no more');
like(status(), qr/^degraded: .* of 32\.0 MB; .*; the limit is reached: writes that need memory may be refused$/, 'as status tells');
is(sql(q{SELECT nexusmem.map_clear('n')}), '1000', 'but a map is cleared');
is(q1(q{SELECT nexusmem.map_get('m', '90100') = repeat('x', 1000)}), 't', 'and what is stored stays');
q1(qq{SELECT count(nexusmem.map_delete('m', k::text)) FROM generate_series(1, $size) k});
ok(wait_for("SELECT sum(resident_bytes) < 16 * $MB FROM nexusmem.node_memory"), 'deleted: the kernel has the memory again')
  or diag(used() . ' used, ' . resident() . ' resident');
is(fill('m', 1, 10000), '10000', 'and there is room below the new limit');
like(status(), qr/^active: .* of 32\.0 MB/, 'as status tells');
q1(q{SELECT nexusmem.map_clear('m')});
ok(wait_for("SELECT sum(resident_bytes) < 8 * $MB FROM nexusmem.node_memory"), 'cleared');
# each takes 16 pages, and gives them back when there are fewer
my $bigs = q{SET statement_timeout = '60s'; SELECT count(nexusmem.map_put('big', k::text, repeat('y', 1000000))) FROM generate_series(1, 100) k};
like(sql($bigs), qr/ERROR:  53400/, 'many values of many pages');
cmp_ok(q1(q{SELECT nexusmem.map_size('big')}), '>', 20, 'as many as there was room for');
q1(q{SELECT nexusmem.map_drop('big')});
ok(wait_for("SELECT sum(resident_bytes) < 8 * $MB FROM nexusmem.node_memory"), 'dropped');
like(sql('SET nexusmem.memory_limit = 1'), qr/55P02|cannot be changed now/, 'only in the configuration');
like(sql("ALTER SYSTEM SET nexusmem.memory_limit = '100kB'"), qr/22023/, 'a limit too small');
set_limit('64MB');

# a statement that began before a reload, with its workers, puts no old limit into force; nor
# does anybody put that right for the seconds that the memory worker needs to start again
q1('CREATE TABLE few AS SELECT generate_series(1, 1000) k');
my ($holder, $late) = (session($node), session($node));
ask($holder, 'SELECT pg_advisory_lock(1)');
ask($late, "$parallel_plans; SET parallel_leader_participation = off");
send_query($late, q{DO $$ BEGIN
	PERFORM pg_advisory_lock(1);
	PERFORM sum(length(nexusmem.map_get('m', k::text))) FROM few;
	RAISE NOTICE '%', (SELECT detail FROM nexusmem.status WHERE feature = 'structure memory');
END $$});
ok(wait_for("SELECT wait_event = 'advisory' FROM pg_stat_activity WHERE pid = $late->{pid}"), 'a statement has begun');
set_limit('48MB');
ok(wait_for(q{SELECT detail LIKE '% of 48.0 MB%' FROM nexusmem.status WHERE feature = 'structure memory'}), 'the limit is lowered');
# the one that is there, for another may come at any time
my $worker = q1(q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'nexusmem memory'});
q1("SELECT pg_terminate_backend($worker)");
ok(wait_for("SELECT count(*) = 0 FROM pg_stat_activity WHERE pid = $worker"), 'the memory worker is gone');
ask($holder, 'SELECT pg_advisory_unlock(1)');
like(answer($late), qr/ of 48\.0 MB/, 'and stays lowered in a parallel worker of that statement');
close_session($_) foreach $holder, $late;
set_limit('64MB');

# many come and go
my $before = used();
foreach my $round (1 .. 3)
{
	my @sessions = map { session($node) } 1 .. 10;
	ask($_, q{SELECT count(nexusmem.map_put('r', k::text || pg_backend_pid(), repeat('y', 100))) FROM generate_series(1, 200) k}) foreach @sessions;
	ask($_, q{SELECT count(nexusmem.map_delete('r', k::text || pg_backend_pid())) FROM generate_series(1, 200) k}) foreach @sessions;
	close_session($_) foreach @sessions;
}
ok(wait_for("SELECT sum(used_bytes) < $before + 3 * $MB FROM nexusmem.node_memory"), 'thirty backends leave nothing behind') or diag("$before, now " . used());
is(q1(q{SELECT nexusmem.map_size('r')}), 0, 'no entry');

# a process stopped in the middle: a long value keeps it there for much of the time
my $big = q{nexusmem.map_put('s', 'k', repeat('v', 15000))};
q1("SELECT $big");
my $reader = session($node);
# else it compiles for a while first, and reads nothing
ask($reader, 'SET jit = off');
$reader->{in} .= "SELECT count(v) FROM (SELECT nexusmem.map_get('s', 'k') AS v, generate_series(1, 1000000000)) x;\n";
$reader->{h}->pump_nb;
ok(wait_for("SELECT state = 'active' FROM pg_stat_activity WHERE pid = $reader->{pid}"), 'a reader at work');
# clock ticks for which it had a processor
my $ran = sub
{
	my ($rest) = slurp_file("/proc/$reader->{pid}/stat") =~ /.*\) (.*)/s;
	my @fields = split ' ', $rest;
	return $fields[11] + $fields[12];
};
my $seen = '';
foreach my $try (1 .. 40)
{
	kill 'STOP', $reader->{pid};
	# what it reads is replaced, and more than a process keeps for later
	q1("SELECT count($big) FROM generate_series(1, 200)");
	$seen = status();
	last if $seen =~ /^degraded/;
	my $before_it = $ran->();
	kill 'CONT', $reader->{pid};
	# it is elsewhere only when it has run
	foreach (1 .. 5000)
	{
		last if $ran->() > $before_it;
		select(undef, undef, undef, 0.001);
	}
}
like($seen, qr/^degraded: .*process $reader->{pid} is stopped/, 'status names a stopped process that holds memory back')
  or diag(q1("SELECT state, query FROM pg_stat_activity WHERE pid = $reader->{pid}") . $reader->{err});
like(q1(q{SELECT hint FROM nexusmem.status WHERE feature = 'structure memory'}), qr/kill -CONT/, 'and says how to end it');
is(fill('s', 1, 1000), '1000', 'while others go on');
q1("SELECT pg_terminate_backend($reader->{pid})");
kill 'CONT', $reader->{pid};
ok(wait_for(q{SELECT state = 'active' FROM nexusmem.status WHERE feature = 'structure memory'}), 'until it goes on')
  or diag(status());
eval { $reader->{h}->finish };
like($reader->{err}, qr/terminating connection due to administrator command/, 'and ends then, as it was told');
q1(q{SELECT nexusmem.map_clear('s')});
ok(wait_for("SELECT sum(used_bytes) < 8 * $MB FROM nexusmem.node_memory"), 'and then nothing is held back') or diag(used());

# a crash
is(fill('m', 1, 10000), '10000', 'before a crash');
my $victim = session($node);
ok(survives_kill($node, $victim->{pid}), 'a backend is killed: the server recovers');
eval { $victim->{h}->finish };
cmp_ok(used(), '<', 8 * $MB, 'and has forgotten the structures');
is(fill('m', 1, 10000), '10000', 'and can be filled again');
$node->stop;

# what memory can be made of
my %kind = (
	'dynamic_shared_memory_type = mmap' => 'mmap',
	'dynamic_shared_memory_type = sysv' => 'sysv',
	'min_dynamic_shared_memory = 20MB' => 'slices');
foreach my $conf (sort keys %kind)
{
	make($kind{$conf}, "$conf\nnexusmem.memory_limit = '32MB'\nnexusmem.cache_size = '8MB'\nnexusmem.save = 'all'\n");
	$node->start;
	q1('CREATE EXTENSION nexusmem');
	is(fill('m', 1, 15000), '15000', "$conf: filled");
	is(q1(q{SELECT count(*) FROM generate_series(1, 15000) k WHERE nexusmem.map_get('m', k::text) = repeat('x', 1000)}), '15000', 'and read');
	like(fill('m', 15001, 60000), qr/ERROR:  53400/, 'to its limit');
	q1(q{SELECT nexusmem.map_clear('m')});
	ok(wait_for("SELECT sum(used_bytes) < 8 * $MB FROM nexusmem.node_memory"), 'and given back');
	is(fill('m', 1, 15000), '15000', 'and filled again');
	like(status(), qr/^\w+: 1\d\.\d of 32\.0 MB; structures and caches lie in \d+ segments? of/, 'status knows it');
	is(q1(q{SELECT nexusmem.counter_create('striped', true), nexusmem.counter_add('striped', 3), nexusmem.counter_add('exact', 4);
		SELECT count(nexusmem.stack_push('s', k || repeat('s', k % 3000))), count(nexusmem.queue_push('q', k || repeat('q', k % 3000))) FROM generate_series(1, 1000) k}), "t||4\n1000|1000", 'other kinds of structures');
	is(q1(q{SELECT nexusmem.counter_add('exact', 1), nexusmem.counter_get('striped'), nexusmem.stack_pop('s') = '1000' || repeat('s', 1000), nexusmem.queue_pop('q') = '1q'}), '5|3|t|t', 'which another session uses');
	is(q1(q{SELECT count(nexusmem.cache_set('k' || k, k || repeat('c', 1000))) FROM generate_series(1, 12000) k}), '12000', 'a cache past its limit');
	my $cached = q{SELECT count(*) FROM generate_series(1, 12000) k WHERE nexusmem.cache_get('k' || k) = k || repeat('c', 1000)};
	my $entries = q1($cached);
	is(q1(qq{SELECT sum(evictions) > 0, sum(bytes + overhead_bytes) <= 8 * $MB FROM nexusmem.stat_cache}), 't|t', 'from which entries gave way');
	cmp_ok($entries, '>', 4000, 'and not too many');
	$node->restart;
	is(q1(q{SELECT count(*) FROM generate_series(1, 15000) k WHERE nexusmem.map_get('m', k::text) = repeat('x', 1000)}), '15000', 'a restart saves and loads the map');
	is(q1(q{SELECT nexusmem.counter_get('exact'), nexusmem.counter_get('striped'), nexusmem.stack_depth('s'), nexusmem.queue_length('q')}), '5|3|999|999', 'and the others');
	is(q1(q{SELECT bool_and(nexusmem.stack_pop('s') = k || repeat('s', k % 3000)), bool_and(nexusmem.queue_pop('q') = 1001 - k || repeat('q', (1001 - k) % 3000)) FROM generate_series(999, 1, -1) k}), 't|t', 'in their order');
	# which was full: what its first segments have no room for yet gives way
	cmp_ok(q1($cached), '>', $entries * 0.9, 'and the cache');
	unlike(server_log($node), qr/terminated by signal|TRAP|PANIC|leak/, 'and the log nothing');
	$node->stop;
}

# /dev/shm too small, in a mount namespace with a small one of its own
SKIP:
{
	skip 'not allowed to mount here', 14 if !may_mount();
	make('small', "nexusmem.num_nodes = 1\n");
	is(start_in_small_shm($node, 16), 0, '/dev/shm of 16 MB: the server starts');
	q1('CREATE EXTENSION nexusmem');
	my $no_space = fill('m', 1, 60000);
	like($no_space, qr/ERROR:  53200: the operating system has no more shared memory/, 'full: out_of_memory');
	like($no_space, qr{HINT:  .*/dev/shm}, 'with a hint');
	like(sql(q{SET statement_timeout = '20s'; SELECT count(nexusmem.map_put('m', 'long', repeat('y', 1000000)))}), qr/ERROR:  53200/, 'for a value of many pages too');
	$size = q1(q{SELECT nexusmem.map_size('m')});
	cmp_ok($size, '>', 5000, 'most of it was used');
	is(q1(qq{SELECT count(*) FROM generate_series(1, $size) k WHERE nexusmem.map_get('m', k::text) = repeat('x', 1000)}), $size, 'nothing that was stored is lost');
	q1(qq{SELECT count(nexusmem.map_delete('m', k::text)) FROM generate_series(1, $size) k});
	ok(wait_for("SELECT sum(resident_bytes) < 8 * $MB FROM nexusmem.node_memory"), 'and given back');
	like(sql($bigs), qr/ERROR:  53200/, 'many values of many pages');
	q1(q{SELECT nexusmem.map_drop('big')});
	is(fill('m', 1, 5000), '5000', 'and filled again');
	like(status(), qr/^active/, 'status');
	unlike(server_log($node), qr/terminated by signal|TRAP|PANIC/, 'no SIGBUS');
	$node->stop;

	# one without a limit says that it has no blocks at all
	make('unlimited', "nexusmem.num_nodes = 1\n");
	is(start_in_small_shm($node, 0), 0, '/dev/shm without a limit: the server starts');
	q1('CREATE EXTENSION nexusmem');
	is(fill('m', 1, 20000), '20000', 'filled');
	like(status(), qr/^active: .* in [2-9] segments/, 'and segments grow as in any other');
	$node->stop;
}

# not preloaded
make('plain', "shared_preload_libraries = ''\nrestart_after_crash = on\n");
$node->start;
q1('CREATE EXTENSION nexusmem');
if ($node->pg_version < 17)
{
	foreach my $call (q{map_put('m', 'k', 'v')}, q{map_get('m', 'k')})
	{
		like(sql("SELECT nexusmem.$call"), qr/ERROR:  55000:.*HINT:  .*shared_preload_libraries/s, "not preloaded: $call");
	}
	like(status(), qr/^off: /, 'status: off');
}
else
{
	is(status(), 'off: not preloaded: made when a structure is first used', 'status before it is used');
	is(fill('m', 1, 10000), '10000', 'not preloaded: filled');
	is(q1(q{SELECT count(*) FROM generate_series(1, 10000) k WHERE nexusmem.map_get('m', k::text) = repeat('x', 1000)}), '10000', 'and read by another session');
	like(status(), qr/^active: 1\d\.\d of 256\.0 MB/, 'status');
	set_limit('4MB');
	like(fill('m', 10001, 20000), qr/ERROR:  53400/, 'the limit holds');
	set_limit('64MB');
	is(q1(q{SELECT count(nexusmem.stack_push('s', k::text)), count(nexusmem.queue_push('q', k::text)) FROM generate_series(1, 1000) k}), '1000|1000', 'a stack and a queue filled');
	is(q1(q{SELECT nexusmem.stack_pop('s'), nexusmem.stack_depth('s'), nexusmem.queue_pop('q'), nexusmem.queue_length('q')}), '1000|999|1|999', 'and taken from by another session');
	q1('CREATE ROLE other; GRANT USAGE ON SCHEMA nexusmem TO other');
	like(sql(q{SET ROLE other; SELECT nexusmem.stack_pop('s')}), qr/ERROR:  42501: permission denied for stack "s"/, 'not by one who may not');
	like(sql(q{SET ROLE other; SELECT nexusmem.queue_drop('q')}), qr/ERROR:  42501: must be owner of queue "q"/, 'nor dropped');
	q1(q{SELECT nexusmem.share('queue', 'q', 'other', 'write')});
	is(q1(q{SET ROLE other; SELECT nexusmem.queue_pop('q')}), '2', 'shared, it is');
	is(q1(q{SELECT nexusmem.stack_drop('s'), nexusmem.queue_drop('q'), nexusmem.map_drop('m')}), 't|t|t', 'dropped');
	is(q1('SELECT count(*) FROM nexusmem.structures'), '0', 'none is left');
}
unlike(server_log($node), qr/terminated by signal|TRAP|PANIC|FATAL/, 'the log is quiet');
if ($node->pg_version >= 17)
{
	is(fill('m', 1, 10000), '10000', 'before a crash');
	$victim = session($node);
	is(ask($victim, q{SELECT nexusmem.map_size('m'), nexusmem.counter_add('c'), nexusmem.stack_push('s', 'v'), nexusmem.queue_push('q', 'v')}), '10000|1||', 'a backend that uses all kinds');
	my $log_size = -s $node->logfile;
	ok(survives_kill($node, $victim->{pid}), 'is killed: the server recovers');
	eval { $victim->{h}->finish };
	is(status(), 'off: not preloaded: made when a structure is first used', 'status: as before the first use');
	is(q1('SELECT count(*) FROM nexusmem.structures'), '0', 'the structures are gone');
	is(q1(q{SELECT nexusmem.map_size('m'), nexusmem.counter_get('c') IS NULL, nexusmem.stack_depth('s'), nexusmem.queue_length('q')}), '0|t|0|0', 'all kinds of them');
	is(fill('m', 1, 10000), '10000', 'and can be filled again');
	is(q1(q{SELECT nexusmem.counter_add('c'), nexusmem.stack_push('s', 'w'), nexusmem.queue_push('q', 'w')}), '1||', 'all kinds');
	is(q1(q{SELECT nexusmem.map_size('m'), nexusmem.counter_get('c'), nexusmem.stack_pop('s'), nexusmem.queue_pop('q')}), '10000|1|w|w', 'and read by another session');
	unlike(server_log($node, $log_size), qr/TRAP|PANIC|by signal (?!9\b)/, 'nothing else crashed');
}
$node->stop;
done_testing();

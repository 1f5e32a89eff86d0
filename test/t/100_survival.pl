# What survives: everything a clean shutdown, nothing a crash, and no file that is not
# this server's, whole, and of its last clean shutdown.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use File::Copy;
use IO::Socket::UNIX;
use NxmTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

needs_shm(192);

my $node = PostgreSQL::Test::Cluster->new('survival');
$node->init(allows_streaming => 1);
$node->append_conf('postgresql.conf', q{
shared_preload_libraries = 'nexusmem'
wal_log_hints = on
wal_keep_size = 320MB
autovacuum = off
restart_after_crash = on
});
my $dir = $node->data_dir . '/pg_nexusmem';
my $file = "$dir/structures";
my $from = 0;

sub sql { return $node->safe_psql('postgres', $_[0]); }
# The part of the log since this was called last.
sub news { return log_since($node, \$from); }
sub counter { return sql(qq{SELECT coalesce(nexusmem.counter_get('$_[0]')::text, 'none')}); }
# The state of a feature, as soon as it is one of those.
sub worker_pid
{
	$node->poll_query_until('postgres', q{SELECT count(*) = 1 FROM pg_stat_activity WHERE backend_type = 'nexusmem memory'}) or die;
	return sql(q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'nexusmem memory'});
}
# Has the worker looked whether it may save, and found that it has to wait?
sub waits
{
	my ($pid) = @_;
	return soon(sub { (eval { slurp_file("/proc/$pid/cmdline") } // q{}) =~ /waiting for sessions to end/ });
}
# Waits for a condition.
sub soon
{
	my ($condition) = @_;
	my $end = time + $PostgreSQL::Test::Utils::timeout_default;
	while (!$condition->())
	{
		return 0 if time > $end;
		sleep 0.05;
	}
	return 1;
}

# An unused server leaves nothing behind.
$node->start;
sql('CREATE EXTENSION nexusmem; GRANT USAGE ON SCHEMA nexusmem TO PUBLIC; CREATE ROLE alice LOGIN; CREATE ROLE bob LOGIN; CREATE DATABASE other');
$node->safe_psql('other', 'CREATE EXTENSION nexusmem; GRANT USAGE ON SCHEMA nexusmem TO PUBLIC');
$node->restart;
ok(!-e $dir, 'nothing used: nothing saved');
unlike(news(), qr/saved structures|shared structures/, 'and nothing said');
sql(q{SELECT nexusmem.counter_add('only')});
$node->restart;
is(counter('only'), '1', 'of one structure');
like(sql(q{SELECT state || ': ' || detail FROM nexusmem.status WHERE feature = 'saved structures'}), qr/^active: 1 structure was loaded at the start; pid/, 'status says so');
sql(q{SELECT nexusmem.counter_drop('only')});

# Everything, by an ordinary restart.
sql(q{
SELECT nexusmem.counter_add('exact', 42);
SELECT nexusmem.counter_set('extreme', -9223372036854775808);
SELECT nexusmem.counter_create('striped', true);
SELECT nexusmem.counter_add('striped', i) FROM generate_series(1, 100) i;
SELECT nexusmem.map_put('types', 'text', 'grüße'), nexusmem.map_put('types', '', 'x') WHERE false;
SELECT nexusmem.map_put('types', 'text', 'grüße'), nexusmem.map_put('types', 'empty', ''), nexusmem.map_put('types', 'bytea', '\x00ff00'::bytea),
	nexusmem.map_put('types', 'jsonb', '{"a": [1, 2.50, null, "x"], "b": {}}'::jsonb), nexusmem.map_add('types', 'number', -7);
SELECT nexusmem.map_put('long', repeat('k', 1024), repeat('v', 1048576)), nexusmem.map_put('long', 'k', repeat('w', 20000));
SELECT count(nexusmem.map_put('many', 'key ' || i, i || repeat('.', i % 200))) FROM generate_series(1, 200000) i;
SELECT nexusmem.map_put('emptied', 'k', 'v'), nexusmem.map_delete('emptied', 'k');
SELECT count(nexusmem.stack_push('stack', i::text || repeat('s', i % 300))) FROM generate_series(1, 20000) i;
SELECT nexusmem.stack_push('mixed', '\x01'::bytea), nexusmem.stack_push('mixed', repeat('l', 1048576)), nexusmem.stack_push('mixed', '[1]'::jsonb);
SELECT count(nexusmem.queue_push('queue', i::text || repeat('q', i % 300))) FROM generate_series(1, 20000) i;
SELECT nexusmem.queue_pop('queue');
SELECT nexusmem.queue_push('popped', 'x'), nexusmem.queue_pop('popped');
SELECT nexusmem.share('map', 'types', 'bob', 'read'), nexusmem.share('counter', 'exact', NULL, 'write');
SET ROLE alice;
SELECT nexusmem.counter_add('alice''s', 1);
});
$node->safe_psql('other', q{SELECT nexusmem.counter_add('exact', 1); SELECT nexusmem.map_put('types', 'only', 'here')});
my $contents = q{
SELECT kind, name, owner, node, entries FROM nexusmem.structures ORDER BY 1, 2;
SELECT * FROM nexusmem.map_entries('types') ORDER BY 1;
SELECT md5(key), md5(value) FROM nexusmem.map_entries('long') ORDER BY 1;
SELECT nexusmem.counter_get('exact'), nexusmem.counter_get('extreme'), nexusmem.counter_get('striped'), nexusmem.counter_get('alice''s');
};
my $before = sql($contents);
my $other = q{SELECT nexusmem.counter_get('exact'), nexusmem.map_get('types', 'only'), (SELECT count(*) FROM nexusmem.structures)};
my $other_before = $node->safe_psql('other', $other);
news();
$node->stop;
ok(-s $file, 'a clean shutdown saves');
is(sprintf('%o %o', (stat $dir)[2] & 07777, (stat $file)[2] & 07777), '700 600', 'for the owner alone');
like(news(), qr/LOG:  saved 14 shared structures/, 'and says so') ;
copy($file, "$dir/copy");
$node->start;
is(sql($contents), $before, 'everything is there again');
is($node->safe_psql('other', $other), $other_before, 'in another database too');
ok(!-e $file, 'the file is gone when it was loaded');
is(sql(q{SELECT count(nexusmem.map_get('many', 'key ' || i)) || ' ' || bool_and(nexusmem.map_get('many', 'key ' || i) = i || repeat('.', i % 200)) FROM generate_series(1, 200000) i}), '200000 true', 'each entry of a large map');
is(sql(q{SELECT bool_and(nexusmem.stack_pop('stack') = i::text || repeat('s', i % 300)) FROM generate_series(20000, 1, -1) i}), 't', 'a stack from the top');
is(sql(q{SELECT bool_and(nexusmem.queue_pop('queue') = i::text || repeat('q', i % 300)) FROM generate_series(2, 20000) i}), 't', 'a queue from the oldest');
is(sql(q{SELECT nexusmem.stack_pop_jsonb('mixed'), length(nexusmem.stack_pop('mixed')), nexusmem.stack_pop_bytea('mixed'), nexusmem.stack_pop('mixed')}), '[1]|1048576|\x01|', 'of several types');
is(sql(q{SELECT nexusmem.map_get_bytea('types', 'bytea'), nexusmem.map_get_jsonb('types', 'jsonb') -> 'a' -> 1, nexusmem.map_add('types', 'number', 1)}), '\x00ff00|2.50|-6', 'values have their types');
is(sql(q{SET ROLE bob; SELECT nexusmem.map_get('types', 'text'), nexusmem.counter_add('exact', 1)}), 'grüße|43', 'sharing');
my ($out, $err);
$node->psql('postgres', q{SET ROLE bob; SELECT nexusmem.map_put('types', 'text', 'x')}, stderr => \$err);
like($err, qr/permission denied/, 'and no more than that');
is(sql(q{SELECT nexusmem.counter_add('striped', 1) IS NULL, nexusmem.counter_get('striped')}), 't|5051', 'a striped counter is one again');
is(sql(q{SELECT nexusmem.stack_push('stack', 'new'), nexusmem.queue_push('popped', 'new'), nexusmem.map_put('emptied', 'k', 'new')}), '||t', 'what was empty works');

# Values of the longest kind, so many that several are in each bucket.
$node->append_conf('postgresql.conf', 'nexusmem.memory_limit = 256MB');
$node->reload;
sql(q{
SELECT count(nexusmem.map_put('big', i::text, chr(64 + i) || repeat('x', 1048575))) FROM generate_series(1, 32) i;
SELECT count(nexusmem.stack_push('big', chr(64 + i) || repeat('y', 1048575))) FROM generate_series(1, 8) i;
SELECT count(nexusmem.queue_push('big', chr(64 + i) || repeat('z', 1048575 - i % 2 * 990000))) FROM generate_series(1, 8) i;
});
$node->stop('fast');
news();
$node->start;
is(sql(q{SELECT count(*), bool_and(nexusmem.map_get('big', i::text) = chr(64 + i) || repeat('x', 1048575)) FROM generate_series(1, 32) i}), '32|t', 'a map of the longest values');
is(sql(q{SELECT bool_and(nexusmem.stack_pop('big') = chr(64 + i) || repeat('y', 1048575)) FROM generate_series(8, 1, -1) i}), 't', 'a stack of them');
is(sql(q{SELECT bool_and(nexusmem.queue_pop('big') = chr(64 + i) || repeat('z', 1048575 - i % 2 * 990000)) FROM generate_series(1, 8) i}), 't', 'a queue of them, between shorter ones');
is(counter('striped'), '5051', 'and all else');
unlike(news(), qr/not loaded/, 'without a warning');
sql(q{SELECT nexusmem.map_drop('big'), nexusmem.stack_drop('big'), nexusmem.queue_drop('big')});

# With clients: one in the middle of a transaction that must give back what it took.
my $s = session($node);
ask($s, q{BEGIN; SELECT nexusmem.counter_add('to drain', 10)});
is(ask($s, q{SELECT value FROM nexusmem.counter_drain('to drain')}), '10', 'drained, not committed');
$node->stop('fast');
close_session($s);
$node->start;
is(counter('to drain'), '10', 'a fast shutdown aborts it first, then saves');

$s = session($node);
ask($s, q{SELECT nexusmem.counter_add('smart', 1)});
my $pidfile = $node->data_dir . '/postmaster.pid';
system('pg_ctl', '-D', $node->data_dir, '-m', 'smart', '-W', '-s', 'stop');
soon(sub { slurp_file($pidfile) =~ /stopping/ });
is(ask($s, q{SELECT nexusmem.counter_add('smart', 1)}), '2', 'a smart shutdown lets the client work');
close_session($s);
ok(soon(sub { !-e $pidfile }), 'and ends after it');
$node->{_pid} = undef;
ok(-e $file, 'having saved');
$node->start;
is(counter('smart'), '2', 'with what it did last');

# Single-user mode leaves the file alone.
$node->stop;
is(system(q{echo 'SELECT 1' | postgres --single -D '} . $node->data_dir . q{' postgres >/dev/null 2>&1}), 0, 'single-user mode');
ok(-e $file, 'leaves the file');
$node->start;
is(counter('smart'), '2', 'for the next start');

# Crashes: of the server, and of one process.
$node->stop('immediate');
ok(!-e $file, 'an immediate shutdown saves nothing');
$node->start;
is(counter('smart') . sql('SELECT count(*) FROM nexusmem.structures'), 'none0', 'and all is empty');
sql(q{SELECT nexusmem.counter_add('c', 5)});
$s = session($node);
ok(survives_kill($node, $s->{pid}), 'restarted after a crash');
eval { $s->{h}->finish };
is(counter('c'), 'none', 'and all is empty');
sql(q{SELECT nexusmem.counter_add('c', 6)});
$node->restart;
is(counter('c'), '6', 'a clean shutdown of a server that has crashed once');

# nexusmem.save = off
$node->append_conf('postgresql.conf', 'nexusmem.save = off');
$node->reload;
# a postmaster that is told to stop as well may not read it any more
$node->poll_query_until('postgres', q{SELECT current_setting('nexusmem.save') = 'off'});
$node->restart;
is(counter('c'), 'none', 'nexusmem.save = off');
ok(!-e $file, 'leaves no file');
$node->append_conf('postgresql.conf', 'nexusmem.save = all');
$node->restart;

# Files that are refused. Each time the server starts, warns, and is empty.
sub refused
{
	my ($name, $why) = @_;
	news();
	unlink "$file.refused";
	$node->start;
	is(counter('c'), 'none', "$name: not loaded");
	ok(soon(sub { -e "$file.refused" }) && !-e $file, "$name: kept beside");
	my $log = news();
	like($log, qr/WARNING:  saved structures in file "pg_nexusmem\/structures" were not loaded: $why/, "$name: a warning");
	unlike($log, qr/FATAL|PANIC|terminated by signal/, "$name: no more than that");
	sql(q{SELECT nexusmem.counter_add('c', 7)});
	$node->stop;
	return;
}
sub change
{
	my ($offset, $bytes) = @_;
	open my $h, '+<', $file or die;
	binmode $h;
	seek $h, $offset, 0;
	print $h $bytes;
	close $h;
	return;
}
sql(q{SELECT nexusmem.counter_add('c', 7), nexusmem.map_put('m', 'k', repeat('x', 100000))});
$node->stop;
change((-s $file) - 50000, 'y');
refused('a changed byte', 'its checksum is wrong');
change(60, "\xff");
refused('a changed byte of a frame', 'its checksum is wrong');
truncate $file, (-s $file) - 1;
refused('a torn file', 'it has \d+ bytes instead of \d+');
truncate $file, 30;
refused('a very torn file', 'it is truncated');
change(0, "\0" x 56);
refused('a file that was not finished', 'it is not a file of saved structures');
change(12, pack('L', 0));
refused('an older format', 'its format is 0, and this version');
change(8, pack('N', 0x01020304) eq pack('L', 0x01020304) ? pack('V', 0x01020304) : pack('N', 0x01020304));
refused('another byte order', 'it was written on a machine of another byte order');
change(30, "\x01");
refused('a changed header', 'the checksum of its header is wrong');
unlink $file;
mkdir $file;
refused('a directory', '');
rmdir "$file.refused";

# Older than the last shutdown, which was none.
copy($file, "$dir/copy");
$node->start;
is(counter('c'), '7', 'a good file');
$node->stop('immediate');
copy("$dir/copy", $file);
refused('a file from before a crash', 'the server was not shut down cleanly after they were saved');
unlink "$dir/copy";

# One that a load has left.
$node->start;
$node->stop;
rename $file, "$file.loading";
refused('a file whose load did not end', 'the server ended in the middle of it');
ok(!-e "$file.loading", 'a file whose load did not end: under one name');

# left_is_not_loaded($name, $refused, $query, $value): the stopped server has a file that its
# last start passed over. What it has is not loaded, but kept as $refused; with its magic back
# it is: the query then has that value.
sub left_is_not_loaded
{
	my ($name, $refused, $query, $value) = @_;
	ok(-s $file, "$name: it stays") or return;
	news();
	$node->start;
	is(sql($query), '', "$name: nor does a later start load it");
	ok(soon(sub { -s $refused }) && !-e $file, "$name: which keeps it beside");
	like(news(), qr/WARNING:  saved structures .* were not loaded: an earlier start could neither load it nor put it beside/, "$name: a warning");
	$node->stop;
	rename $refused, $file or die "$file: $!";
	is(system("printf 'NXMSAVE\\0' | dd of='$file' conv=notrunc 2>/dev/null"), 0, "$name: given its magic back");
	$node->start;
	is(sql($query), $value, "$name: and loaded then");
	return;
}

# Names that are taken by what does not give way. A file that may be good is not removed.
unlink "$file.refused";
mkdir $_, 0700 or die "$_: $!" foreach map { ("$file.$_", "$file.$_/x") } 'loading', 'refused', 'refused.1';
news();
$node->start;
is(counter('c'), 'none', 'no other name for a file: not loaded');
like(news(), qr/WARNING:  saved structures in file "pg_nexusmem\/structures" were not loaded: it could not be renamed/, 'no other name for a file: a warning');
$node->stop;
rmdir $_ foreach map { ("$file.$_/x", "$file.$_") } 'loading', 'refused.1';
left_is_not_loaded('no other name for a file', "$file.refused.1", q{SELECT nexusmem.counter_get('c')}, '7');
$node->stop;
change((-s $file) - 1, "\x55");
news();
$node->start;
is(counter('c'), 'none', 'a name that is taken: not loaded');
ok(soon(sub { -f "$file.refused.1" }) && !-e $file, 'a name that is taken: kept under another one');
like(news(), qr/HINT:  The file is kept as "pg_nexusmem\/structures\.refused\.1"/, 'a name that is taken: the log tells which');
rmdir $_ foreach "$file.refused/x", "$file.refused";
unlink "$file.refused.1";
sql(q{SELECT nexusmem.counter_add('c', 7)});
$node->stop;

# One that cannot be renamed, and so not removed: nothing of it is there twice.
SKIP:
{
	skip 'root may write to any directory', 36 if $> == 0;
	$node->start;
	sql(q{SELECT nexusmem.queue_push('jobs', 'once')});
	$node->stop;
	unlink "$file.refused";
	chmod 0500, $dir;
	news();
	$node->start;
	is(sql(q{SELECT nexusmem.queue_pop('jobs') IS NULL}), 't', 'a file that cannot be renamed: not loaded');
	ok(-e $file && !-e "$file.refused", 'a file that cannot be renamed: it is there yet');
	like(news(), qr/WARNING:  saved structures in file "pg_nexusmem\/structures" were not loaded: it could not be renamed/, 'a file that cannot be renamed: a warning');
	workers_run($node);
	like(sql(q{SELECT state || ': ' || detail FROM nexusmem.status WHERE feature = 'saved structures'}), qr/^degraded: saved structures were not loaded/, 'a file that cannot be renamed: status');
	sql(q{SELECT nexusmem.queue_drop('jobs')});
	$node->stop;
	chmod 0700, $dir;
	left_is_not_loaded('a file that cannot be renamed', "$file.refused", q{SELECT nexusmem.queue_pop('jobs')}, 'once');
	$node->restart;
	is(sql(q{SELECT nexusmem.queue_pop('jobs') IS NULL}), 't', 'a file that cannot be renamed: once');

	# Nor can it be changed before the next clean shutdown, or even then.
	my $passed_over = sub
	{
		my ($name) = @_;
		$node->start;
		is(sql(q{SELECT nexusmem.queue_pop('jobs') IS NULL}), 't', "$name: not loaded");
		sql(q{SELECT nexusmem.queue_drop('jobs')});
		workers_run($node);
		$node->stop;
	};
	sql(q{SELECT nexusmem.queue_push('jobs', 'once')});
	$node->stop;
	chmod 0, $dir;
	$passed_over->('a file that cannot be looked for');
	left_is_not_loaded('a file that cannot be looked for', "$file.refused", q{SELECT nexusmem.queue_pop('jobs')}, 'once');
	sql(q{SELECT nexusmem.queue_push('jobs', 'once')});
	$node->stop;
	chmod 0400, $file;
	chmod 0500, $dir;
	$passed_over->('a file that cannot be changed');
	ok(!-e $file, 'a file that cannot be changed: removed');
	$node->start;
	is(sql(q{SELECT nexusmem.queue_pop('jobs') IS NULL}), 't', 'a file that cannot be changed: nor does a later start load it');

	sql(q{SELECT nexusmem.counter_add('c', 7)});
	$node->stop;
	chmod 0, $dir;
	news();
	$node->start;
	is(counter('c'), 'none', 'a directory that cannot be looked into: empty');
	like(news(), qr/WARNING:  saved structures .* were not loaded: it could not be looked for: Permission denied/, 'a directory that cannot be looked into: a warning');
	sql(q{SELECT nexusmem.counter_add('c', 7)});
	$node->stop;
	is((stat $dir)[2] & 07777, 0700, 'which is put right when it is saved to');

	# One from before a crash that could be neither renamed nor removed, nor even looked for
	# then, is not loaded after a later clean shutdown either.
	foreach my $mode (0500, 0)
	{
		my $name = sprintf 'a file from before a crash, directory of mode %o', $mode;
		copy($file, "$dir/copy");
		$node->start;
		is(counter('c'), '7', "$name: a good one before");
		$node->stop('immediate');
		rename "$dir/copy", $file;
		unlink "$file.refused";
		chmod $mode, $dir;
		news();
		$node->start;
		is(counter('c'), 'none', "$name: not loaded");
		like(news(), qr/WARNING:  saved structures .* were not loaded: (the server was not shut down cleanly|it could not be looked for)/, "$name: a warning");
		workers_run($node);
		$node->stop;
		chmod 0700, $dir;
		$node->start;
		is(counter('c'), 'none', "$name: nor after a clean shutdown");
		# without its header one is kept that could be changed at once
		ok(soon(sub { !-e $file && !-e "$file.loading" }) && ($mode != 0 || !-e "$file.refused"), "$name: it is gone");
		sql(q{SELECT nexusmem.counter_add('c', 7)});
		$node->stop;
		ok(-s $file, "$name: the next shutdown saves");
	}
}

# More than there is room for: whole structures are left out.  The one that is saved first
# does not fit, and leaves its room to the other.
$node->start;
sql(q{SELECT nexusmem.stack_push('small', 'x'), nexusmem.map_put('one', '1', ''), nexusmem.map_put('two', '1', ''), nexusmem.stack_push('one', ''), nexusmem.stack_push('two', '')});
my ($wide, $narrow) = split /\n/, sql(q{SELECT name FROM nexusmem.structures WHERE kind = 'map'});
my ($deep, $shallow) = split /\n/, sql(q{SELECT name FROM nexusmem.structures WHERE kind = 'stack' AND name <> 'small'});
sql(qq{SELECT count(nexusmem.map_put(m, i::text, repeat('x', 1000))) FROM (VALUES ('$wide', 20000), ('$narrow', 4000)) v(m, n), generate_series(1, n) i});
sql(qq{SELECT count(nexusmem.stack_push('$deep', repeat('x', 1000))) FROM generate_series(1, 20000)});
$node->append_conf('postgresql.conf', 'nexusmem.memory_limit = 8MB');
news();
$node->restart;
is(counter('c'), '7', 'less memory than saved: what fits is there');
is(sql(q{SELECT string_agg(kind || ' ' || name, ',' ORDER BY kind, name) FROM nexusmem.structures}), join(',', 'counter c', "map $narrow", sort 'stack small', "stack $shallow"), 'what does not is left out whole');
is(sql(qq{SELECT count(nexusmem.map_get('$narrow', i::text)) FROM generate_series(1, 4000) i}), '4000', 'what does is whole');
ok(soon(sub { -e "$file.refused" }) && !-e $file, 'and its file kept beside');
my $left_out = news();
like($left_out, qr/WARNING:  saved $_ was not loaded: .*limit/, 'with a warning') foreach qq{map "$wide"}, qq{stack "$deep"};
unlike($left_out, qr/malformed/, 'and of nothing else');
$node->append_conf('postgresql.conf', 'nexusmem.memory_limit = 256MB');
$node->reload;

# The worker alone being ended is no shutdown.
my $pid = worker_pid();
sql("SELECT pg_terminate_backend($pid)");
ok($node->poll_query_until('postgres', "SELECT count(*) = 0 FROM pg_stat_activity WHERE pid = $pid"), 'the worker is gone');
ok(!-e $file, 'and has saved nothing');
isnt(worker_pid(), $pid, 'it is started again');
is(sql(q{SELECT nexusmem.counter_add('c', 1)}), '8', 'and nothing was lost');
$node->restart;
is(counter('c'), '8', 'the next shutdown saves');

# ... but it may be a shutdown that the postmaster has yet to tell of, as where all processes
# are signalled at once. The worker waits for that, some seconds: on a machine on which more
# have passed, another try tells.
for my $try (1 .. 5)
{
	sql(q{SELECT nexusmem.counter_set('c', 8)});
	$s = session($node);
	$pid = worker_pid();
	my ($postmaster) = split /\n/, slurp_file($pidfile);
	my $begin = time;
	kill 'STOP', $postmaster;
	kill 'TERM', $pid, $s->{pid};
	# a process that has ended is a zombie until the postmaster looks
	ok(soon(sub { (eval { slurp_file("/proc/$s->{pid}/stat") } // ') Z') =~ /\) [ZX]/ }), 'all processes are signalled: a client ends');
	kill 'TERM', $postmaster;
	kill 'CONT', $postmaster;
	soon(sub { (eval { slurp_file($pidfile) } // 'stopping') =~ /stopping/ });
	my $took = time - $begin;
	eval { $s->{h}->finish };
	ok(soon(sub { !-e $pidfile }), 'all processes are signalled: the server stops');
	$node->{_pid} = undef;
	$node->start;
	next if counter('c') ne '8' && $took > 3;
	is(counter('c'), '8', 'all processes are signalled: saved');
	last;
}

# ... nor when it happens in a smart shutdown that waits for a client: then it waits
# for that one too.
$s = session($node);
ask($s, q{SELECT nexusmem.counter_add('c', 1)});
$pid = worker_pid();
system('pg_ctl', '-D', $node->data_dir, '-m', 'smart', '-W', '-s', 'stop');
soon(sub { slurp_file($pidfile) =~ /stopping/ });
ask($s, "SELECT pg_terminate_backend($pid)");
ok(waits($pid), 'in a smart shutdown: the worker waits');
is(ask($s, q{SELECT nexusmem.counter_add('c', 1)}), '10', 'a client goes on');
ok(!-e $file, 'and nothing is saved');
close_session($s);
ok(soon(sub { !-e $pidfile }), 'until it has ended');
$node->{_pid} = undef;
$node->start;
is(counter('c'), '10', 'and the last state is saved');

# A client that takes its time to end is waited for, as the postmaster does.
$s = session($node);
ask($s, q{SELECT nexusmem.counter_add('c', 1)});
$pid = worker_pid();
kill 'STOP', $s->{pid};
system('pg_ctl', '-D', $node->data_dir, '-m', 'fast', '-W', '-s', 'stop');
ok(waits($pid), 'a stopped client: the worker waits');
ok(!-e $file && -e $pidfile, 'not saved yet');
kill 'CONT', $s->{pid};
eval { $s->{h}->finish };
ok(soon(sub { !-e $pidfile }), 'the shutdown ends with it');
$node->{_pid} = undef;
my $clock_dir = PostgreSQL::Test::Utils::tempdir();
{
	my %clock = clock_to_set($clock_dir);
	local @ENV{keys %clock} = values %clock;
	$node->start;
}
is(counter('c'), '11', 'and what it had done is there');

# One that has used nothing is not waited for longer than some time, by whatever clock. The
# postmaster has to, so the file is there first.
$s = session($node);
$pid = worker_pid();
kill 'STOP', $s->{pid};
my $begin = time;
system('pg_ctl', '-D', $node->data_dir, '-m', 'fast', '-W', '-s', 'stop');
ok(waits($pid), 'a stopped client that has used nothing: the worker waits');
append_to_file("$clock_dir/back", 'x');
ok(soon(sub { -e $file }), 'a stopped client that has used nothing: saved without it');
cmp_ok(time - $begin, '>', 5, 'after a time');
kill 'CONT', $s->{pid};
eval { $s->{h}->finish };
ok(soon(sub { !-e $pidfile }), 'the shutdown ends');
$node->{_pid} = undef;
$node->start;
is(counter('c'), '11', 'and all is there');

# Waiting for the load: a pipe in place of the file holds it up.
$node->stop;
unlink $file;
SKIP:
{
	skip 'no named pipes', 6 if system('mkfifo', '-m', '600', $file) != 0;
	$node->start;
	is(sql('SELECT 1'), '1', 'the server is up while a load lasts');
	# so that nobody else does
	ok(soon(sub { -e "$file.loading" }), 'the worker has begun to load');
	$node->psql('postgres', q{SET statement_timeout = '300ms'; SELECT nexusmem.counter_add('c')}, stderr => \$err);
	like($err, qr/canceling statement due to statement timeout/, 'the first use waits, and can be cancelled');
	$s = session($node);
	send_query($s, q{SELECT nexusmem.counter_add('c')});
	ok($node->poll_query_until('postgres', "SELECT wait_event_type = 'Extension' FROM pg_stat_activity WHERE pid = $s->{pid}"), 'with a wait event');
	open my $h, '>', "$file.loading" or die;
	close $h;
	is(answer($s), '1', 'until it is over');
	close_session($s);
	ok(soon(sub { -e "$file.refused" }), 'the pipe was no good file');
}

# A shutdown before the load: a client that outlives the worker does not begin it.  A
# connection that says nothing keeps the server from going on meanwhile.
sql(q{SELECT nexusmem.counter_set('c', 21)});
$node->stop;
rename $file, "$dir/kept";
SKIP:
{
	skip 'no named pipes', 5 if system('mkfifo', '-m', '600', $file) != 0;
	$node->start;
	$pid = worker_pid();
	ok(soon(sub { -e "$file.loading" }), 'the worker begins to load');
	$s = session($node, 'postgres', replication => 'database');
	my ($postmaster) = split /\n/, slurp_file($pidfile);
	my $children = sub { grep { (eval { slurp_file("/proc/$_/stat") } // '') =~ /\) \S $postmaster / } map { /(\d+)/ } glob '/proc/[0-9]*' };
	my %before = map { $_ => 1 } $children->();
	my $silent = IO::Socket::UNIX->new($node->host . '/.s.PGSQL.' . $node->port) or die;
	my $held;
	soon(sub { ($held) = grep { !$before{$_} } $children->() });
	kill 'STOP', $held;
	system('pg_ctl', '-D', $node->data_dir, '-m', 'fast', '-W', '-s', 'stop');
	soon(sub { slurp_file($pidfile) =~ /stopping/ });
	# it has to have the signal when it reads on
	kill 'TERM', $pid;
	open my $h, '>', "$file.loading" or die;
	close $h;
	ok(soon(sub { !-e "/proc/$pid" }), 'it ends with the server, having loaded nothing');
	rename "$dir/kept", $file;
	like(ask($s, q{SELECT nexusmem.counter_add('c', 1)}), qr/ERROR:  shared structures are closed/, 'a walsender does not load then');
	ok(-s $file && !-e "$file.loading", 'the file is for the next start');
	kill 'CONT', $held;
	close $silent;
	close_session($s);
	ok(soon(sub { !-e $pidfile }), 'the shutdown ends');
	$node->{_pid} = undef;
}
rename "$dir/kept", $file;
$node->start;
is(counter('c'), '21', 'which loads it');

# Without the worker the first user loads, and nothing is saved.
sql(q{SELECT nexusmem.counter_set('c', 12)});
sql(q{SELECT count(nexusmem.map_put('many', i::text, repeat('x', 100))) FROM generate_series(1, 200000) i});
for (1 .. 3)
{
	$node->restart;
}
is(sql(q{SELECT count(nexusmem.map_get('many', i::text)) FROM generate_series(1, 200000) i}), '200000', 'starts and stops in quick succession lose nothing');
$node->append_conf('postgresql.conf', 'max_worker_processes = 0');
news();
$node->restart;
like(news(), qr/WARNING:  there is no room for the background worker "nexusmem memory"/, 'no worker: a warning');
$node->psql('postgres', q{SET statement_timeout = '30ms'; SELECT nexusmem.counter_get('c')}, stderr => \$err);
note("the first user, in a hurry: $err");
is(counter('c'), '12', 'no worker: the first user who has the time loads');
is(sql(q{SELECT count(nexusmem.map_get('many', i::text)) FROM generate_series(1, 200000) i}), '200000', 'all of it, once');
ok(!-e $file, 'no worker: the file is gone all the same');
$node->append_conf('postgresql.conf', 'max_worker_processes = 8');
$node->restart;
is(counter('c'), 'none', 'no worker: nothing is saved');

# DROP EXTENSION leaves the structures, DROP DATABASE and DROP ROLE do not.
sql(q{SELECT nexusmem.counter_add('c', 13)});
sql('DROP EXTENSION nexusmem CASCADE');
$node->restart;
sql('CREATE EXTENSION nexusmem; GRANT USAGE ON SCHEMA nexusmem TO PUBLIC');
is(counter('c'), '13', 'DROP EXTENSION: the structures stay, and are saved');
my $used = q{SELECT sum(used_bytes) < 8000000 FROM nexusmem.node_memory};
$node->safe_psql('other', q{SELECT count(nexusmem.map_put('wide', i::text, repeat('x', 1000))) FROM generate_series(1, 20000) i});
is(sql($used), 'f', 'another database has filled memory');
$begin = time;
sql('DROP DATABASE other');
cmp_ok(time - $begin, '<', 60, 'DROP DATABASE does not wait for the worker');
ok($node->poll_query_until('postgres', $used), 'and its memory is given back');
sql(q{SET ROLE alice; SELECT nexusmem.counter_add('hers', 1); RESET ROLE; DROP ROLE alice});
ok($node->poll_query_until('postgres', q{SELECT owner = current_user FROM nexusmem.structures WHERE name = 'hers'}), 'DROP ROLE: they belong to the owner of the database');

# ... also when it happens while the library is not there.
sql(q{CREATE ROLE carol; CREATE DATABASE other; SET ROLE carol; SELECT nexusmem.counter_add('carol''s', 1)});
$node->safe_psql('other', q{CREATE EXTENSION nexusmem; SELECT count(nexusmem.map_put('wide', i::text, repeat('x', 1000))) FROM generate_series(1, 20000) i});
$node->append_conf('postgresql.conf', "shared_preload_libraries = ''");
$node->restart;
ok(-e $file, 'not preloaded: the file waits');
sql('DROP DATABASE other; DROP ROLE carol');
$node->append_conf('postgresql.conf', "shared_preload_libraries = 'nexusmem'");
$node->restart;
is(counter('c'), '13', 'preloaded again: loaded');
ok($node->poll_query_until('postgres', $used), 'what belonged to a dropped database is not kept');
ok($node->poll_query_until('postgres', q{SELECT owner = current_user FROM nexusmem.structures WHERE name = 'carol''s'}), 'nor is a dropped role an owner');

# A base backup has none of it, a standby its own.
$node->backup('b');
ok(!-e $node->backup_dir . '/b/pg_nexusmem/structures', 'pg_basebackup: there is no file to copy');
my $standby = PostgreSQL::Test::Cluster->new('survival_standby');
$standby->init_from_backup($node, 'b', has_streaming => 1);
$standby->start;
is($standby->safe_psql('postgres', q{SELECT nexusmem.counter_get('c') IS NULL, nexusmem.counter_add('standby', 3)}), 't|3', 'a standby has its own structures');
$standby->restart;
is($standby->safe_psql('postgres', q{SELECT pg_is_in_recovery(), nexusmem.counter_add('standby', 1)}), 't|4', 'which survive its restart');
$standby->restart;
$standby->promote;
is($standby->safe_psql('postgres', q{SELECT pg_is_in_recovery(), nexusmem.counter_add('standby', 1)}), 'f|5', 'and its promotion');

# pg_rewind makes the old primary follow: what it had saved is gone.
sql(q{CREATE TABLE diverged (); SELECT nexusmem.counter_add('c', 1)});
$standby->safe_psql('postgres', 'CREATE TABLE diverged_too (); CHECKPOINT');
$node->stop;
ok(-e $file, 'the old primary has saved');
copy($node->data_dir . '/postgresql.conf', $node->basedir . '/conf');
command_ok([ 'pg_rewind', '-D', $node->data_dir, '--source-server', $standby->connstr('postgres'), '-N' ], 'pg_rewind');
copy($node->basedir . '/conf', $node->data_dir . '/postgresql.conf');
ok(!-e $file, 'pg_rewind removes the file');
$node->set_standby_mode;
$node->append_conf('postgresql.conf', "primary_conninfo = '@{[$standby->connstr]}'");
$node->start;
is($node->safe_psql('postgres', q{SELECT nexusmem.counter_get('c') IS NULL, nexusmem.counter_add('c', 1)}), 't|1', 'and it starts empty');
$node->stop;

# pg_upgrade makes a new cluster, which starts empty, and refuses the old one's file.
$standby->stop;
my $new = PostgreSQL::Test::Cluster->new('survival_new');
# another database system, not another copy of a template
$new->init(force_initdb => 1);
$new->append_conf('postgresql.conf', "shared_preload_libraries = 'nexusmem'");
my $bin = `pg_config --bindir`;
chomp $bin;
chdir $new->basedir;
command_ok([ 'pg_upgrade', '-d', $standby->data_dir, '-D', $new->data_dir, '-b', $bin, '-B', $bin,
	'-p', $standby->port, '-P', $new->port, '-s', $new->host, '-N' ], 'pg_upgrade');
ok(-e $standby->data_dir . '/pg_nexusmem/structures', 'the old cluster keeps its file');
ok(!-e $new->data_dir . '/pg_nexusmem', 'the new one has none');
mkdir $new->data_dir . '/pg_nexusmem', 0700;
copy($standby->data_dir . '/pg_nexusmem/structures', $new->data_dir . '/pg_nexusmem/structures');
$new->start;
is($new->safe_psql('postgres', q{SELECT nexusmem.counter_get('standby') IS NULL}), 't', 'the old one\'s file is not loaded');
like(server_log($new), qr/WARNING: .* it belongs to the database system \d+, and this one is \d+/, 'with a warning');
$new->stop;

my $log = server_log($node);
my @bad = grep { /TRAP|PANIC|leak|ERROR:  (could not|unexpected)/ } split /\n/, $log . server_log($standby) . server_log($new);
is("@bad", '', 'no complaint in the logs');
done_testing();

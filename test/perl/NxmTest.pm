# NxmTest: what the TAP tests share.
package NxmTest;

use strict;
use warnings;
use Exporter 'import';
use FindBin;
use IPC::Run ();
use PostgreSQL::Test::Utils;
use Test::More ();

our @EXPORT = qw(session ask send_query answer close_session evict on_disk server_log log_since
	$nested_loops $parallel_plans needs_shm may_mount start_in_small_shm start_behind started
	force_parallel shim clock_to_set wait_until survives_kill workers_run until_enough reads_ahead);

# make -i, which runs the tests, would have each make that they run go on after errors
delete @ENV{qw(MAKEFLAGS MFLAGS MAKELEVEL)};
# as long as all else: a stop that takes longer ends all tests
$ENV{PGCTLTIMEOUT} //= $PostgreSQL::Test::Utils::timeout_default;

# Settings that leave the planner nested loops over index scans.
our $nested_loops = q{
max_parallel_workers_per_gather = 0
enable_seqscan = off
enable_bitmapscan = off
enable_sort = off
enable_hashjoin = off
enable_mergejoin = off
enable_material = off
enable_memoize = off
jit = off
};

# Settings of a session that has the planner use workers wherever it can.
our $parallel_plans = join '; ', map { "SET $_" } 'max_parallel_workers_per_gather = 2', 'parallel_setup_cost = 0', 'parallel_tuple_cost = 0',
	'min_parallel_index_scan_size = 0', 'min_parallel_table_scan_size = 0';

# session($node, [$dbname], [%connection parameters]): a psql that stays open.
# Our own, since background_psql() differs between PostgreSQL 15 and 16.
sub session
{
	my ($node, $db, %param) = @_;
	my $s = { in => '', out => '', err => '' };
	my $conn = $node->connstr($db // 'postgres');
	$conn .= " $_='$param{$_}'" for keys %param;
	$s->{timeout} = IPC::Run::timeout($PostgreSQL::Test::Utils::timeout_default);
	$s->{h} = IPC::Run::start([ 'psql', '-XAtq', '-d', $conn ],
		'<', \$s->{in}, '>', \$s->{out}, '2>', \$s->{err}, $s->{timeout});
	ask($s, 'SELECT 1');
	$s->{pid} = ask($s, 'SELECT pg_backend_pid()');
	return $s;
}

# ask($session, $sql): its output, errors included.
sub ask
{
	my ($s, $sql) = @_;
	send_query($s, $sql);
	return answer($s);
}

# The same in two steps, for what is to be waited for.
sub send_query
{
	my ($s, $sql) = @_;
	$s->{out} = $s->{err} = '';
	# of each answer, not of the session
	$s->{timeout}->start;
	$s->{in} .= "$sql;\n\\echo end-of-answer\n";
	$s->{h}->pump_nb while length $s->{in};
	return;
}

sub answer
{
	my ($s) = @_;
	# from here, for others may have come first
	$s->{timeout}->start;
	$s->{h}->pump until $s->{out} =~ s/^end-of-answer\n//m;
	(my $answer = $s->{out} . $s->{err}) =~ s/\n\z//;
	return $answer;
}

sub close_session
{
	my ($s) = @_;
	$s->{timeout}->start;
	$s->{in} .= "\\q\n";
	eval { $s->{h}->finish };
	return;
}

# wait_until($node, $sql, [$expected]): until that is what it says, by default 't'. Once
# something has not come in all of that time, only briefly: a defect fails many waits.
my $missed;
sub wait_until
{
	my ($node, $sql, $expected) = @_;
	local $PostgreSQL::Test::Utils::timeout_default = $missed ? 10 : $PostgreSQL::Test::Utils::timeout_default;
	my $came = $node->poll_query_until('postgres', $sql, $expected);
	$missed ||= !$came;
	return $came;
}

# survives_kill($node, $pid): kills a process of the server; has the server recovered? That is
# waited for in its log, for a psql that it refuses meanwhile may end before its query is
# written to it, and writing it then is an error of the test.
sub survives_kill
{
	my ($node, $pid) = @_;
	my $from = -s $node->logfile;
	kill 'KILL', $pid;
	return $node->wait_for_log(qr/database system is ready to accept (read-only )?connections/, $from);
}

# workers_run($node): until status says of no worker any more that it is not running, as
# it does for a moment after a start.
sub workers_run
{
	my ($node) = @_;
	return wait_until($node, q{SELECT bool_and(detail !~ 'is not running') FROM nexusmem.status});
}

# until_enough($enough, $run): what the first of thirty runs returned of which $enough says
# that it read ahead enough, or as little as it should, else the last one. A run is of a server
# that was cold first. On a machine busy with other things reads may look like cached ones, and
# one that is cached like one that is not. What has to be right in each run, $enough says yes
# to where it is not, so that it is seen.
sub until_enough
{
	my ($enough, $run) = @_;
	my @got;
	for (1 .. 30)
	{
		@got = $run->();
		last if $enough->(@got);
	}
	return @got;
}

# reads_ahead($name, $rows, $enough, $run): the counts issued, used, wasted and skipped, by
# which $enough judges, of such a run. It returns the digest of its rows before them; these
# have to be right in each.
sub reads_ahead
{
	my ($name, $rows, $enough, $run) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my ($got, @counts) = until_enough(sub {
		my ($digest, @n) = @_;
		return $digest ne $rows || $n[1] + $n[2] != $n[0] || $enough->(@n);
	}, $run);
	Test::More::is($got, $rows, "$name: same rows");
	Test::More::is($counts[1] + $counts[2], $counts[0], "$name: issued = used + wasted");
	return @counts;
}

# evict($node, @relations): takes the files of a stopped server's relations
# (paths below the data directory) out of the operating system's cache.
sub evict
{
	my ($node, @paths) = @_;
	foreach my $path (map { $node->data_dir . "/$_" } @paths)
	{
		system("dd of='$path' oflag=nocache conv=notrunc,fdatasync count=0 status=none") == 0
		  or die "dd failed on $path";
	}
	return;
}

# Does the data directory lie on something that is read from, not in memory?
sub on_disk
{
	my ($node) = @_;
	my $type = `stat -f -c %T '@{[$node->data_dir]}'`;
	return $type !~ /tmpfs|ramfs/;
}

sub server_log
{
	my ($node, $from) = @_;
	return substr(PostgreSQL::Test::Utils::slurp_file($node->logfile), $from // 0);
}

# log_since($node, \$from): what has come to the log since that place, which moves on to its end.
sub log_since
{
	my ($node, $from) = @_;
	my $text = server_log($node, $$from);
	$$from += length $text;
	return $text;
}

# needs_shm($mb): skips the script where /dev/shm has fewer MB free. A container's has 64.
sub needs_shm
{
	my ($mb) = @_;
	my (undef, $free) = split ' ', `df -m --output=avail /dev/shm`;
	Test::More::plan(skip_all => "/dev/shm has $free MB free, not $mb; in a container see --shm-size")
	  if defined $free && $free < $mb;
	return;
}

# A /dev/shm of $mb MB, 0: without a limit, in a mount namespace of its own: a shell that runs $command there.
sub in_small_shm
{
	my ($mb, $command) = @_;
	my ($uid, $gid) = ($>, (split ' ', $))[0]);
	return ('unshare', '--user', '--map-root-user', '--mount', 'sh', '-c',
		"mount -t tmpfs -o size=${mb}m,mode=1777 tmpfs /dev/shm && exec unshare --user --map-user=$uid --map-group=$gid sh -c \"$command\"");
}

# Is that allowed here?
sub may_mount
{
	return system("@{[map { qq('$_') } in_small_shm(16, 'true')]} 2>/dev/null") == 0;
}

# start_in_small_shm($node, $mb, [$before, [@behind]]): the status of starting it there, after a
# command, and all of that behind another one.
sub start_in_small_shm
{
	my ($node, $mb, $before, @behind) = @_;
	return started($node, system(@behind, in_small_shm($mb, ($before ? "$before && " : '') .
		"pg_ctl -D '@{[$node->data_dir]}' -l '@{[$node->logfile]}' -w -s start >/dev/null")));
}

# start_behind($node, @behind): the status of starting it behind another program.
sub start_behind
{
	my ($node, @behind) = @_;
	return started($node, system(@behind, 'pg_ctl', '-D', $node->data_dir, '-l', $node->logfile, '-w', '-s', 'start'));
}

# started($node, $status): that status, of a start that was not PostgreSQL::Test's, which is to
# know of the server: it ends it where a script dies, and $node->stop does.
sub started
{
	my ($node, $status) = @_;
	$node->_update_pid(1) if $status == 0;
	return $status;
}

# force_parallel($node): the setting that has the planner use a worker where it may.
sub force_parallel
{
	my ($node) = @_;
	return $node->pg_version >= 16 ? 'debug_parallel_query' : 'force_parallel_mode';
}

# shim($dir, $name): the library for LD_PRELOAD that is made there of test/numa/$name.c.
# Empty without a compiler.
sub shim
{
	my ($dir, $name) = @_;
	return system("cc -shared -fPIC -O2 -o '$dir/$name.so' '$FindBin::RealBin/../numa/$name.c' 2>/dev/null") == 0 ? "$dir/$name.so" : '';
}

# clock_to_set($dir): the environment of a server whose clock is as many hours late as the
# file $dir/back has bytes. Empty without a compiler. (pg_ctl does not know one that is late.)
sub clock_to_set
{
	my ($dir) = @_;
	my $clock = shim($dir, 'clock_back') or return;
	return (LD_PRELOAD => $clock, CLOCK_BACK => "$dir/back");
}

1;

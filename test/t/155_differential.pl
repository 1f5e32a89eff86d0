# Queries drawn at random, each run with look-ahead off and on: rows and their
# order, errors, notices, sequences, row locks and predicate locks are the same.
# test/perl/NxmQueries.pm draws them and says what is compared.
#
# NXM_DIFF_QUERIES: how many (default 2000)
# NXM_DIFF_SEED: which (default 1)
# NXM_DIFF_ONLY: the numbers of those to run, as they stand in a failure's report
#
# Learned look-ahead is for the whole server: with it on, queries have to return what
# they did before.
#
# So that there is something to read ahead, tables are larger than shared_buffers,
# and posix_fadvise is denied.
use strict;
use warnings;
use FindBin;

use lib "$FindBin::RealBin/../perl";
use NxmDeny 'fadvise64';
use NxmQueries;
use NxmTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $queries = $ENV{NXM_DIFF_QUERIES} // 2000;
my $seed = $ENV{NXM_DIFF_SEED} // 1;
my @numbers = $ENV{NXM_DIFF_ONLY} ? split(/\D+/, $ENV{NXM_DIFF_ONLY}) : (1 .. $queries);
my $partial = $ENV{NXM_DIFF_ONLY} || $queries < 500;
note("seed $seed, " . scalar(@numbers) . ' queries');

my $node = PostgreSQL::Test::Cluster->new('differential');
$node->init;
$node->append_conf('postgresql.conf', q{
shared_preload_libraries = 'nexusmem'
shared_buffers = 1MB
autovacuum = off
synchronize_seqscans = off
random_page_cost = 1.1
jit = off
max_worker_processes = 16
max_parallel_workers = 8
max_pred_locks_per_transaction = 2000
log_statement = none
log_min_messages = warning
log_min_error_statement = panic
max_wal_size = 4GB
checkpoint_timeout = 1h
wal_level = minimal
max_wal_senders = 0
});
$node->start;
my $dir = PostgreSQL::Test::Utils::tempdir();

# psql($name, @lines): a script's output on both channels
sub psql
{
	my ($name, @lines) = @_;
	append_to_file("$dir/$name.sql", join('', "\\set VERBOSITY verbose\n\\set SHOW_CONTEXT always\n", @lines));
	IPC::Run::run([ 'psql', '-XAtq', '-d', $node->connstr('postgres'), '-f', "$dir/$name.sql" ],
		'>', "$dir/$name.out", '2>', "$dir/$name.err");
	return;
}

# results($name): by "number run", what stands between its marks on both channels
sub results
{
	my ($name) = @_;
	my %got;
	foreach my $channel ('out', 'err')
	{
		my $at;
		open(my $fh, '<', "$dir/$name.$channel") or die "$name.$channel: $!";
		while (my $line = <$fh>)
		{
			if ($line =~ /^%%(?: (\d+ \w+))?$/) { $at = $1; }
			elsif (defined $at)
			{
				# where in the script it happened
				$line =~ s/^psql:\S+:\d+: // if $channel eq 'err';
				$got{$at}{$channel} .= $line;
			}
		}
		close($fh);
	}
	return \%got;
}

$node->safe_psql('postgres', schema_sql());
$node->safe_psql('postgres', 'CREATE EXTENSION pgrowlocks');
my $keeper = session($node);
ask($keeper, 'BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1');
$node->safe_psql('postgres', unclean_sql());
my $version = int($node->pg_version =~ /^(\d+)/ ? $1 : 0);
my @on = ('nexusmem.enable_prefetch', 'nexusmem.enable_nestloop_prefetch');

# both_runs($query): its lines: two runs, of which every other query has the one with
# look-ahead first, and how many blocks this session has asked for
sub both_runs
{
	my ($q) = @_;
	my @order = $q->{number} % 2 ? ('off', 'on') : ('on', 'off');
	my @runs = map { script_of($q, $_, \@on) } @order;
	my $long = long_sql($q);
	my $count = "\\echo %% $q->{number} issued\nSELECT kind, issued FROM nexusmem.session_prefetch();\n\\echo %%\n";
	return join('', $long, @runs, $count) if $q->{own};
	return join('', $long, "BEGIN ISOLATION LEVEL REPEATABLE READ;\n", @runs, "COMMIT;\n", $count);
}

my %issued;		# by kind, so far
my %acted;		# queries for which blocks of a kind were asked for
my (%compared, %failed, %rows, %errors);

sub report
{
	my ($q, $off, $on, $what) = @_;
	my @a = split /\n/, $off, -1;
	my @b = split /\n/, $on, -1;
	my ($i) = grep { ($a[$_] // '') ne ($b[$_] // '') } 0 .. ($#a > $#b ? $#a : $#b);
	diag("query $q->{number} of seed $seed, $q->{way}: line " . ($i + 1) . " on $what differs\n  off: " . ($a[$i] // '(ended)') . "\n  on:  " . ($b[$i] // '(ended)'));
	diag('SET ' . join("; SET ", @{ $q->{settings} }) . ";\n$q->{body}") if ++$failed{reported} <= 20;
	return;
}

sub compare
{
	my ($got, @list) = @_;
	foreach my $q (@list)
	{
		my ($off, $on) = map { $got->{"$q->{number} $_"} } 'off', 'on';
		$compared{ $q->{way} }++;
		foreach my $channel ('out', 'err')
		{
			my ($a, $b) = map { $_->{$channel} // '' } $off, $on;
			next if $a eq $b;
			$failed{ $q->{way} }++;
			report($q, $a, $b, $channel eq 'out' ? 'standard output' : 'standard error');
			last;
		}
		$rows{ $q->{way} } += ($off->{$_} // '') =~ tr/\n// foreach 'out', 'err';
		$errors{ $q->{way} }++ if ($off->{err} // '') =~ /^ERROR/m;
		$failed{ran}++ if !defined $off->{out} || !defined $on->{out};
		my $issued = $got->{"$q->{number} issued"}{out} // '';
		while ($issued =~ /^(\w+)\|(\d+)$/mg)
		{
			$acted{$1}++ if $2 > ($issued{$1} // 0);
			$issued{$1} = $2;
		}
	}
	return;
}

my @list = map { query_at($seed, $_, $version) } @numbers;
psql('queries', map { both_runs($_) } @list);
my $first = results('queries');
compare($first, @list);

# learned look-ahead is the server's setting: on for both runs, that is compared with
# what they returned without
my @again = grep { $_->{way} ne 'writing' } @list;
@again = @again[ 0 .. 299 ] if @again > 300;
$node->append_conf('postgresql.conf', 'nexusmem.enable_learned_prefetch = on');
$node->reload;
# its memory is there
$node->poll_query_until('postgres', q{SELECT detail ~ 'associations' FROM nexusmem.status WHERE feature = 'learned look-ahead'});
psql('learned', map { both_runs($_) } @again);
my $second = results('learned');
my $differ = 0;
foreach my $q (@again)
{
	foreach my $run ('off', 'on')
	{
		my ($a, $b) = map { join('', map { $_ // '' } @{ $_->{"$q->{number} $run"} // {} }{ 'out', 'err' }) } $first, $second;
		next if $a eq $b;
		$differ++;
		report($q, $a, $b, "both outputs, learned look-ahead,");
	}
}
my ($asked) = map { /^learned\|(\d+)$/m } $second->{"$again[-1]{number} issued"}{out} // '';
cmp_ok($asked // 0, '>', 100, 'learned: blocks were read ahead') if !$partial;
is($differ, 0, 'learned look-ahead: ' . scalar(@again) . ' queries return what they did without');
close_session($keeper);

# while others write: the two runs share a snapshot, and their rows have an order
my @live = map { live_query($seed, $_, $version) } 1 .. ($partial ? 20 : 150);
if (!$ENV{NXM_DIFF_ONLY})
{
	append_to_file("$dir/churn.sql", churn_sql());
	my $out;
	my $churn = IPC::Run::start([ 'pgbench', '-n', '-t', 10000000, '-f', "$dir/churn.sql", $node->connstr('postgres') ], '>&', \$out);
	$node->poll_query_until('postgres', q{SELECT pg_stat_get_tuples_updated('live1'::regclass) > 0});
	psql('live', map { both_runs($_) } @live);
	$churn->kill_kill;
	compare(results('live'), @live);
}

foreach my $way (sort keys %compared)
{
	is($failed{$way} // 0, 0, "$way: $compared{$way} queries, $rows{$way} lines, " . ($errors{$way} // 0) . ' with errors: same off and on');
}
is($failed{ran} // 0, 0, 'every query ran to its end');

# rows that others change and lock: what is read anew of them
my $tester = $node->config_data('--pkglibdir') . '/pgxs/src/test/isolation/isolationtester';
SKIP:
{
	skip "no $tester", 2 if !-x $tester;
	my %out;
	foreach my $run ('off', 'on')
	{
		local $ENV{PGOPTIONS} = join(' ', map { "-c $_=$run" } @on);
		IPC::Run::run([ $tester, $node->connstr('postgres') ], '<', "$FindBin::RealBin/../specs/recheck.spec", '>&', \$out{$run});
	}
	is($out{on}, $out{off}, 'rows that were changed meanwhile are checked anew: same off and on');
	is($out{on}, slurp_file("$FindBin::RealBin/../expected/recheck.out"), 'and as expected');
}

note(join(', ', map { "$_: $issued{$_} blocks in $acted{$_} queries" } sort grep { $acted{$_} } keys %issued));
# a test of look-ahead that reads nothing ahead tests nothing
if (!$partial)
{
	foreach my $kind ('index', 'nestloop')
	{
		cmp_ok($acted{$kind} // 0, '>=', @list / 10, "$kind: blocks were read ahead for a tenth of the queries");
	}
}
my %scan = (
	hash => 'hsh WHERE g = 7',
	GiST => 'gis WHERE p <@ box(point(0,0),point(400,400))',
	'GiST by distance' => '(SELECT pad FROM gis ORDER BY p <-> point(500,500) LIMIT 300) q',
	'SP-GiST' => 'spg WHERE p <@ box(point(0,0),point(400,400))');
foreach my $am (sort keys %scan)
{
	is($node->safe_psql('postgres', qq{
SET enable_seqscan = off;
SET enable_bitmapscan = off;
SELECT flush_buffers() \\g /dev/null
SELECT sum(length(pad)) > 0 FROM $scan{$am};
SELECT issued > 5 FROM nexusmem.session_prefetch() WHERE kind = 'index'}), "t\nt", "$am: blocks are read ahead");
}
is(join('', map { "$_\n" } grep { /TRAP|PANIC|leak|terminated by signal/ } split /\n/, server_log($node)), '', 'no complaint in the log');
$node->stop;
done_testing();

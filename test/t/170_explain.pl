# EXPLAIN ANALYZE tells what look-ahead did, in each node where it did something, and
# is PostgreSQL's own where it did nothing; and what other extensions do there stays.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use JSON::PP;
use NxmTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PostgreSQL::Test::Cluster->new('explain');
$node->init;
if (!on_disk($node))
{
	plan skip_all => 'the data directory lies in memory: nothing is ever read from a disk';
}
my $hook = $node->pg_version >= 18;
my $other = $hook && -e `pg_config --pkglibdir` =~ s/\n//r . '/pg_overexplain.so';

# an extension whose hooks run inside ours
my $dir = PostgreSQL::Test::Utils::tempdir();
system("cp -r '$FindBin::RealBin/../modules/nxm_hooks' '$dir/' && rm -f '$dir'/nxm_hooks/*.o '$dir'/nxm_hooks/*.so") == 0 or die;
my $output = `make -C '$dir/nxm_hooks' PG_CONFIG=pg_config with_llvm=no COPT=-Werror 2>&1`;
is($?, 0, 'the other extension builds') or die $output;

my $libraries = "$dir/nxm_hooks/nxm_hooks, " . ($other ? 'pg_overexplain, nexusmem' : 'nexusmem');
$node->append_conf('postgresql.conf', $nested_loops);
$node->append_conf('postgresql.conf', qq{
shared_preload_libraries = '$libraries'
shared_buffers = 32MB
autovacuum = off
});
$node->start;
$node->safe_psql('postgres', q{
CREATE EXTENSION nexusmem;
CREATE EXTENSION pg_prewarm;
CREATE TABLE t AS SELECT k, k / 5 AS g, repeat('x', 400) AS pad
	FROM (SELECT k FROM generate_series(1, 100000) k ORDER BY hashint4(k)) s;
CREATE INDEX t_k ON t (k);
CREATE INDEX t_g ON t (g);
CREATE TABLE o AS SELECT n::int, (n * 7919 % 100003)::int AS k, (n * 7919 % 100003 / 5)::int AS g FROM generate_series(1, 20000) n;
CREATE INDEX o_n ON o (n);
ALTER TABLE o SET (parallel_workers = 2);
CREATE TABLE few AS SELECT * FROM o WHERE n <= 20;
CREATE TABLE w AS SELECT k, k % 100 AS f, pad, point(k * 37 % 1009, k * 101 % 997) AS place FROM (SELECT * FROM t WHERE k <= 20000 ORDER BY hashint4(k)) s;
CREATE INDEX w_f ON w USING hash (f);
CREATE INDEX w_gist ON w USING gist (place);
CREATE TABLE p (k int, pad text) PARTITION BY RANGE (k);
CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (1) TO (10001);
CREATE TABLE p2 PARTITION OF p FOR VALUES FROM (10001) TO (20001);
CREATE INDEX ON p (k);
INSERT INTO p SELECT k, pad FROM w;
VACUUM (FREEZE, ANALYZE) t, o, few, w, p;
BEGIN; DELETE FROM t WHERE k % 3 = 0; ROLLBACK;
CHECKPOINT});
my @files = split /\n/, $node->safe_psql('postgres', q{SELECT pg_relation_filepath(r) FROM unnest('{t,w,p1,p2}'::regclass[]) r});

# cold(): a restarted server that has the indexes and the outer side in memory, and
# the tables nowhere
sub cold
{
	$node->stop;
	evict($node, @files);
	$node->start;
	$node->safe_psql('postgres', q{SELECT pg_prewarm(oid) FROM pg_class WHERE relkind = 'i' AND relname ~ '^[twp]' AND oid >= 16384 OR relname IN ('o', 'o_n')});
	return;
}

# plan_of($query, [$options], [$settings]): the plan as text, and the session's counts
# by kind, each of issued, used, wasted and skipped
sub plan_of
{
	my ($query, $options, $settings) = @_;
	$options //= 'BUFFERS';
	$settings = $settings ? "$settings;" : '';
	my $got = $node->safe_psql('postgres', "$settings EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF, SUMMARY OFF, $options) $query;
		SELECT '##', kind, issued, used, wasted, skipped FROM nexusmem.session_prefetch()");
	my %count;
	$count{$1} = [ split /\|/, $2 ] while $got =~ s/^##\|(\w+)\|(.*)\n?//m;
	return ($got, \%count);
}

# A line of text, and the sums of several.
my $line = qr/^ *Look-Ahead: issued=(\d+) used=(\d+) wasted=(\d+) skipped=(\d+) distance=(\d+)$/m;
sub sum_of
{
	my ($plan) = @_;
	my @sum = (0) x 4;
	while ($plan =~ /$line/g)
	{
		my @n = ($1, $2, $3, $4);
		$sum[$_] += $n[$_] foreach 0 .. 3;
	}
	return \@sum;
}

# of counts, those of blocks asked for: the others may be of a scan that has no line
sub told { return [ @{ $_[0] }[ 0 .. 2 ] ]; }
# and do those of a plan differ from what was counted? They may in no run.
sub differ { return "@{ told($_[0]) }" ne "@{ told($_[1]) }"; }

# the numbers of a node in JSON, 0 where it has none
sub numbers_of { return [ map { $_[0]{"Look-Ahead $_"} // 0 } qw(Issued Used Wasted Skipped Distance) ]; }

# cold_plan_of($enough, ...): plan_of() of a cold server, see until_enough()
sub cold_plan_of
{
	my ($enough, @query) = @_;
	return until_enough($enough, sub {
		# earlier scans may have marked the pages as all-visible
		$node->safe_psql('postgres', 'BEGIN; DELETE FROM t WHERE k BETWEEN 15000 AND 16000; ROLLBACK; CHECKPOINT') if $query[0] =~ /^SELECT k FROM t /;
		cold();
		return plan_of(@query);
	});
}

# the part of a plan that is about the node on a line that matches
sub node_of
{
	my ($plan, $match) = @_;
	my ($indent, $rest) = $plan =~ /^( *)(?:->  )?$match[^\n]*\n(.*)/ms or return '';
	my $below = length $indent;
	my @own;
	foreach (split /\n/, $rest)
	{
		last if /^( *)->/ || /^( *)\S/ && length $1 <= $below;
		push @own, $_;
	}
	return join "\n", @own;
}

my $custom = qr/Custom Scan \(nexusmem Look-Ahead\)/;

my $range = 'SELECT k, pad FROM t WHERE k BETWEEN 5000 AND 5500 ORDER BY k';
my $loop = 'SELECT o.n, t.pad FROM o JOIN t ON t.g = o.g WHERE o.n BETWEEN 1000 AND 1099';
my $nestloop = 'SET nexusmem.enable_nestloop_prefetch = on';

my %shared = (
	'index scan' => 'SELECT count(pad) FROM t WHERE k BETWEEN 70000 AND 75000',
	'index-only scan' => 'SELECT count(k) FROM t WHERE k BETWEEN 70000 AND 75000',
	'in order' => 'SELECT k, pad FROM t WHERE k BETWEEN 70000 AND 72000 ORDER BY k',
	'inner side' => 'SELECT count(t.pad) FROM o JOIN t ON t.g = o.g WHERE o.n BETWEEN 1000 AND 1399',
);
my $parallel = "$parallel_plans; SET cpu_tuple_cost = 1";

# cold_parallel_plan_of($enough, $query, [$settings]): of a cold server, see until_enough(),
# the plan, and what was counted of t in index scans, by this session and by all, and in
# nested loops by all
sub cold_parallel_plan_of
{
	my ($enough, @query) = @_;
	return until_enough($enough, sub {
		cold();
		return parallel_plan_of(@query);
	});
}
sub parallel_plan_of
{
	my ($query, $settings) = @_;
	$node->safe_psql('postgres', 'SELECT nexusmem.stat_prefetch_reset()');
	my ($plan, $count) = plan_of($query, 'BUFFERS', join '; ', $parallel, $settings // ());
	my @all = map { [ split /\|/, $node->safe_psql('postgres', "SELECT coalesce(sum(issued), 0), coalesce(sum(used), 0), coalesce(sum(wasted), 0), coalesce(sum(skipped), 0) FROM nexusmem.stat_prefetch WHERE kind = '$_' AND relid = 't'::regclass") ] } 'index', 'nestloop';
	return ($plan, $count->{index}, @all);
}

SKIP:
{
	skip 'EXPLAIN has no hook for the nodes of a plan before PostgreSQL 18', 1 if !$hook;

	# kinds of scans: those that one node makes are the session's
	my %query = (
		'index scan' => $range,
		'backward' => "$range DESC",
		'index-only scan' => 'SELECT k FROM t WHERE k BETWEEN 15000 AND 16000 ORDER BY k',
		'array' => 'SELECT k, pad FROM t WHERE k = ANY (ARRAY(SELECT i * 331 FROM generate_series(1, 300) i))',
		'hash' => 'SELECT k FROM w WHERE f = 7',
		'GiST' => q{SELECT k FROM w WHERE place <@ box '(100,100),(400,400)'},
		'GiST, ordered' => 'SELECT k FROM w ORDER BY place <-> point(500, 500) LIMIT 300',
		'LIMIT' => 'SELECT k, pad FROM t WHERE k >= 30000 ORDER BY k LIMIT 100',
		'partitions' => 'SELECT k, pad FROM p WHERE k BETWEEN 9500 AND 10500',
		'rescans' => 'SELECT o.n, x.pad FROM o, LATERAL (SELECT pad FROM t WHERE t.k BETWEEN o.k AND o.k + 20 ORDER BY t.k) x WHERE o.n BETWEEN 3000 AND 3019',
	);
	foreach my $name (sort keys %query)
	{
		my $nodes = $name eq 'partitions' ? 2 : 1;
		my ($plan, $count) = cold_plan_of(sub {
			my $lines = () = $_[0] =~ /^ *Look-Ahead:/mg;
			return $lines > $nodes || differ(sum_of($_[0]), $_[1]{index}) || $lines == $nodes && $_[1]{index}[0] > 20;
		}, $query{$name});
		is(scalar(my @all = $plan =~ /^ *(Look-Ahead:)/mg), $nodes, "$name: a line for each node that read ahead") or diag($plan);
		cmp_ok($count->{index}[0], '>', 20, "$name: blocks are read ahead");
		is_deeply(told(sum_of($plan)), told($count->{index}), "$name: the line tells what the session counted");
		like($plan, qr/distance=32$/m, "$name: and the distance");
		($plan, $count) = plan_of($query{$name});
		unlike($plan, qr/Look-Ahead/, "$name: cached, no line") or diag($plan);
	}

	# formats
	my ($plan, $count) = cold_plan_of(sub { return differ(numbers_of(decode_json($_[0])->[0]{Plan}), $_[1]{index}) || $_[1]{index}[0] > 20 }, $range, 'BUFFERS, FORMAT JSON');
	my $top = decode_json($plan)->[0]{Plan};
	is_deeply(numbers_of($top), [ @{ $count->{index} }, 32 ], 'JSON: a number each');
	cmp_ok($top->{'Look-Ahead Issued'}, '>', 20, 'JSON: blocks are read ahead');
	($plan) = plan_of($range, 'BUFFERS, FORMAT JSON');
	unlike($plan, qr/Look-Ahead/, 'JSON: cached, none');
	($plan) = cold_plan_of(sub { return $_[1]{index}[0] > 20 }, $range, 'BUFFERS, FORMAT XML');
	like($plan, qr{<Look-Ahead-Issued>[1-9]\d+</Look-Ahead-Issued>.*<Look-Ahead-Distance>32</Look-Ahead-Distance>}s, 'XML');
	($plan) = cold_plan_of(sub { return $_[1]{index}[0] > 20 || $_[1]{index}[2] != 0 }, $range, 'BUFFERS, FORMAT YAML', 'SET nexusmem.prefetch_distance = 7');
	like($plan, qr/^ *Look-Ahead Issued: [1-9]\d+\n *Look-Ahead Used: \d+\n *Look-Ahead Wasted: 0\n *Look-Ahead Skipped: \d+\n *Look-Ahead Distance: 7$/m, 'YAML');

	# nothing where it was not asked for, or there is nothing to tell
	($plan, $count) = cold_plan_of(sub { return $_[0] =~ /Look-Ahead/ || $_[1]{index}[0] > 20 }, $range, 'BUFFERS OFF');
	cmp_ok($count->{index}[0], '>', 20, 'BUFFERS OFF: blocks are read ahead');
	unlike($plan, qr/Look-Ahead/, 'and no line tells of it');
	unlike($node->safe_psql('postgres', "EXPLAIN $range"), qr/Look-Ahead/, 'EXPLAIN alone has no line');
	cold();
	($plan) = plan_of($range, 'BUFFERS', 'SET nexusmem.enable_prefetch = off');
	unlike($plan, qr/Look-Ahead/, 'off: no line');
	is_deeply([ plan_of($range) ], [ plan_of($range, 'BUFFERS', 'SET nexusmem.enable_prefetch = off') ], 'cached, the plan is that without look-ahead');
	($plan) = plan_of('SELECT t.pad FROM o JOIN t ON t.k = o.k WHERE o.n < 0');
	like($plan, qr/never executed/, 'a scan that never began');

	# nested loops: both
	($plan, $count) = cold_plan_of(sub {
		return differ(sum_of(node_of($_[0], $custom)), $_[1]{nestloop}) || differ(sum_of(node_of($_[0], qr/Index Scan using t_g/)), $_[1]{index}) ||
			$_[1]{nestloop}[0] > 0 && $_[1]{nestloop}[0] + $_[1]{index}[0] > 100;
	}, $loop, 'BUFFERS', $nestloop);
	my $outer = node_of($plan, $custom);
	my $inner = node_of($plan, qr/Index Scan using t_g/);
	is_deeply(sum_of($outer), $count->{nestloop}, 'nested loop: the node tells its own');
	is_deeply(told(sum_of($inner)), told($count->{index}), 'and the inner scan its own') or diag($plan);
	cmp_ok($count->{nestloop}[0] + $count->{index}[0], '>', 100, 'which read ahead together');

	# what is disabled, is so with the node in the plan as without
	my $mark = qr/^ *(.*)\n *Disabled: true$/m;
	my $outer_disabled = 'SELECT few.n, t.pad FROM few JOIN t ON t.g = few.g';
	my ($without) = plan_of($outer_disabled, 'BUFFERS OFF');
	my ($with) = plan_of($outer_disabled, 'BUFFERS OFF', $nestloop);
	like($with, qr/Custom Scan.*Seq Scan/s, 'a loop whose outer side is disabled');
	my @mark = map { [ $_ =~ /$mark/g ] } $without, $with;
	is(scalar @{ $mark[0] }, 1, 'EXPLAIN marks that');
	is_deeply($mark[1], $mark[0], 'and nothing else');

	# parallel scans: the leader and its workers
	foreach my $name (sort keys %shared)
	{
		foreach my $leader ('off', 'on')
		{
			my $what = "$name, leader $leader";
			my ($plan, $own, $all) = until_enough(sub {
				return $leader eq 'off' && "@{ $_[1] }" ne '0 0 0 0' || differ(sum_of($_[0]), $_[2]) || $_[2][0] > 20;
			}, sub {
				# earlier scans may have marked the pages as all-visible
				$node->safe_psql('postgres', 'BEGIN; DELETE FROM t WHERE k BETWEEN 70000 AND 75000; ROLLBACK; CHECKPOINT') if $name =~ /only/;
				cold();
				return parallel_plan_of($shared{$name}, "SET parallel_leader_participation = $leader");
			});
			like($plan, qr/Workers Launched: [12]/, "$what: runs in parallel");
			cmp_ok($all->[0], '>', 20, "$what: blocks are read ahead");
			is_deeply($own, [ 0, 0, 0, 0 ], "$what: by workers alone") if $leader eq 'off';
			is_deeply(sum_of($plan), $all, "$what: the line tells what all of them counted") or diag($plan);
			like($plan, qr/distance=32$/m, "$what: and the distance");
		}
	}

	# workers are started again for each scan, and stopped by LIMIT
	foreach my $limit ('', 'LIMIT 300')
	{
		my $inside = $limit ? "SELECT pad FROM t WHERE k BETWEEN 70000 AND 75000 $limit" : $shared{'index scan'};
		($plan, undef, my $all) = cold_parallel_plan_of(sub { return differ(sum_of($_[0]), $_[2]) || $_[2][0] > 20 }, "SELECT count(x) FROM generate_series(1, 3) g LEFT JOIN ($inside) x ON true",
			'SET nexusmem.debug_force_prefetch = on; SET parallel_leader_participation = off');
		like($plan, qr/Gather \([^\n]*loops=3\)/, "workers started anew $limit") or diag($plan);
		cmp_ok($all->[0], '>', 20, 'blocks are read ahead');
		is_deeply(sum_of($plan), $all, 'all of them are told') or diag($plan);
	}

	# a sub-plan of several nodes, in workers
	($plan, undef, my $all) = cold_parallel_plan_of(sub { return differ(sum_of($_[0]), $_[2]) || $_[2][0] > 20 }, 'SELECT count(*) FROM (' . join(' UNION ALL ', ('SELECT k FROM o') x 3) . ') x WHERE k NOT IN (SELECT t.g FROM t WHERE k BETWEEN 70000 AND 70500)',
		'SET enable_seqscan = on; SET min_parallel_index_scan_size = 10000; SET min_parallel_table_scan_size = 10000; SET parallel_leader_participation = off');
	like($plan, qr/Gather.*(hashed SubPlan.*){3}/s, 'a sub-plan of several nodes') or diag($plan);
	cmp_ok($all->[0], '>', 20, 'blocks are read ahead');
	is_deeply(told(sum_of($plan)), told($all), 'and told once') or diag($plan);

	# a query within another: each line tells its own
	$node->safe_psql('postgres', q{CREATE FUNCTION note_plan(query text) RETURNS int LANGUAGE plpgsql PARALLEL RESTRICTED AS $$
		DECLARE
			line text;
			plan text := '';
		BEGIN
			FOR line IN EXECUTE 'EXPLAIN (ANALYZE, BUFFERS, COSTS OFF) ' || query LOOP
				plan := plan || line || E'\n';
			END LOOP;
			RAISE LOG 'noted: %end of plan', plan;
			RETURN 1;
		END $$});
	($plan, $all, my $within) = until_enough(sub {
		my ($outer_sum, $inner_sum) = map { sum_of($_) } @_[0, 2];
		return differ([ map { $outer_sum->[$_] + $inner_sum->[$_] } 0 .. 3 ], $_[1]) || $inner_sum->[0] >= 320 || $outer_sum->[0] > 500 && $inner_sum->[0] > 20;
	}, sub {
		cold();
		my $before = -s $node->logfile;
		my ($outer_plan, undef, $counted) = parallel_plan_of("SELECT note_plan('SELECT count(pad) FROM t WHERE k BETWEEN 40000 AND 40300'), count(pad) FROM t WHERE k BETWEEN 70000 AND 75000");
		my ($noted) = server_log($node, $before) =~ /noted: (.*)end of plan/s;
		return ($outer_plan, $counted, $noted =~ s/^\t//mgr);
	});
	like($_, qr/Workers Launched: [12]/, 'a parallel query in a parallel query') foreach $plan, $within;
	my ($outer_sum, $inner_sum) = (sum_of($plan), sum_of($within));
	is_deeply([ map { $outer_sum->[$_] + $inner_sum->[$_] } 0 .. 3 ], $all, 'both are told');
	cmp_ok($outer_sum->[0], '>', 500, 'the outer one its own');
	cmp_ok($inner_sum->[0], '>', 20, 'the inner one its own');
	cmp_ok($inner_sum->[0], '<', 320, 'and not what is the other one\'s') or diag($within);

	# other extensions' hooks
	SKIP:
	{
		skip 'pg_overexplain is not installed', 1 if !$other;
		($plan) = cold_plan_of(sub { return $_[1]{index}[0] > 20 }, $range, 'BUFFERS, DEBUG');
		like(node_of($plan, qr/Index Scan/), qr/Parallel Safe: .*Look-Ahead: /s, 'a hook that was there before is called') or diag($plan);
	}
}

# the node of nested loops, on every version
my ($plan, $count) = cold_plan_of(sub {
	return differ(sum_of(node_of($_[0], $custom)), $_[1]{nestloop}) || node_of($_[0], qr/Index Scan using t_g/) =~ /Look-Ahead/ || $_[1]{nestloop}[0] > 20;
}, $loop, 'BUFFERS OFF', $nestloop);
is_deeply(sum_of(node_of($plan, $custom)), $count->{nestloop}, 'nested loop: the node tells, without BUFFERS too') or diag($plan);
cmp_ok($count->{nestloop}[0], '>', 20, 'blocks are read ahead');
unlike(node_of($plan, qr/Index Scan using t_g/), qr/Look-Ahead/, 'and the inner scan does not');
foreach my $leader ('off', 'on')
{
	($plan, undef, undef, my $all) = cold_parallel_plan_of(sub { return differ(sum_of(node_of($_[0], $custom)), $_[3]) || $_[3][0] > 300 }, 'SELECT count(t.pad) FROM o JOIN t ON t.k = o.k WHERE o.n BETWEEN 1000 AND 1999',
		"$nestloop; SET enable_seqscan = on; SET parallel_leader_participation = $leader");
	like($plan, qr/Workers Launched: [12]/, "nested loop, leader $leader: runs in parallel");
	cmp_ok($all->[0], '>', 300, 'blocks are read ahead');
	is_deeply(sum_of(node_of($plan, $custom)), $all, 'the line tells what all of them counted') or diag($plan);
}
sub custom_in_json
{
	my ($json) = @_;
	return (grep { $_->{'Node Type'} eq 'Custom Scan' } map { @{ $_->{Plans} // [] } } @{ decode_json($json)->[0]{Plan}{Plans} })[0];
}
($plan, $count) = cold_plan_of(sub { return differ(numbers_of(custom_in_json($_[0])), $_[1]{nestloop}) || $_[1]{nestloop}[0] > 0 },
	"$loop ORDER BY o.n LIMIT 303", 'FORMAT JSON, BUFFERS', $nestloop);
is_deeply(numbers_of(custom_in_json($plan)), [ @{ $count->{nestloop} }, 32 ], 'JSON, and stopped early');

# the plan that another extension put in place is not taken away again
foreach my $setting ($nestloop, 'SELECT 1')
{
	my $stderr;
	$node->psql('postgres', "SET nxm_hooks.replace = on; $setting; SELECT count(pad) FROM ($loop) x", stderr => \$stderr);
	like($stderr, qr/the plan is still the other extension's/, "$setting: another extension's plan stays");
	unlike($stderr, qr/not the other/, 'in every query');
}
is($node->safe_psql('postgres', "$nestloop; PREPARE q AS SELECT count(pad) FROM ($loop) x; EXECUTE q; EXECUTE q; EXECUTE q"), "500\n500\n500", 'and without it the own plan comes back');

# auto_explain prints at the end of a query, without EXPLAIN
my $from;
my $auto = "LOAD 'auto_explain'; SET auto_explain.log_min_duration = 0; SET auto_explain.log_analyze = on; SET auto_explain.log_buffers = on; $nestloop";
my @lines = until_enough(sub { return @_ > 0 }, sub {
	cold();
	$from = -s $node->logfile;
	$node->safe_psql('postgres', "$auto; $loop");
	return server_log($node, $from) =~ /^\s*Look-Ahead: issued=[1-9]/mg;
});
cmp_ok(scalar @lines, '>=', 1, 'auto_explain shows the line');
$from = -s $node->logfile;
$node->safe_psql('postgres', "$auto; SET auto_explain.log_analyze = off; $loop");
my $log = server_log($node, $from);
like($log, qr/Custom Scan \(nexusmem Look-Ahead\)/, 'auto_explain shows the node');
unlike($log, qr/Look-Ahead: /, 'without numbers that nobody asked for');

unlike(server_log($node), qr/WARNING|leak|TRAP|PANIC/, 'no complaint in the log');
$node->stop;
done_testing();

# Look-ahead and damaged pages: one that the query would not have come to raises
# neither an error nor a warning, one that it comes to raises its own.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use NxmDeny 'fadvise64';
use NxmTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PostgreSQL::Test::Cluster->new('damaged');
$node->init(extra => ['--data-checksums']);
$node->append_conf('postgresql.conf', $nested_loops);
$node->append_conf('postgresql.conf', q{
shared_preload_libraries = 'nexusmem'
autovacuum = off
});
$node->start;
# w: four entries on each leaf of its index. t: rows of a group g, an even number, lie
# apart. l: its first 500 rows are of no group
$node->safe_psql('postgres', q{
CREATE EXTENSION nexusmem;
CREATE EXTENSION pageinspect;
CREATE TABLE w AS SELECT k, k % 7 AS f, repeat('x', 400) AS pad FROM (SELECT k FROM generate_series(1, 4000) k ORDER BY hashint4(k)) s;
CREATE INDEX w_k ON w (k) INCLUDE (pad) WITH (fillfactor = 20);
CREATE TABLE t AS SELECT k, k / 5 * 2 AS g, repeat('x', 400) AS pad FROM (SELECT k FROM generate_series(500, 20000) k ORDER BY hashint4(k)) s;
CREATE INDEX t_g ON t (g);
CREATE TABLE o AS SELECT n::int, (n * 7919 % 3500 * 2 + 300)::int AS g FROM generate_series(1, 2000) n;
CREATE INDEX o_n ON o (n);
CREATE TABLE l AS SELECT n::int, (n * 7919 % 3500 * 2 + 300 + (n <= 500)::int)::int AS g FROM generate_series(1, 1000) n;
CREATE INDEX l_n ON l (n);
VACUUM (FREEZE, ANALYZE) w, t, o, l;
CREATE FUNCTION leaf_of(index text, entry tid) RETURNS bigint LANGUAGE sql AS $$
	SELECT b FROM generate_series(1, pg_relation_size(index) / 8192 - 1) b, bt_page_items(index, b::int) WHERE htid = entry OR entry = ANY (tids) LIMIT 1 $$;
CHECKPOINT});

# damaged($file, $block, $queries): runs the queries off and on, before the page is
# damaged and after; answers are by [damaged][on]
sub damaged
{
	my ($file, $block, @queries) = @_;
	my @answers;
	my $path = $node->data_dir . "/$file";
	my $kept;
	foreach my $damaged (0, 1)
	{
		foreach my $on (0, 1)
		{
			$node->stop;
			open(my $fh, '+<', $path) or die "$path: $!";
			binmode $fh;
			sysseek($fh, $block * 8192 + 4000, 0);
			sysread($fh, $kept, 16) if !defined $kept;
			sysseek($fh, $block * 8192 + 4000, 0);
			syswrite($fh, $damaged ? ~$kept : $kept);
			close($fh);
			$node->start;
			my $s = session($node);
			ask($s, "SET nexusmem.$_ = " . ($on ? 'on' : 'off')) foreach 'enable_prefetch', 'enable_nestloop_prefetch';
			$answers[$damaged][$on]{rows} = join("\n", map { ask($s, $_) } @queries);
			$answers[$damaged][$on]{issued} = ask($s, 'SELECT sum(issued) FROM nexusmem.session_prefetch()');
			close_session($s);
		}
	}
	# mended
	$node->stop;
	open(my $fh, '+<', $path) or die "$path: $!";
	binmode $fh;
	sysseek($fh, $block * 8192 + 4000, 0);
	syswrite($fh, $kept);
	close($fh);
	$node->start;
	return @answers;
}

sub value
{
	my ($query) = @_;
	return $node->safe_psql('postgres', $query);
}
my %file = map { $_ => value("SELECT pg_relation_filepath('$_')") } qw(w w_k t t_g);
sub leaf
{
	my ($index, $row) = @_;
	return value("SELECT leaf_of('$index', (SELECT ctid FROM $row))");
}

my %case = (
	'a leaf behind LIMIT' => [ $file{w_k}, leaf('w_k', 'w WHERE k = 1038'), 'SELECT k, f FROM w WHERE k >= 1000 ORDER BY k LIMIT 30' ],
	'a leaf behind LIMIT, backward' => [ $file{w_k}, leaf('w_k', 'w WHERE k = 962'), 'SELECT k, f FROM w WHERE k <= 1000 ORDER BY k DESC LIMIT 30' ],
	'a block of the table behind LIMIT' => [ $file{w}, value('SELECT (ctid::text::point)[0]::int FROM w WHERE k = 1035'), 'SELECT k, f FROM w WHERE k >= 1000 ORDER BY k LIMIT 30' ],
	'a leaf of an array behind LIMIT' => [ $file{w_k}, leaf('w_k', 'w WHERE k = 1350'), 'SELECT k, f FROM w WHERE k = ANY (ARRAY(SELECT i * 10 FROM generate_series(100, 300) i)) ORDER BY k LIMIT 30' ],
	'a leaf behind a fetch, nested loop' => [ $file{t_g}, leaf('t_g', 't WHERE g = (SELECT g FROM o WHERE n = 141) LIMIT 1'),
		'BEGIN; DECLARE c NO SCROLL CURSOR FOR SELECT o.n, t.k, length(t.pad) FROM o JOIN t ON t.g = o.g WHERE o.n >= 100 ORDER BY o.n', 'FETCH 100 FROM c', 'FETCH 100 FROM c', 'ROLLBACK' ],
	'the visibility map' => [ "$file{t}_vm", 0,
		'BEGIN; DECLARE c NO SCROLL CURSOR FOR SELECT l.n, t.g FROM l LEFT JOIN t ON t.g = l.g WHERE l.n >= 480 ORDER BY l.n', 'FETCH 10 FROM c', 'FETCH 8 FROM c', 'ROLLBACK' ],
);
foreach my $name (sort keys %case)
{
	my @got = damaged(@{ $case{$name} });
	like($got[0][1]{rows}, qr/^\d+\|/m, "$name: rows come");
	unlike($got[0][0]{rows}, qr/ERROR|WARNING/, "$name: there is no error without");
	is($got[0][1]{rows}, $got[0][0]{rows}, "$name: same rows off and on before");
	cmp_ok($got[0][1]{issued}, '>', 10, "$name: blocks are read ahead ($got[0][1]{issued})");
	is($got[1][0]{rows}, $got[0][0]{rows}, "$name: the query does not come to the page");
	is($got[1][1]{rows}, $got[0][0]{rows}, "$name: and look-ahead does not show it");
}

%case = (
	'a leaf' => [ $file{w_k}, leaf('w_k', 'w WHERE k = 1046'), 'SELECT k, f FROM w WHERE k >= 1000 ORDER BY k LIMIT 70' ],
	'a leaf of a nested loop' => [ $file{t_g}, leaf('t_g', 't WHERE g = (SELECT g FROM o WHERE n = 116) LIMIT 1'),
		'SELECT count(*), sum(length(t.pad)) FROM o JOIN t ON t.g = o.g WHERE o.n >= 100' ],
	'the meta page' => [ $file{t_g}, 0, 'SELECT o.n, t.k FROM o JOIN t ON t.g = o.g' ],
);
foreach my $name (sort keys %case)
{
	my @got = damaged(@{ $case{$name} });
	unlike($got[0][1]{rows}, qr/ERROR/, "$name in the query's way: no error before");
	like($got[1][0]{rows}, qr/ERROR:  invalid page in block/, "$name in the query's way: an error");
	is($got[1][1]{rows}, $got[1][0]{rows}, "$name in the query's way: the same error with look-ahead");
}

unlike(server_log($node), qr/leak|TRAP|PANIC/, 'no complaint in the log');
$node->stop;
done_testing();

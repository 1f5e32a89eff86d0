# pgvector's HNSW and IVFFlat, whose scans are none of those that look-ahead knows: all
# kinds of it on change nothing.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use NxmTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PostgreSQL::Test::Cluster->new('pgvector');
$node->init;
$node->append_conf('postgresql.conf', $nested_loops);
$node->append_conf('postgresql.conf', q{
shared_preload_libraries = 'nexusmem'
shared_buffers = 32MB
autovacuum = off
nexusmem.enable_learned_prefetch = on
nexusmem.predictor_memory = 2MB
});
$node->start;
if ($node->safe_psql('postgres', q{SELECT count(*) FROM pg_available_extensions WHERE name = 'vector'}) == 0)
{
	$node->stop;
	plan skip_all => 'the extension vector is not installed';
}
$node->safe_psql('postgres', q{
CREATE EXTENSION nexusmem;
CREATE EXTENSION vector;
SELECT setseed(0.3);
CREATE TABLE v AS SELECT i, ARRAY[random(), random(), random(), random()]::vector(4) AS e, repeat('x', 500) AS pad
	FROM generate_series(1, 20000) i;
CREATE INDEX v_hnsw ON v USING hnsw (e vector_l2_ops);
CREATE INDEX v_ivfflat ON v USING ivfflat (e vector_cosine_ops) WITH (lists = 20);
CREATE INDEX v_i ON v (i);
CREATE TABLE asked AS SELECT i, e FROM v WHERE i % 200 = 0;
VACUUM (ANALYZE) v, asked;
CHECKPOINT});
my @files = split /\n/, $node->safe_psql('postgres', q{SELECT pg_relation_filepath(c) FROM unnest('{v,v_hnsw,v_ivfflat,v_i}'::regclass[]) c});

my %query = (
	HNSW => q{SELECT i, pad FROM v ORDER BY e <-> '[0.5,0.5,0.5,0.5]' LIMIT 50},
	IVFFlat => q{SELECT i, pad FROM v ORDER BY e <=> '[0.5,0.1,0.5,0.9]' LIMIT 50},
	'HNSW on the inner side' => q{SELECT a.i AS a, n.i FROM asked a, LATERAL (SELECT i FROM v ORDER BY v.e <-> a.e LIMIT 5) n},
	'HNSW on the outer side' => q{SELECT n.i, w.pad FROM (SELECT i FROM v ORDER BY e <-> '[0.2,0.5,0.5,0.1]' LIMIT 40) n JOIN v w ON w.i = n.i},
);
foreach my $name (sort keys %query)
{
	my @got;
	foreach my $setting ('off', 'on', 'on')
	{
		$node->stop;
		evict($node, @files);
		$node->start;
		push @got, $node->safe_psql('postgres', "SET enable_seqscan = off; SET nexusmem.enable_prefetch = $setting; SET nexusmem.enable_nestloop_prefetch = $setting; SELECT md5(string_agg(x::text, ',')) FROM ($query{$name}) x");
	}
	is_deeply([ @got[1, 2] ], [ @got[0, 0] ], "$name: same rows");
	like($node->safe_psql('postgres', "SET enable_seqscan = off; EXPLAIN $query{$name}"), qr/using v_(hnsw|ivfflat)/, "$name: by its index");
}
unlike(server_log($node), qr/TRAP|terminated by signal|PANIC|ERROR/, 'no complaint in the log');
$node->stop;

done_testing();

# Files of saved structures of format 1, which version 0.1 wrote, and files whose
# checksums are right and whose contents are not. They are made here, by a writer of
# format 1:
#
#	header	magic "NXMSAVE\0", byte order, format, system identifier, length of the file,
#			time, number of structures, MAXIMUM_ALIGNOF, CRC of all behind the header,
#			CRC of the header before this field
#	frame	CRC of what follows, type, length of the data, count, data
#
# For each structure a frame OBJECT (1): kind (0 counter, 1 map, 2 stack, 3 queue),
# database, owner, node, is it striped, length of the name, number of grants, 0, value
# of a counter; the name; role and privileges (1 read, 2 write) of each grant. Then
# frames ENTRIES (2): length of the value, of the key, type (0 text, 1 bytea, 2 jsonb),
# key, value, so often as their count says. Then a frame END (3), whose count is that of
# all entries. Numbers are the machine's own, CRCs are CRC-32C.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use NxmTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my ($COUNTER, $MAP, $STACK, $QUEUE, $CACHE) = (0 .. 4);
my ($TEXT, $BYTEA, $JSONB) = (0 .. 2);
my ($READ, $WRITE) = (1, 2);

my @crc_table = map { my $c = $_; $c = $c & 1 ? ($c >> 1) ^ 0x82F63B78 : $c >> 1 for 1 .. 8; $c } 0 .. 255;

sub crc32c
{
	my $c = 0xFFFFFFFF;
	$c = $crc_table[($c ^ $_) & 0xFF] ^ ($c >> 8) for unpack 'C*', $_[0];
	return $c ^ 0xFFFFFFFF;
}

sub frame
{
	my ($type, $count, $data) = @_;
	my $covered = pack('L3', $type, length $data, $count) . $data;
	return pack('L', crc32c($covered)) . $covered;
}

# entry(type, value, [key])
sub entry
{
	my ($type, $value, $key) = @_;
	$key //= '';
	return pack('LSS', length $value, length $key, $type) . $key . $value;
}

# one of a cache, which format 2 has; deadline: microseconds since 2000, 0: none
sub cache_entry
{
	my ($deadline, $key) = @_;
	return pack('LSSq', 1, length $key, $TEXT, $deadline) . $key . 'v';
}

my ($node, $file, $database, $system, $alignment);
my %role;

# structure(kind, name, {owner, node, striped, value, grants: [role, privileges]...}, [entry...]...):
# each list of entries is a frame; a cache of format 2 has no limit and no default
sub structure
{
	my ($kind, $name, $o, @frames) = @_;
	my @grants = @{$o->{grants} // []};
	my $entries = 0;
	$entries += @$_ foreach @frames;
	return join('',
		frame(1, 0, pack('L8q', $kind, $database, $role{$o->{owner} // 'boss'}, $o->{node} // 0, $o->{striped} // 0, length $name, scalar @grants, 0, $o->{value} // 0)
			  . $name . join('', map { pack('L2', @$_) } @grants) . ($kind == $CACHE ? pack('Qq', 0, 0) : '')),
		(map { frame(2, scalar @$_, join('', @$_)) } @frames),
		frame(3, $entries, ''));
}

sub write_file
{
	my ($format, @structures) = @_;
	my $body = join '', @structures;
	my $header = pack('a8L2Q2qL3', 'NXMSAVE', 0x01020304, $format, $system, 56 + length $body, 0, scalar @structures, $alignment, crc32c($body));
	open my $h, '>', $file or die "$file: $!";
	binmode $h;
	print $h $header, pack('L', crc32c($header)), $body;
	close $h;
	return;
}

sub sql { return $node->safe_psql('postgres', "SET search_path = public, nexusmem; $_[0]"); }

sub format_of
{
	open my $h, '<', $file or die "$file: $!";
	binmode $h;
	read $h, my $header, 16;
	close $h;
	return (unpack 'a8LL', $header)[2];
}

is(crc32c('123456789'), 0xE3069283, 'the checksum is CRC-32C');

$node = PostgreSQL::Test::Cluster->new('save_format');
$node->init;
$node->append_conf('postgresql.conf', "shared_preload_libraries = 'nexusmem'\nautovacuum = off\nnexusmem.num_nodes = 2\nnexusmem.save = all");
$file = $node->data_dir . '/pg_nexusmem/structures';
$node->start;
sql('CREATE EXTENSION nexusmem; CREATE ROLE boss; CREATE ROLE other; GRANT USAGE ON SCHEMA nexusmem TO PUBLIC');
$database = sql(q{SELECT oid FROM pg_database WHERE datname = 'postgres'});
$system = sql('SELECT system_identifier FROM pg_control_system()');
$alignment = sql('SELECT max_data_alignment FROM pg_control_init()');
$role{$_} = sql("SELECT '$_'::regrole::oid") foreach qw(boss other);
$node->stop;
mkdir $node->data_dir . '/pg_nexusmem', 0700 or die "pg_nexusmem: $!";

write_file(1,
	structure($COUNTER, 'exact', { value => -7, grants => [ [ $role{other}, $READ ] ] }),
	structure($COUNTER, 'striped', { value => 5050, striped => 1 }),
	structure($MAP, 'types', { grants => [ [ 0, $WRITE ] ] },
		[ entry($TEXT, 'a text', 'text'), entry($BYTEA, "\0\xff", 'bytea'), entry($JSONB, pack('L', 0x40000000), 'jsonb'), entry($TEXT, '', 'empty') ]),
	structure($MAP, 'frames', { owner => 'other' },
		(map { my $f = $_; [ map { entry($TEXT, "value $f $_", "key $f $_") } 1 .. 100 ] } 1 .. 5),
		[ entry($TEXT, 'l' x 1048576, 'k' x 1024) ]),
	structure($MAP, 'emptied', {}),
	structure($STACK, 'stack', { node => 1 }, [ entry($TEXT, 'top'), entry($BYTEA, 'b') ], [ entry($TEXT, 'bottom') ]),
	# of a node that there is not any more
	structure($QUEUE, 'queue', { node => 7 }, [ entry($TEXT, 'oldest'), entry($BYTEA, 'b') ], [ entry($TEXT, 'newest') ]));
my $from = -s $node->logfile;
$node->start;
my $contents = q{
SELECT kind, name, owner, entries FROM structures WHERE kind <> 'cache' ORDER BY 1, 2;
SELECT string_agg(CASE name WHEN 'stack' THEN node = 1 ELSE node IN (0, 1) END::text, ' ') FROM structures WHERE name IN ('stack', 'queue');
SELECT counter_get('exact'), counter_get('striped'), counter_add('striped', 0) IS NULL;
SELECT map_get('types', 'text'), map_get_bytea('types', 'bytea'), map_get_jsonb('types', 'jsonb'), map_get('types', 'empty') = '';
SELECT count(*) FROM generate_series(1, 5) f, generate_series(1, 100) i WHERE map_get('frames', format('key %s %s', f, i)) = format('value %s %s', f, i);
SELECT map_get('frames', repeat('k', 1024)) = repeat('l', 1048576)};
my $expected = q{counter|exact|boss|1
counter|striped|boss|1
map|emptied|boss|0
map|frames|other|501
map|types|boss|4
queue|queue|boss|3
stack|stack|boss|3
true true
-7|5050|t
a text|\x00ff|[]|t
500
t};
is(sql($contents), $expected, 'format 1: loaded');
unlike(server_log($node, $from), qr/not loaded/, 'without a warning');
ok(!-e $file, 'and removed');
is(sql(q{SET ROLE other; SELECT counter_get('exact'), map_put('types', 'new', 'x'), map_delete('types', 'new')}), '-7|t|t', 'sharing');
{
	my ($rc, $out, $err) = $node->psql('postgres', q{SET ROLE other; SELECT nexusmem.counter_add('exact')});
	like($err, qr/permission denied/, 'and no more than that');
}
sql(q{SELECT cache_set('k', 'v')});
$node->stop;
is(format_of(), 2, 'saved in the present format');
$node->start;
is(sql($contents), $expected, 'and loaded again');
is(sql(q{SELECT cache_get('k')}), 'v', 'with a cache');
is(sql(q{SELECT stack_pop('stack'), stack_pop_bytea('stack'), stack_pop('stack'), stack_pop('stack') IS NULL}), 'top|\x62|bottom|t', 'a stack from the top');
is(sql(q{SELECT queue_pop('queue'), queue_pop_bytea('queue'), queue_pop('queue'), queue_pop('queue') IS NULL}), 'oldest|\x62|newest|t', 'a queue from the oldest');
$node->stop;

# one of a later version
write_file(3, structure($COUNTER, 'c', { value => 1 }));
$from = -s $node->logfile;
$node->start;
is(sql('SELECT count(*) FROM structures'), 0, 'a later format: not loaded');
like(server_log($node, $from), qr/were not loaded: its format is 3, and this version of nexusmem reads 1 to 2/, 'with a warning');
$node->stop;

# deadlines: before 2000, of which the clock was not set; to come; and none
write_file(2, structure($CACHE, 'c', {}, [ cache_entry(-86400000000, 'past'), cache_entry(6e16, 'future'), cache_entry(0, 'none') ]));
$from = -s $node->logfile;
$node->start;
is(sql(q{SELECT cache_get('past', 'c') IS NULL, now() + cache_ttl('future', 'c') BETWEEN '3901-01-01' AND '3902-01-01', cache_get('none', 'c'), cache_ttl('none', 'c') IS NULL, cache_drop('c')}), 't|t|v|t|t', 'deadlines of a cache');
unlike(server_log($node, $from), qr/not loaded/, 'and all of it was loaded');
$node->stop;

# right checksums, senseless contents: what is whole is loaded
my %broken = (
	'a value beyond its frame' => structure($MAP, 'bad', {}, [ pack('LSS', 1000, 1, $TEXT) . 'kv' ]),
	'fewer entries than counted' => substr(structure($MAP, 'bad', {}), 0, -16) . frame(2, 3, entry($TEXT, 'v', 'k')) . frame(3, 3, ''),
	'a type that there is not' => structure($QUEUE, 'bad', {}, [ entry(99, 'v') ]),
	'a stack with an entry that is broken' => structure($STACK, 'bad', {}, [ entry($TEXT, 'top') ], [ entry(99, 'v') ], [ entry($TEXT, 'bottom') ]),
	'a counter with entries' => structure($COUNTER, 'bad', {}, [ entry($TEXT, 'v') ]),
	'a kind that there is not' => structure(99, 'bad', {}),
	'a cache, which that format has not' => structure($CACHE, 'bad', {}, [ entry($TEXT, 'v', 'k') ]),
	'a cache with a deadline that nothing has' => structure($CACHE, 'bad', {}, [ cache_entry(9223372036854775807, 'k') ]),
	'no name' => structure($MAP, '', {}));
foreach my $what (sort keys %broken)
{
	write_file($what =~ /deadline/ ? 2 : 1, structure($COUNTER, 'before', { value => 1 }), $broken{$what}, structure($STACK, 'after', {}, [ entry($TEXT, 'v') ]));
	$from = -s $node->logfile;
	$node->start;
	is(sql(q{SELECT string_agg(name, ',' ORDER BY name), counter_get('before'), stack_pop('after') FROM structures}), 'after,before|1|v', "$what: the others are loaded");
	like(server_log($node, $from), qr/WARNING:  saved \w+ "\w*" was not loaded: .* malformed/, "$what: with a warning");
	sql(q{SELECT counter_drop('before'), stack_drop('after')});
	$node->stop;
	ok(!-e $file, "$what: and nothing is saved");
	unlink "$file.refused";
}

# parts of a structure without one: nothing is loaded
write_file(1, structure($COUNTER, 'before', { value => 1 }), frame(2, 1, entry($TEXT, 'v')));
$from = -s $node->logfile;
$node->start;
is(sql('SELECT count(*) FROM structures'), 0, 'entries of no structure: not loaded');
like(server_log($node, $from), qr/were not loaded: its parts are not in order/, 'with a warning');
$node->stop;
is(join("\n", grep { /TRAP|PANIC|terminated by signal|leak/ } split /\n/, server_log($node)), '', 'the log is quiet');
done_testing();

# The C interface: an extension that links nothing of nexusmem, built from the header
# alone, and run through pg_regress in a database of its own.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use File::Copy;
use NxmTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $module = "$FindBin::RealBin/../modules/nxm_user";
my $dir = PostgreSQL::Test::Utils::tempdir();
my $pgxs = `pg_config --pgxs`;
chomp $pgxs;

# the installed header; where the library comes from elsewhere (dynamic_library_path), ours
my $include = `pg_config --includedir-server`;
chomp $include;
$include .= '/extension';
my $library = `pg_config --pkglibdir`;
chomp $library;
$library .= '/nexusmem.so';
my $header_is_there = -e "$include/nexusmem/nexusmem_api.h";
ok($header_is_there || !-e $library, 'the header is installed where the library is')
  or die "no $include/nexusmem/nexusmem_api.h beside $library";
if (!$header_is_there)
{
	note('neither header nor library is installed: taking the header of the source tree');
	$include = "$dir/include";
	mkdir $_ for $include, "$include/nexusmem";
	copy("$FindBin::RealBin/../../src/nexusmem_api.h", "$include/nexusmem/");
}

system("cp -r '$module' '$dir/nxm_user' && rm -f '$dir'/nxm_user/*.o '$dir'/nxm_user/*.so") == 0 or die;
my $make = "make -C '$dir/nxm_user' PG_CONFIG=pg_config NEXUSMEM_INCLUDE='$include' with_llvm=no COPT=-Werror";
my $output = `$make 2>&1`;
is($?, 0, 'builds with the installed header, without warnings') or die $output;
unlike(`ldd '$dir/nxm_user/nxm_user.so'`, qr/nexusmem/, 'is not linked with nexusmem');

my $node = PostgreSQL::Test::Cluster->new('c_interface');
$node->init;
$node->append_conf('postgresql.conf', "shared_preload_libraries = 'nexusmem'");
$node->start;
$node->safe_psql('postgres', q{CREATE DATABASE regression_nxm_user ENCODING 'UTF8' LOCALE 'C' TEMPLATE template0});

# Its script as CREATE EXTENSION would run it, which wants an installed one.
my $script = slurp_file("$dir/nxm_user/nxm_user--1.0.sql");
$script =~ s/^\\echo.*\n//m;
$script =~ s/MODULE_PATHNAME/$dir\/nxm_user\/nxm_user/g;
$node->safe_psql('regression_nxm_user', "CREATE EXTENSION nexusmem; GRANT USAGE ON SCHEMA nexusmem TO PUBLIC; $script");

my $regress = $ENV{PG_REGRESS} // ($pgxs =~ s{/makefiles/pgxs\.mk$}{/test/regress/pg_regress}r);
my $ok = system($regress, '--inputdir', "$dir/nxm_user", '--outputdir', "$dir/nxm_user", '--use-existing',
	'--dbname', 'regression_nxm_user', '--host', $node->host, '--port', $node->port, 'nxm_user') == 0;
ok($ok, 'pg_regress');
diag(slurp_file("$dir/nxm_user/regression.diffs")) if !$ok && -e "$dir/nxm_user/regression.diffs";

# A handle that is kept stores where its process is at home by now.
$node->append_conf('postgresql.conf', "nexusmem.num_nodes = 2\nnexusmem.enable_numa_optimizations = on");
$node->restart;
my $session = session($node, 'regression_nxm_user');
my $home = ask($session, 'SELECT nexusmem.my_node()');
my $other = 1 - $home;
my $there = "SELECT used_bytes > 1000000 FROM nexusmem.node_memory WHERE owner = 'structures' AND node =";
is(ask($session, 'SELECT user_kept_fill(2000)'), '2000', "at home on node $home");
is($node->safe_psql('regression_nxm_user', "$there $home"), 't', 'it takes memory there');
isnt($node->safe_psql('regression_nxm_user', "$there $other"), 't', 'and not on the other node');
is($node->safe_psql('regression_nxm_user', "SELECT nexusmem.pin_backend($session->{pid}, $other)"), 't', "pinned to node $other");
is(ask($session, 'SELECT user_kept_fill(2000)'), '4000', 'and by the same handle');
is($node->safe_psql('regression_nxm_user', "$there $other"), 't', 'it takes memory there');

# And adds to a striped counter in a stripe of that node: when that is full, the one of the
# other node is not.
foreach my $full (0, 1)
{
	my $pin = sub { return $node->safe_psql('regression_nxm_user', "SELECT nexusmem.pin_backend($session->{pid}, $_[0])") };
	my $add = sub { return ask($session, "SELECT user_add('spread $full', $_[0], 2)") };
	$node->safe_psql('regression_nxm_user', "SELECT nexusmem.counter_create('spread $full', true)");
	$pin->($full);
	is($add->('9223372036854775807'), '', "the stripe of node $full is full");
	$pin->(1 - $full);
	is($add->(1), '', 'that of the other node is another one');
	$pin->($full);
	like($add->(1), qr/^ERROR:  counter "spread $full" is out of range/, "back on node $full");
}
close_session($session);

# Without preloading the user's first call loads the library.
$node->append_conf('postgresql.conf', "shared_preload_libraries = ''");
$node->restart;
my ($stdout, $stderr);
is($node->safe_psql('regression_nxm_user', 'SELECT user_version()'), 1, 'not preloaded: the library comes with the first call');
$node->psql('regression_nxm_user', q{SELECT user_add('a', 1, 6)}, stdout => \$stdout, stderr => \$stderr);
if ($node->pg_version >= 17)
{
	is($stdout, '1', 'not preloaded: structures work');
}
else
{
	like($stderr, qr/ERROR:.*shared memory.*HINT:.*shared_preload_libraries/s, 'not preloaded: the documented error');
}
$node->stop;
unlike(server_log($node), qr/terminated by signal|TRAP|PANIC/, 'no complaint in the log');
done_testing();

# The Makefile: what is installed.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use NxmBuild;
use PostgreSQL::Test::Utils;
use Test::More;

may_build() or plan skip_all => 'no compiler';

# what this test was called with is not meant for the calls below
delete @ENV{qw(MAKEFLAGS MFLAGS MAKEOVERRIDES MAKELEVEL)};

my $root = "$FindBin::RealBin/../..";
my $dir = PostgreSQL::Test::Utils::tempdir();
mkdir "$dir/tree" or die;
system("cp -rp '$root/Makefile' '$root/nexusmem.control' '$root/src' '$root/sql' '$dir/tree'") == 0 or die;
unlink glob("'$dir/tree/src/*.o' '$dir/tree/src/core/*.o'");

# make_in($where, $arguments): make there, of a library of two objects, one of each directory.
# Returns its status; what it has printed is in $output.
my $output;
sub make_in
{
	my ($where, $arguments) = @_;
	$output = `make -C '$dir/$where' PG_CONFIG=pg_config COPT=-O0 OBJS='src/nodes.o src/core/item.o' $arguments 2>&1`;
	return $? >> 8;
}

sub makes
{
	my ($where, $arguments, $what) = @_;
	is(make_in($where, $arguments), 0, $what) or diag($output);
	return;
}

sub files
{
	my ($where) = @_;
	return `cd '$dir/$where' && find . -type f | LC_ALL=C sort`;
}

sub touch
{
	my ($file) = @_;
	system("mkdir -p '" . ($file =~ s{[^/]*$}{}r) . "' && touch '$file'") == 0 or die;
	return;
}

# Installed is no bitcode, and that of earlier versions is removed.
chomp(my $bitcode = `pg_config --pkglibdir`);
$bitcode .= '/bitcode';
my @ours = ("$bitcode/nexusmem/src/core/map.bc", "$bitcode/nexusmem.index.bc");
my @others = ("$bitcode/nexusmem_other/map.bc", "$bitcode/nexusmem_other.index.bc");
touch("$dir/installed$_") foreach @ours, @others;
makes('tree', "install DESTDIR='$dir/installed'", 'installed');
my $installed = files('installed');
like($installed, qr/\/nexusmem\.so$/m, 'the library');
is(join(' ', sort grep { /bitcode/ } split(/\n/, $installed)), join(' ', map { ".$_" } sort @others), 'bitcode is that of others');
touch("$dir/installed$_") foreach @ours;

makes('tree', "uninstall DESTDIR='$dir/installed'", 'uninstalled');
is(files('installed'), join('', map { ".$_\n" } sort @others), 'all but what is of others');

done_testing();

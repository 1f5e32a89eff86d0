# The Makefile: for what objects are made anew, what is installed, and builds outside of the
# source tree.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use NxmBuild;
use PostgreSQL::Test::Utils;
use Test::More;

may_build() or plan skip_all => 'no compiler';

# what this test was called with is not meant for the calls below
delete @ENV{qw(MAKEFLAGS MFLAGS MAKEOVERRIDES MAKELEVEL CC CFLAGS DESTDIR)};

my $root = "$FindBin::RealBin/../..";
my $dir = PostgreSQL::Test::Utils::tempdir();
mkdir "$dir/$_" or die foreach qw(tree outside server);
system("cp -rp '$root/Makefile' '$root/nexusmem.control' '$root/src' '$root/sql' '$dir/tree'") == 0 or die;
unlink glob("'$dir/tree/src/*.o' '$dir/tree/src/core/*.o'"), "$dir/tree/src/built_for";

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

# Objects are of one PostgreSQL, in one state of it.
chomp(my $include = `pg_config --includedir-server`);
my $other = "includedir_server='$dir/server' COPT=-I$dir";
system("ln -s '$include'/* '$dir/server/' && rm '$dir/server/pg_config.h' && cp '$include/pg_config.h' '$dir/server/'") == 0 or die;
my $sources = files('tree');
makes('tree', '', 'is built');
makes('tree', '-q', 'and is up to date then');
is(make_in('tree', "-q $other"), 1, 'for another PostgreSQL it is not');
# no header of libnuma is asked for, where there is one
append_to_file("$dir/$_", "#error libnuma\n") foreach 'numa.h', 'numaif.h';
makes('tree', $other, 'for which it is built, without libnuma');
like($output, qr{-o src/$_\b}, "with src/$_") foreach 'nodes.o', 'core/item.o';
makes('tree', "-q $other", 'and is up to date then');
append_to_file("$dir/server/pg_config.h", "/* an update */\n");
is(make_in('tree', "-q $other"), 1, 'after an update of that it is not');
makes('tree', 'clean', 'cleaned');
is(files('tree'), $sources, 'nothing is left');

# Without PGXS nothing is done, and that is an error.
system("printf '#!/bin/sh\\nexit 1\\n' >'$dir/no_config' && chmod +x '$dir/no_config'") == 0 or die;
foreach my $goal ('', 'install', 'uninstall')
{
	is(system("make -C '$dir/tree' PG_CONFIG='$dir/no_config' $goal >/dev/null 2>&1") >> 8, 2, "make $goal without PGXS");
}
is(files('tree'), $sources, 'nothing is made');

# Installed is no bitcode, and the index of that of earlier versions is removed.
chomp(my $bitcode = `pg_config --pkglibdir`);
$bitcode .= '/bitcode';
my @ours = ("$bitcode/nexusmem/src/core/map.bc", "$bitcode/nexusmem.index.bc");
my @others = ("$bitcode/nexusmem_other/map.bc", "$bitcode/nexusmem_other.index.bc");
touch("$dir/installed$_") foreach @ours, @others;
makes('tree', "install DESTDIR='$dir/installed'", 'installed');
my $installed = files('installed');
like($installed, qr/\/nexusmem\.so$/m, 'the library');
is(join(' ', sort grep { /bitcode/ } split(/\n/, $installed)), join(' ', map { ".$_" } sort @others, $ours[0]), 'bitcode is that of others, and what no index tells of');
touch("$dir/installed$_") foreach @ours;

# Outside: the same.
makes('tree', 'clean', 'cleaned');
makes('outside', '-f ../tree/Makefile', 'is built outside');
makes('outside', '-q -f ../tree/Makefile', 'and is up to date then');
makes('outside', "-f ../tree/Makefile install DESTDIR='$dir/from_outside'", 'installed from there');
touch("$dir/from_outside$_") foreach @others, $ours[0];
is(files('from_outside'), $installed, 'the same files');
is(files('tree'), $sources, 'nothing is left in the source tree');
makes('outside', '-f ../tree/Makefile clean', 'cleaned');
is(files('outside'), '', 'nor there');

makes('tree', "uninstall DESTDIR='$dir/installed'", 'uninstalled');
is(files('installed'), join('', map { ".$_\n" } sort @others), 'all but what is of others');

done_testing();

# NxmBuild: builds of a test's own, beside the library as it is installed.
package NxmBuild;

use strict;
use warnings;
use Exporter 'import';
use FindBin;
use PostgreSQL::Test::Utils;
use Test::More;

our @EXPORT = qw(may_build build script build_library library_script);

my $root = "$FindBin::RealBin/../..";

# Is there what it takes?
sub may_build
{
	return system("cc --version >/dev/null 2>&1") == 0 && -e (`pg_config --pgxs` =~ s/\n//r);
}

# build($to, $source, $options, [$keep]): a copy of a module's sources, made in the directory
# $to. Of the objects that are there those are kept of which $keep, a function of the name
# of their source, says so.
sub build
{
	my ($to, $source, $options, $keep) = @_;
	mkdir $to or die;
	# with their times, by which make judges objects
	system("cp -rp $source '$to'") == 0 or die;
	unlink glob("$to/*.so");
	foreach my $object (glob("$to/*.o $to/src/*.o $to/src/core/*.o"))
	{
		unlink $object unless $keep && $keep->($object =~ s/o$/c/r);
	}
	my $output = `make -j2 -C '$to' PG_CONFIG=pg_config with_llvm=no $options 2>&1`;
	is($?, 0, ($to =~ s{.*/}{}r) . ' is built') or BAIL_OUT($output);
	return;
}

# script($file, $library): an extension's script, as CREATE EXTENSION would run it.
sub script
{
	my ($file, $library) = @_;
	my $script = slurp_file($file);
	$script =~ s/^\\echo.*\n//m;
	$script =~ s/MODULE_PATHNAME/$library/g;
	return $script;
}

# build_library($to, $macro, [$names]): the same of nexusmem itself, with a macro defined.
# Only what names it, or $names, which it stands behind, is compiled, and not optimized,
# which takes twice the time. Its functions are found along dynamic_library_path.
sub build_library
{
	my ($to, $macro, $names) = @_;
	$names //= $macro =~ s/=.*//r;
	# a header that does more with it than to define it is included who knows where
	my $everywhere = grep { slurp_file($_) =~ s{/\*.*?\*/|^#\s*(?:ifn?def|define)\s+$names\b[^\n]*}{}gmsr =~ /\b$names\b/ } glob("$root/src/*.h $root/src/core/*.h");
	build($to, "'$root/Makefile' '$root/nexusmem.control' '$root/src' '$root/sql'", "COPT='-O0 -D$macro'",
		sub { return !$everywhere && slurp_file($_[0]) !~ /\b$names\b/ });
	return;
}

sub library_script
{
	# the first version, and what each later one changes
	my ($base, @updates) = sort { ($a =~ tr/-//) <=> ($b =~ tr/-//) || $a cmp $b } glob("$root/sql/nexusmem--*.sql");
	return 'CREATE SCHEMA nexusmem;' . join('', map { script($_, 'nexusmem') } $base, @updates);
}

1;

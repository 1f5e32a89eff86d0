# NxmDeny: runs the test that uses it without a system call.
#
#	use NxmDeny 'fadvise64';
#
# The server may not call posix_fadvise then: look-ahead cannot tell that a block is in
# the operating system's cache and asks for every block that is not in shared_buffers.
# Every run does the same, on a disk or not.
#
# A filter on system calls cannot be taken off again, and holds for what a process
# starts: the test runs itself anew behind it, before PostgreSQL::Test takes over its
# output. So this has to be used before that is.
package NxmDeny;

use strict;
use warnings;
use Cwd qw(abs_path);
use File::Path qw(remove_tree);
use File::Temp qw(tempdir);
use FindBin;
use Test::More;

sub import
{
	my (undef, $call) = @_;
	if (my $behind = delete $ENV{NXM_BEHIND})
	{
		remove_tree($behind);
		return;
	}
	my $dir = tempdir();
	if (system("cc -O2 -o '$dir/deny' '$FindBin::RealBin/../numa/deny.c' 2>/dev/null && '$dir/deny' $call -- true") != 0)
	{
		remove_tree($dir);
		plan skip_all => 'no compiler, or no seccomp on this kernel';
	}
	$ENV{NXM_BEHIND} = $dir;
	exec("$dir/deny", $call, '--', $^X, (map { "-I$_" } @INC), abs_path($0)) or die "exec: $!";
}

1;

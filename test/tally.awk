# tally.awk: turns the output of pg_regress (15's, and TAP since 16),
# pg_isolation_regress, prove -v, cmocka and make into one line a test:
#
#	ok - PREFIX: name
#	not ok - PREFIX: name
#	ok - PREFIX: name # SKIP reason
#
# What a script took, by prove --timer, or a program, by test/unit/Makefile, is told in a
# note when it is 5 seconds or more:
#
#	## 40 s PREFIX: script
#
# So is what Test::More says of a failed test, as "## | ...".
#
# Also a failure: a program that stops without a failed test to show for it,
# and output without any test. Only test points on the left margin count, not
# those of subtests.

function out(state, name, skip) {
	n++
	if (state == "not ok") {
		bad_script++
		bad_suite++
	}
	sub(/:? *$/, "", name)
	if (name == "")
		name = "a test"
	printf "%s - %s: %s%s\n", state, prefix, name, skip == "" ? "" : " # SKIP " skip
}

function took(name, seconds) {
	if (seconds >= 5)
		printf "## %d s %s: %s\n", seconds, prefix, name
}

function abrupt(why) {
	if (script != "" && !bad_script)
		out("not ok", script ": " why)
}

{ sub(/\r$/, ""); sub(/^\[[0-9][0-9]:[0-9][0-9]:[0-9][0-9]\] /, "") }

# a suite of make installcheck begins
/^(# )?\+\+\+ / { script = ""; bad_script = 0; bad_suite = 0; next }

# prove -v begins a script
/^[^ ]+\.(pl|t) \.\.+ */ {
	script = $1
	sub(/.*\//, "", script)
	sub(/\.(pl|t)$/, "", script)
	bad_script = 0
	if ($3 == "skipped:") {
		sub(/^.* skipped: */, "")
		out("ok", script, $0)
	}
	next
}

# pg_regress up to 15
/^(test|    ) [^ ]+ +\.\.\. / {
	name = $1 == "test" ? $2 : $1
	state = $0
	sub(/^.* \.\.\. /, "", state)
	if (state ~ /^ok/)
		out("ok", name)
	else if (state ~ /^failed \(ignored\)/)
		out("ok", name, "failure ignored by the schedule")
	else
		out("not ok", name)
	next
}

# prove -v --timer ends a script
script != "" && /^ok +[0-9]+ ms( |$)/ {
	took(script, $2 / 1000)
	next
}
/^# [^ ]+ took [0-9]+ s$/ { took($2, $4); next }

# TAP: a test, or a whole script skipped
/^(not )?ok( |$)/ {
	state = /^not/ ? "not ok" : "ok"
	name = $0
	sub(/^(not )?ok *[0-9]*( +[-+])? */, "", name)
	skip = ""
	if (match(name, / *# *(SKIP|skip|TODO|todo)/)) {
		skip = substr(name, RSTART + RLENGTH)
		name = substr(name, 1, RSTART - 1)
		sub(/^[^ ]* */, "", skip)
		if (skip == "")
			skip = "no reason given"
		state = "ok"
	}
	sub(/ +[0-9]+ ms$/, "", name)
	out(state, (script == "" ? "" : script ": ") name, skip)
	next
}
/^1\.\.0/ {
	skip = $0
	if (!sub(/^1\.\.0 *# *(SKIP|skip)[^ ]* */, "", skip))
		skip = "no test in it"
	out("ok", script == "" ? "all" : script, skip)
	next
}

# the end of a script that did not end well
/^Bail out!/ {
	sub(/make: .*/, "") # which writes on the same line
	out("not ok", (script == "" ? "" : script ": ") $0 " " before)
	next
}
/^Dubious, / || /^No subtests run/ { abrupt($0); next }
/^Failed [0-9]+\/[0-9]+ subtests/ { abrupt($0); next }

# make, make -i
/^make.*\] Error [0-9]+/ || /^make.*\*\*\* / {
	if (!bad_suite)
		out("not ok", $0)
	next
}

/^#   Failed test/ { told = 0 }
/^#   / && told++ < 12 { print "## | " substr($0, 5) }
/^# / { before = "(" substr($0, 3) ")" }

END {
	if (!n)
		out("not ok", "no test ran")
}

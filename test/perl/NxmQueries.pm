# NxmQueries: queries drawn at random over a fixed schema, and scripts for psql
# that run each of them twice, with look-ahead off and on.
#
# A query is drawn from its number and the seed alone: any one of them can be run
# again without the others. What it is run through (its way) is drawn too: alone,
# prepared and executed seven times, through cursors that turn back, from loops of
# PL/pgSQL, and so on.
#
# Both runs see the same snapshot and the same plan, so that they have to agree
# in everything: rows and their order, errors, notices, how far a sequence
# and random() went, row locks, predicate locks. Queries in parallel may
# return rows in any order: they are summed up and raise no errors.
#
# With most kinds of plan turned off one query in a hundred would scan a whole index for each
# row of a table, and these would take as long as all others. They are told by the planner's
# estimate before they are run; those kinds of plan are on again for them, in both runs.
#
# What tells that something was read ahead: functions that count their calls, errors
# at some row, and loops that are stopped before their end.
#
# Limits: what the two runs write stays within the table "target", which only
# writing statements use: to others a table keeps its size, and so its plans.
package NxmQueries;

use strict;
use warnings;
use Exporter 'import';

our @EXPORT = qw(schema_sql unclean_sql query_at long_sql script_of live_query churn_sql);

# One random number generator for each query.
my $state;

sub seed
{
	my ($seed, $number) = @_;
	$state = ($seed * 1000003 + $number * 7919 + 12345) % 2147483647 || 1;
	draw(2) for 1 .. 3;
	return;
}

# an integer from 0 to $n - 1 (Lehmer's generator, 31 bits)
sub draw
{
	my ($n) = @_;
	$state = $state * 48271 % 2147483647;
	return int($state / 2147483647 * $n);
}
sub between { my ($from, $to) = @_; return $from + draw($to - $from + 1); }
sub chance { my ($percent) = @_; return draw(100) < $percent; }
sub pick { return $_[ draw(scalar @_) ]; }

# weighted(name => weight, ...): one of the names
sub weighted
{
	my @list = @_;
	my $sum = 0;
	for (my $i = 1; $i < @list; $i += 2) { $sum += $list[$i]; }
	my $at = draw($sum);
	while ($at >= $list[1])
	{
		$at -= $list[1];
		splice @list, 0, 2;
	}
	return $list[0];
}

# The tables. Keys of all of them lie in the same range, so that any two join.
my $KEYS = 12007;
my %rows_of = (
	big => 12000, mid => 4000, small => 200, part => 4000, part2 => 3000, parth => 3000,
	dead => 4000, hsh => 4000, gis => 4000, spg => 4000, target => 3000, live1 => 3000, live2 => 3000);
my %factor = (
	big => 7919, mid => 6007, small => 59, part => 5077, part2 => 3571, parth => 2711,
	dead => 4421, hsh => 6211, gis => 9311, spg => 8087, target => 1543, live1 => 4657, live2 => 5273);
my @tables = qw(big mid small part part2 parth dead hsh gis spg);
my @btree_tables = qw(big big mid mid small part part2 parth dead);

sub schema_sql
{
	my $sql = "CREATE EXTENSION nexusmem;\nCREATE SEQUENCE sq;\n";
	my $columns = 'id int NOT NULL, k int, b bigint, n numeric, s text COLLATE "C", d date, g int, v int, z int, t text, p point, r int4range, doc text, pad text';
	foreach my $t (sort keys %rows_of)
	{
		my $f = $factor{$t};
		if ($t =~ /^part/)
		{
			my $by = $t eq 'parth' ? 'HASH (k)' : 'RANGE (id)';
			$sql .= "CREATE TABLE $t ($columns) PARTITION BY $by;\n";
			foreach my $i (0 .. 3)
			{
				my $bound = $t eq 'parth' ? "WITH (MODULUS 4, REMAINDER $i)"
				  : $i == 3 ? 'DEFAULT'
				  : 'FROM (' . $i * 1000 . ') TO (' . ($i + 1) * 1000 . ')';
				$sql .= "CREATE TABLE ${t}_$i PARTITION OF $t " . ($bound eq 'DEFAULT' ? $bound : "FOR VALUES $bound") . ";\n";
			}
		}
		else
		{
			$sql .= "CREATE TABLE $t ($columns);\n";
		}
		$sql .= "ALTER TABLE $t ALTER doc SET STORAGE EXTERNAL;\n";
		# rows of a group (g) are spread over the table
		my $groups = $rows_of{$t} / 20;
		$sql .= <<"SQL";
INSERT INTO $t SELECT i, i::bigint * $f % $KEYS, i::bigint * ($f + 2) % $KEYS, (i::bigint * ($f + 6) % $KEYS)::numeric,
	's' || lpad((i::bigint * ($f + 12) % $KEYS)::text, 5, '0'), date '2000-01-01' + (i::bigint * ($f + 18) % 3001)::int,
	i % $groups, CASE WHEN i % 9 <> 0 THEN i::bigint * ($f + 26) % $KEYS END, i * 7 % 97,
	CASE WHEN i % 389 = 5 THEN 'bad' ELSE (i::bigint * ($f + 30) % $KEYS)::text END,
	point(i::bigint * $f % 1009, i::bigint * ($f + 4) % 997), int4range((i::bigint * $f % $KEYS)::int, (i::bigint * $f % $KEYS)::int + i % 7 + 1),
	CASE WHEN i % 40 = 0 THEN (SELECT string_agg(md5((i * 100 + j)::text), '') FROM generate_series(1, 100) j) END,
	repeat(chr(97 + i % 26), 250)
FROM generate_series(1, $rows_of{$t}) i;
ALTER TABLE $t ADD PRIMARY KEY (id@{[$t eq 'parth' ? ', k' : '']});
SQL
		if ($t eq 'hsh')
		{
			$sql .= "CREATE INDEX ON $t USING hash ($_);\n" foreach qw(k b s g);
		}
		elsif ($t eq 'gis')
		{
			$sql .= "CREATE INDEX ON $t USING gist ($_);\n" foreach qw(p r);
		}
		elsif ($t eq 'spg')
		{
			$sql .= "CREATE INDEX ON $t USING spgist ($_);\n" foreach qw(p s r);
		}
		else
		{
			$sql .= "CREATE INDEX ON $t ($_);\n"
			  foreach 'k', 'b', 'n', 's', 'd DESC, k', 'g, id', 'v DESC NULLS LAST', '(k / 2)';
			$sql .= "CREATE INDEX ON $t (b) WHERE z <> 0;\nCREATE INDEX ON $t (k, v) INCLUDE (g);\n";
		}
	}
	$sql .= 'VACUUM (FREEZE, ANALYZE) ' . join(', ', sort keys %rows_of) . ";\n";
	$sql .= <<'SQL';
-- the buffers are full of something else
CREATE TABLE filler AS SELECT i, repeat('f', 900) AS pad FROM generate_series(1, 1500) i;
CREATE INDEX ON filler (i);
ANALYZE filler;
CREATE FUNCTION flush_buffers() RETURNS void LANGUAGE plpgsql
	SET enable_seqscan = off SET enable_bitmapscan = off SET nexusmem.enable_prefetch = off AS
$$ BEGIN PERFORM count(pad) FROM filler WHERE i > 0; END $$;
-- is a query estimated to cost so much? Each node that is turned off adds 1e10 before PostgreSQL 18
CREATE FUNCTION is_long(query text) RETURNS boolean LANGUAGE plpgsql AS
$$ DECLARE line text; cost float8; BEGIN
	EXECUTE 'EXPLAIN ' || query INTO line;
	cost := substring(line FROM 'cost=[0-9.]+\.\.([0-9.]+)');
	RETURN cost - floor(cost / 1e10) * 1e10 > 100000;
EXCEPTION WHEN OTHERS THEN RETURN false; END $$;
-- what tells when it was called
CREATE FUNCTION told(int) RETURNS int LANGUAGE plpgsql VOLATILE AS
$$ BEGIN RAISE NOTICE 'told %', $1; RETURN $1; END $$;
CREATE FUNCTION plain_plus(int, int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS
$$ BEGIN RETURN $1 + $2; END $$;
-- lazy and eager functions that return sets
CREATE FUNCTION of_group(int) RETURNS SETOF int LANGUAGE sql STABLE AS
$$ SELECT a.id FROM mid a JOIN big b ON b.k = a.k WHERE a.g = $1 ORDER BY a.id $$;
CREATE FUNCTION of_key(bigint) RETURNS TABLE (x int, y text) LANGUAGE plpgsql STABLE AS
$$ BEGIN RETURN QUERY SELECT a.id, b.s FROM mid a JOIN part b ON b.k = a.b WHERE a.k BETWEEN $1 AND $1 + 20; END $$;
CREATE FUNCTION of_loop(int) RETURNS int LANGUAGE plpgsql STABLE AS
$$ DECLARE q record; sum int := 0; BEGIN
	FOR q IN SELECT a.id, b.g FROM mid a JOIN big b ON b.k = a.b WHERE a.g = $1 ORDER BY a.id LOOP
		sum := sum + q.g;
		EXIT WHEN sum > 1000;
	END LOOP;
	RETURN sum; END $$;
SQL
	return $sql;
}

# unclean_sql(): some pages are not all-visible any more, and one table has dead rows
# in it. They stay as long as somebody holds a snapshot from before: without one,
# PostgreSQL 19 marks pages when it reads them, and predicate locks differ.
sub unclean_sql
{
	return join('', map { "UPDATE $_ SET pad = upper(pad) WHERE id % 83 = 0;\n" } qw(big mid part))
	  . "DELETE FROM dead WHERE id % 2 = 0;\nUPDATE dead SET v = v + 1, pad = upper(pad) WHERE id % 3 = 0;\nCHECKPOINT;\n";
}

# Columns to return of a table.
sub output
{
	my ($a) = @_;
	return "$a.k" if chance(12);			# index-only scans
	my @from = qw(id k b n s d g v z);
	my @out = map { "$a." . pick(@from) } 1 .. between(1, 3);
	unshift @out, "$a.id" if chance(60);
	push @out, "left($a.pad, 2)" if chance(40);
	push @out, "md5($a.doc)" if chance(15);
	return @out;
}

# Which rows of a table to begin with, about $width of them.
sub range_of
{
	my ($a, $t, $width) = @_;
	my $n = $rows_of{$t};
	my $id = between(1, $n);
	my $keys = int($width * $KEYS / $n) || 1;
	my $k = between(0, $KEYS);
	my @kinds = ('id');
	push @kinds, 'k', 'k', 'b', 'n', 's', 'd', 'g', 'v', 'half', 'partial', 'any', 'any_g', 'or' if $t !~ /hsh|gis|spg/;
	push @kinds, 'eq_k', 'eq_s' if $t eq 'hsh';
	push @kinds, 'box', 'overlaps', 'box', 'knn' if $t eq 'gis' || $t eq 'spg';
	push @kinds, 'prefix' if $t eq 'spg';
	my $kind = pick(@kinds);
	return "$a.id BETWEEN $id AND " . ($id + $width) if $kind eq 'id';
	return "$a.$kind BETWEEN $k AND " . ($k + $keys) if $kind =~ /^[kbnv]$/;
	return sprintf("$a.s BETWEEN 's%05d' AND 's%05d'", $k, $k + $keys) if $kind eq 's';
	return "$a.d BETWEEN date '2000-01-01' + $_ AND date '2000-01-01' + " . ($_ + int($width * 3000 / $n)) foreach $kind eq 'd' ? draw(3000) : ();
	return "$a.g BETWEEN $_ AND " . ($_ + int($width / 20)) foreach $kind eq 'g' ? draw($n / 20) : ();
	return "$a.k / 2 BETWEEN " . int($k / 2) . ' AND ' . int(($k + $keys) / 2) if $kind eq 'half';
	return "$a.b BETWEEN $k AND " . ($k + $keys) . " AND $a.z <> 0" if $kind eq 'partial';
	return "$a.k = ANY ('{" . join(',', map { chance(5) ? 'NULL' : draw($KEYS) } 1 .. ($width > 300 ? 300 : $width)) . "}')" if $kind eq 'any';
	return "$a.g = ANY ('{" . join(',', map { draw($n / 20) } 0 .. int($width / 20)) . "}') AND $a.id > " . draw($n / 2) if $kind eq 'any_g';
	return "($a.k BETWEEN $k AND " . ($k + int($keys / 2)) . " OR $a.id BETWEEN $id AND " . ($id + int($width / 2)) . ')' if $kind eq 'or';
	return "$a.k = $k" if $kind eq 'eq_k';
	return sprintf("$a.s = 's%05d'", $k) if $kind eq 'eq_s';
	return sprintf("$a.s ^@ 's%02d'", draw(12)) if $kind eq 'prefix';
	my $side = int(sqrt($width * 1000000 / $n)) + 1;
	return sprintf("$a.p <@ box(point(%d,%d),point(%d,%d))", map { ($_, $_, $_ + $side, $_ + $side) } draw(900)) if $kind eq 'box';
	return "$a.r && int4range($k, " . ($k + $keys) . ')' if $kind eq 'overlaps';
	return "$a.id IN (SELECT q.id FROM $t q ORDER BY q.p <-> point(" . draw(1000) . ',' . draw(1000) . ") LIMIT $width)";
}

# How the rows of $b are found by those of $a: a condition, and how many rows of $b
# it finds for one.
sub join_on
{
	my ($a, $b, $t) = @_;
	my @by = ([ "$b.id = $a.id", 1 ], [ "$b.id = $a.k", 1 ], [ "$b.id = $a.b", 1 ]);
	push @by, map { [ $_, 1 ] } "$b.k = $a.k", "$b.k = $a.b", "$b.b = $a.k", "$b.s = $a.s" if $t !~ /gis|spg/;
	push @by, map { [ $_, 1 ] } "$b.k = $a.k", "$b.k = $a.b", "$b.k = $a.v", "$b.b = $a.b", "$b.n = $a.n", "$b.n = $a.b",
	  "$b.d = $a.d AND $b.k = $a.k", "$b.d = $a.d::timestamp AND $b.k > $a.k", "$b.v = $a.k", "$b.k / 2 = $a.k / 2", "$b.k = $a.k + 1",
	  "$b.k = plain_plus($a.k, 2)", "$b.k = abs($a.v)", "$b.g = $a.g % 10 AND $b.id = $a.id", "$b.b = $a.b AND $b.z <> 0",
	  "$b.k = $a.k AND $b.v = $a.v", "$b.k = 1000 / nullif($a.z, 0)", "$b.k = coalesce($a.v, $a.k)"
	  if $t !~ /hsh|gis|spg/;
	push @by, map { [ $_, 4 ] } "$b.k BETWEEN $a.k AND $a.k + 4", "$b.k = ANY (ARRAY[$a.k, $a.v, $a.id])", "$b.d = $a.d",
	  "$b.k > $a.k AND $b.k < $a.k + 5", "$b.b = ANY (ARRAY[$a.b, $a.b + 1, NULL])"
	  if $t !~ /hsh|gis|spg/;
	push @by, [ "$b.g = $a.g", 20 ], [ "$b.g = $a.g AND $b.id > $a.id", 10 ] if $t !~ /gis|spg/;
	push @by, map { [ $_, 8 ] } "$b.r @> $a.k", "$b.p <@ box($a.p, point($a.p[0] + 20, $a.p[1] + 20))", "$b.r && $a.r" if $t =~ /gis|spg/;
	push @by, [ "$b.s = $a.s", 1 ] if $t eq 'spg';
	# an error in a key, at some row
	push @by, [ "$b.k = $a.t::int", 1 ], [ "$b.k = 1000 / $a.z", 1 ] if $t !~ /hsh|gis|spg/ && chance(30);
	return @{ pick(@by) };
}

# A condition that raises an error at some row.
sub failing
{
	my ($a) = @_;
	return pick("1000 / $a.z > -1", "$a.t::int >= 0", "sqrt($a.v - " . draw(300) . ') >= 0', map { "10 / ($a.id % $_) IS NOT NULL" } 8, 30, 100, 300);
}

sub filter
{
	my ($a) = @_;
	return pick("$a.z > " . draw(60), "$a.v IS NOT NULL", "$a.id % " . between(2, 9) . ' <> 0', "$a.pad > 'c'", "$a.s LIKE '%3%'", "$a.g < " . draw(200));
}

# A join of two tables that is run for each row of $a, as x and y: its FROM and
# WHERE. Often $a tells which rows of y are wanted and not which of x: the join's outer
# side is then run again as it is, and read ahead even if the join may be stopped
# before its end.
sub inner_join
{
	my ($a, $safe) = @_;
	my $t = pick(@btree_tables);
	my $u = pick(@btree_tables);
	my ($on) = join_on('x', 'y', $u);
	$on = pick('y.k = x.k', 'y.b = x.k', 'y.k = x.b', 'y.id = x.k') if chance(50) || $safe && $on =~ m{::int|1000 / x\.z};
	my $g = $rows_of{$t} / 20;
	my $id = draw($rows_of{$t});
	my $which = weighted("x.g = $a.g" => 3, "x.g = $a.g AND x.id > $a.id" => 1, "x.g = $a.g % $g" => 1, "x.k BETWEEN $a.k AND $a.k + 40" => 1,
		"x.g IN ($a.g, $a.z)" => 1, 'x.id BETWEEN ' . $id . ' AND ' . ($id + between(5, 40)) . ' AND ' . pick("y.z > $a.z", "y.z <> $a.z", "y.v > $a.v", "y.k > $a.k", "y.g <> $a.g") => 8);
	my $filter = chance(25) ? ' AND ' . filter(pick('x', 'y')) : '';
	return "FROM $t x " . weighted(JOIN => 3, 'LEFT JOIN' => 1) . " $u y ON $on WHERE $which$filter";
}

# A subquery that is run for each row of $a.
sub correlated
{
	my ($a, $safe) = @_;
	my $t = pick(@btree_tables);
	my $join = inner_join($a, $safe);
	my $n = between(1, 8);
	return weighted(
		"(SELECT max(x.n) FROM $t x WHERE x.k = $a.b)" => 1,
		"(SELECT x.s FROM $t x WHERE x.k >= $a.k ORDER BY x.k, x.id LIMIT 1)" => 1,
		"(SELECT count(*) $join)" => 2,
		"(SELECT y.id $join ORDER BY x.g, x.id, y.id OFFSET $n LIMIT 1)" => 2,
		"(SELECT y.s $join OFFSET $n LIMIT 1)" => 3,
		"ARRAY(SELECT y.id $join ORDER BY x.g, x.id LIMIT $n)" => 2,
		"ARRAY(SELECT y.id $join LIMIT $n)" => 3,
		"EXISTS (SELECT $join AND y.z > 60)" => 2,
		"($a.z IN (SELECT y.z $join))" => 2,
		"(SELECT string_agg(w.id::text, ',') FROM (SELECT w.id FROM gis w ORDER BY w.p <-> $a.p LIMIT 3) w)" => 1);
}

# A lateral subquery or function over $a: its FROM item, named $l, with one column x.
sub lateral
{
	my ($a, $l, $safe) = @_;
	my $t = pick(@btree_tables);
	my $u = pick(@btree_tables);
	my $join = inner_join($a, $safe);
	my $n = between(1, 8);
	return weighted(
		"generate_series($a.g % 3, $a.g % 5) $l (x)" => 1,
		"unnest(ARRAY[$a.k, $a.v, NULL]) $l (x)" => 1,
		"of_group($a.g % 150) $l (x)" => 1,
		"(SELECT x FROM of_key($a.b)) $l" => 1,
		"(SELECT of_loop($a.g % 150) AS x) $l" => 1,
		"(SELECT y.id AS x $join ORDER BY x.g, x.id LIMIT $n) $l" => 3,
		"(SELECT y.id AS x $join LIMIT $n) $l" => 4,
		"(SELECT x.id AS x $join OFFSET 1) $l" => 1,
		"(SELECT x.id AS x $join) $l" => 2,
		"(SELECT DISTINCT y.g AS x $join) $l" => 1,
		"(SELECT x.id AS x FROM $t x WHERE x.k > $a.k ORDER BY x.k LIMIT $n) $l" => 1,
		"(SELECT count(*) AS x FROM $t x WHERE x.k = $a.k OR x.b = $a.k GROUP BY x.g) $l" => 1,
		"(SELECT x.id AS x FROM spg x ORDER BY x.p <-> $a.p LIMIT 2) $l" => 1,
		"(SELECT x.id AS x FROM $t x WHERE x.k = $a.k UNION ALL SELECT y.id FROM $u y WHERE y.b = $a.k) $l" => 1);
}

# A loop that is long enough to be read ahead of, over an outer side where that could be
# seen: it fails at some row, or calls what tells how far it has come.
sub risky_text
{
	my ($t, $u) = (pick(qw(big mid big dead part)), pick(qw(big mid part parth big)));
	my $width = between(60, 400);
	my $id = between(1, $rows_of{$t} - $width);
	my $k = draw($KEYS - 2000);
	my $range = pick("a.id BETWEEN $id AND " . ($id + $width), "a.k BETWEEN $k AND " . ($k + int($width * $KEYS / $rows_of{$t})));
	my $on = pick('b.k = a.k', 'b.k = a.b', 'b.b = a.k', 'b.id = a.b', 'b.g = a.g', 'b.k BETWEEN a.k AND a.k + 5', 'b.s = a.s');
	my $risk = weighted(
		'10 / (a.id % ' . pick(20, 50, 100) . ') IS NOT NULL' => 4,
		"a.t::int >= 0" => 1,
		"nextval('sq') + a.id > 0" => 3,
		'told(a.z) >= 0' => 2,
		'random() + a.z / 1000.0 > 0.1' => 1,
		'a.pad IS NOT NULL' => 2);
	my $shown = weighted("nextval('sq')" => 3, 'told(b.id)' => 2, '10 / (a.id % ' . pick(30, 70) . ')' => 2, 'b.g' => 4);
	# two that tell: in which order they were called
	$shown = $risk =~ /told/ ? 'told(b.id)' : "nextval('sq')" if $risk =~ /told|nextval|random/ && chance(70);
	my $end = weighted('' => 3, ' ORDER BY ' . ($range =~ /a\.id/ ? 'a.id' : 'a.k') => 2) . weighted('' => 3, ' LIMIT ' . between(2, 60) => 3);
	return "SELECT a.id AS c1, b.id AS c2, $shown AS c3 FROM $t a JOIN $u b ON $on WHERE $range AND $risk$end";
}

# what select_text() has drawn for the query at hand
my @drawn;

# select_text(%options): a query. sum: one of which the order is of no account and which
# raises no errors; total: rows in an order that leaves no ties, and no errors; lock:
# its rows are locked; dml: not a text, but the parts of a writing statement; simple:
# nothing around it; many: it is run many times; risky: so often, in percent, a
# risky_text(); from: the tables to draw from.
sub select_text
{
	my $text = draw_text(@_);
	push @drawn, $text if !ref $text;
	return $text;
}

sub draw_text
{
	my %o = @_;
	return risky_text() if !$o{sum} && !$o{total} && !$o{lock} && !$o{dml} && chance($o{risky} // 15);
	my $safe = $o{sum} || $o{total};
	my $bare = $safe || $o{lock};
	my @from = $o{from} ? @{ $o{from} } : (@btree_tables, @tables);
	my $nrel = weighted(1 => 20, 2 => 45, 3 => 25, 4 => 10);
	my @alias = qw(a b c e)[ 0 .. $nrel - 1 ];
	my @table = map { pick(@from) } @alias;
	@table[0, 1] = @{ pick([ 'part', 'part2' ], [ 'part2', 'part' ]) } if !$o{from} && $nrel > 1 && chance(12);
	my $width = weighted(0 => 5, 8 => 15, 40 => 30, 150 => 35, 500 => 12, 1500 => 3);
	my (@on, @where, @out);
	my $rows = $width;
	# a few of them do much, the others not
	my $most = $o{many} ? 150 : chance(3) ? 3000 : 600;
	$width = $rows = $most if $width > $most;

	for my $i (1 .. $#alias)
	{
		my $outer = $alias[ chance(70) ? $i - 1 : draw($i) ];
		my ($on, $each) = join_on($outer, $alias[$i], $table[$i]);
		$on = "$alias[$i].id = $outer.id" if $i == 1 && $table[0] =~ /^part2?$/ && $table[1] =~ /^part2?$/ && chance(70);
		$on = "$alias[$i].id = $outer.id" if $safe && $on =~ m{::int|1000 / $outer\.z};
		# not too many rows in all
		($on, $each) = ("$alias[$i].id = $outer.id", 1) if $rows * $each > $most;
		$rows *= $each;
		push @on, $on;
	}
	my $sql = $table[0] . ' a';
	for my $i (1 .. $#alias)
	{
		my $kind = weighted(JOIN => 70, 'LEFT JOIN' => 30);
		$kind = 'JOIN' if $o{lock};
		$sql .= " $kind $table[$i] $alias[$i] ON $on[$i - 1]";
		$sql .= ' AND ' . filter($alias[$i]) if chance(20);
	}
	push @out, output($_) foreach @alias;
	push @where, range_of('a', $table[0], $width);
	push @where, filter(pick(@alias)) if chance(30);
	my $l = pick(@alias);
	if ($rows <= 200 && (!$bare && chance(30) || $o{sum} && chance(25)))
	{
		my $item = lateral($l, 'l', $safe);
		$sql .= chance(70) ? " CROSS JOIN LATERAL $item" : " LEFT JOIN LATERAL $item ON true";
		push @out, 'l.x';
	}
	push @out, correlated(pick(@alias), $safe) if $rows <= 200 && !$o{lock} && chance(30);
	if (chance(25))
	{
		my ($t, $a) = (pick(@btree_tables), pick(@alias));
		my ($on) = join_on($a, 'u', $t);
		$on = "u.k = $a.k" if $on =~ m{::int|1000 / $a\.z} || $on =~ /\.g = /;
		push @where, pick(
			"EXISTS (SELECT FROM $t u WHERE $on)", "NOT EXISTS (SELECT FROM $t u WHERE $on AND u.z > 40)",
			"$a.k IN (SELECT u.b FROM $t u WHERE u.z > 30)", "$a.id NOT IN (SELECT u.id FROM small u WHERE u.g > 3)",
			"EXISTS (SELECT FROM $t u JOIN small w ON w.g = u.g % 10 WHERE $on)");
	}
	if (!$safe)
	{
		push @where, failing(pick(@alias)) if chance(18);
		push @out, "1000 / $l.z" if chance(6);
		push @out, weighted("nextval('sq')" => 5, 'random()' => 2, "told($l.id)" => 4, "CASE WHEN $l.z > 50 THEN nextval('sq') END" => 3) if !$o{dml} && chance(16);
		# in the scan of one table, and so on a join's outer side
		push @where, weighted("nextval('sq') + $_.id > 0" => 4, "random() + $_.id / 1e9 < 0.9" => 3, "told($_.z) > 3" => 3) foreach grep { chance(8) } @alias;
		push @out, "generate_series(1, $l.z % 3)" if !$bare && !$o{dml} && chance(6);
	}
	return { out => \@out, from => $sql, where => \@where, alias => \@alias, table => \@table } if $o{dml};

	my $tail = '';
	my @keys = map { my $a = $_; map { "$a.$_" } qw(id k b s d n) } @alias;
	if ($o{total})
	{
		$tail .= ' ORDER BY ' . (chance(50) ? 'a.' . pick(qw(k b s d n)) . pick('', ' DESC') . ', ' : '') . join(', ', map { "$_.id" } @alias);
	}
	elsif (!$o{sum} && chance(50))
	{
		$tail .= ' ORDER BY ' . join(', ', map { pick(@keys) . pick('', '', ' DESC') } 1 .. between(1, 2));
	}
	$tail .= ' ORDER BY a.p <-> point(' . draw(1000) . ',' . draw(1000) . ')' if $tail eq '' && !$o{sum} && $table[0] =~ /gis|spg/ && chance(50);
	if (!$o{sum} && chance($o{lock} ? 30 : 45))
	{
		$tail .= ' LIMIT ' . weighted(1 => 2, between(2, 12) => 4, between(10, 100) => 3, '(SELECT 7)' => 1);
		$tail .= ' OFFSET ' . between(1, 30) if chance(20);
	}
	my $where = ' WHERE ' . join(' AND ', @where);
	if ($o{lock})
	{
		my $of = join(', ', grep { chance(60) } @alias) || 'a';
		$tail .= ' FOR ' . pick('UPDATE', 'NO KEY UPDATE', 'SHARE', 'KEY SHARE') . " OF $of" . pick('', '', ' NOWAIT', ' SKIP LOCKED');
		return 'SELECT ' . join(', ', map { chance(30) ? "$_.ctid" : "$_.id" } @alias) . ", 1 FROM $sql$where$tail";
	}
	my $n = 0;
	my $list = join(', ', map { $n++; "$_ AS c$n" } @out);
	my $text = "SELECT $list FROM $sql$where$tail";
	return "SELECT count(*), sum(hashtext(w::text)::bigint) FROM ($text) w" if $o{sum};
	return $text if $o{total} || $o{simple};
	return $text if chance(70);
	my $k = pick(@keys);
	return pick(
		"SELECT DISTINCT ON (c1) * FROM ($text) w",
		"SELECT c1, count(*) FROM ($text) w GROUP BY c1 LIMIT " . between(1, 60),
		"WITH w AS MATERIALIZED ($text) SELECT w.*, y.id FROM w LEFT JOIN mid y ON y.k = w.c1::text::numeric::int WHERE w.c1::text ~ '^[0-9]+\$' LIMIT 20",
		"SELECT *, row_number() OVER (ORDER BY c1) FROM ($text) w LIMIT " . between(1, 60),
		"(SELECT id::text, k FROM small WHERE id < 20) UNION ALL (SELECT c1::text, 1 FROM ($text) w) LIMIT " . between(20, 80),
		"SELECT md5(string_agg(w::text, ',')) FROM ($text) w",
		"SELECT ${k}::text FROM $sql$where UNION SELECT s FROM small WHERE id < 9",
		"SELECT * FROM ($text) w WHERE c1 IS NOT NULL LIMIT 3");
}

# Settings for both runs.
sub settings
{
	my ($way, $version) = @_;
	my @set;
	my %off = (hashjoin => 85, mergejoin => 80, seqscan => 75, bitmapscan => 75, memoize => 50, material => 50, sort => 20, incremental_sort => 30,
		hashagg => 20, indexonlyscan => 15, nestloop => 2);
	push @set, "enable_$_ = off" foreach grep { chance($off{$_}) } sort keys %off;
	push @set, "enable_partitionwise_$_ = on" foreach grep { chance(50) } qw(join aggregate);
	push @set, 'join_collapse_limit = 1' if chance(40);
	push @set, 'work_mem = 64' if chance(10);
	push @set, 'plan_cache_mode = ' . pick(qw(auto force_generic_plan force_custom_plan));
	push @set, 'cursor_tuple_fraction = 1' if chance(30);
	push @set, 'nexusmem.prefetch_distance = ' . pick(-1, 1, 2, 3, 5, 8, 16, 33, between(1, 64), 64);
	if ($way eq 'parallel')
	{
		push @set, 'max_parallel_workers_per_gather = 2', 'parallel_setup_cost = 0', 'parallel_tuple_cost = 0',
		  'min_parallel_table_scan_size = 0', 'min_parallel_index_scan_size = 0',
		  ($version >= 16 ? 'debug_parallel_query' : 'force_parallel_mode') . ' = ' . pick('off', 'on');
	}
	else
	{
		push @set, 'max_parallel_workers_per_gather = 0';
	}
	return @set;
}

my @ways = (
	alone => 28, prepared => 9, cursor => 20, hold => 5, loop => 10, 'loop in loop' => 5, 'two cursors' => 4, 'table as' => 2, copy => 2,
	'fetch count' => 3, 'in a function' => 4, 'row locks' => 8, 'writing' => 6, serializable => 3, parallel => 5, 'savepoints' => 3);

# query_at($seed, $number, $version): a query as a hash of number; way; settings; body,
# psql's lines of a run; texts, the queries in it; observe, what to look at after it, in
# its transaction; own, the isolation level of a run that has a transaction to itself;
# after, a command that takes away what the run has left in the session.
sub query_at
{
	my ($seed, $number, $version) = @_;
	seed($seed, $number);
	@drawn = ();
	my $way = weighted(@ways);
	my $q = { number => $number, way => $way, settings => [ settings($way, $version) ], observe => '' };
	my $body;

	if ($way eq 'prepared')
	{
		my $text = select_text(simple => 1, many => 1);
		my @values;
		# the first two numbers of at least two digits become parameters
		my $where = index($text, ' WHERE ');
		my ($head, $cond) = (substr($text, 0, $where), substr($text, $where));
		$cond =~ s/\b(BETWEEN|>|<|>=) (\d\d+)\b/push @values, $2; "$1 \$" . scalar(@values)/e for 1 .. 2;
		my $types = @values ? '(' . join(', ', map { 'int' } @values) . ')' : '';
		$body = "PREPARE pq $types AS $head$cond;\n";
		foreach my $i (0 .. 6)
		{
			my $args = @values ? '(' . join(', ', map { $_ + $i * 3 } @values) . ')' : '';
			$body .= "EXECUTE pq$args;\n";
		}
		$q->{after} = 'DEALLOCATE ALL';
	}
	elsif ($way eq 'cursor' || $way eq 'hold' || $way eq 'savepoints')
	{
		my $scroll = weighted('' => 4, 'SCROLL' => 4, 'NO SCROLL' => 3);
		my $lock = $way eq 'cursor' && $scroll ne 'SCROLL' && chance(8);
		$body = "DECLARE c $scroll CURSOR" . ($way eq 'hold' ? ' WITH HOLD' : '') . ' FOR ' . select_text(lock => $lock, risky => 30) . ";\n";
		if ($way eq 'hold')
		{
			$body .= "FETCH @{[between(1, 5)]} FROM c;\n" if chance(50);
			$body .= "COMMIT;\n";
			$q->{own} = 'REPEATABLE READ';
			$q->{after} = 'CLOSE ALL';
		}
		for my $i (1 .. between(2, 7))
		{
			my $n = between(1, 30);
			my @moves = ("FETCH $n FROM c", "FETCH $n FROM c", 'FETCH FROM c', "MOVE $n IN c", 'FETCH 0 FROM c');
			push @moves, "FETCH BACKWARD $n FROM c", "FETCH BACKWARD $n FROM c", 'FETCH PRIOR FROM c', "MOVE ABSOLUTE $n IN c", "FETCH ABSOLUTE $n FROM c", "FETCH RELATIVE -$n FROM c",
			  'FETCH LAST FROM c', 'FETCH FIRST FROM c', 'MOVE BACKWARD ALL IN c'
			  if $scroll eq 'SCROLL' || $way eq 'hold' && $scroll eq '';
			$body .= pick(@moves) . ";\n";
			if ($way eq 'savepoints')
			{
				$body .= pick("SAVEPOINT x$i;\n", "SAVEPOINT x$i; SELECT 1/0; ROLLBACK TO x$i;\n", "SAVEPOINT x$i; SELECT of_loop($n); RELEASE x$i;\n", "SELECT count(*) FROM of_group($n);\n");
			}
		}
		$body .= "FETCH ALL FROM c;\n" if chance(40);
		$body .= "CLOSE c;\n" if chance(50);
	}
	elsif ($way eq 'two cursors')
	{
		my @text = (select_text(simple => 1), select_text(simple => 1));
		$text[1] = $text[0] if chance(50);
		$body = "DECLARE c CURSOR FOR $text[0];\nDECLARE d CURSOR FOR $text[1];\n";
		$body .= 'FETCH ' . between(1, 20) . ' FROM ' . pick('c', 'd') . ";\n" for 1 .. between(3, 8);
		$body .= "CLOSE c;\nFETCH ALL FROM d;\n" if chance(50);
	}
	elsif ($way eq 'loop')
	{
		my $stop = weighted(1 => 1, between(2, 20) => 3, between(20, 100) => 2, 100000 => 2);
		my $within = pick('', '', "PERFORM of_loop(n % 150);", "PERFORM nextval('sq');", 'BEGIN PERFORM 1 / (n % 7 - 3); EXCEPTION WHEN division_by_zero THEN NULL; END;');
		my $text = select_text(risky => 40);
		$body = "DO \$x\$ DECLARE q record; n int := 0; BEGIN\nFOR q IN $text LOOP\nn := n + 1; RAISE NOTICE '%', q; $within EXIT WHEN n >= $stop;\nEND LOOP;\n"
		  . (chance(40) ? "EXCEPTION WHEN OTHERS THEN RAISE NOTICE 'error % % after %', sqlstate, sqlerrm, n;\n" : '') . "END \$x\$;\n";
	}
	elsif ($way eq 'loop in loop')
	{
		my ($t, $u, $v) = map { pick(@btree_tables) } 1 .. 3;
		my ($on) = join_on('x', 'y', $u);
		my ($from, $stop, $stop2) = (draw(3000), between(2, 40), between(1, 10));
		$body = "DO \$x\$ DECLARE q record; w record; n int := 0; m int; BEGIN\n"
		  . "FOR q IN SELECT x.id, y.k FROM $t x JOIN $u y ON $on WHERE x.id > $from ORDER BY x.id LOOP\n"
		  . "n := n + 1; EXIT WHEN n > $stop; m := 0;\n"
		  . "FOR w IN SELECT x.id, y.id AS y, q.id AS q FROM $v x JOIN $u y ON y.k = x.b WHERE x.k BETWEEN q.k AND q.k + 40 LOOP\n"
		  . "m := m + 1; EXIT WHEN m > $stop2; RAISE NOTICE '%', w;\nEND LOOP;\nEND LOOP;\nRAISE NOTICE 'ended %', n;\nEND \$x\$;\n";
	}
	elsif ($way eq 'in a function')
	{
		my $text = select_text(simple => 1);
		my $limit = pick('', ' LIMIT ' . between(1, 30));
		$body = "CREATE FUNCTION pg_temp.f() RETURNS SETOF text LANGUAGE sql VOLATILE AS \$x\$ SELECT w::text FROM ($text) w \$x\$;\n"
		  . pick("SELECT pg_temp.f()$limit;\n", "SELECT * FROM pg_temp.f()$limit;\n", "SELECT i, pg_temp.f() FROM generate_series(1, 2) i$limit;\n");
	}
	elsif ($way eq 'table as')
	{
		$body = 'CREATE TEMP TABLE made AS ' . select_text(simple => 1) . ";\nSELECT * FROM made;\n";
	}
	elsif ($way eq 'copy')
	{
		$body = 'COPY (' . select_text() . ") TO STDOUT;\n";
	}
	elsif ($way eq 'fetch count')
	{
		$body = '\set FETCH_COUNT ' . between(1, 20) . "\n" . select_text() . ";\n" . '\unset FETCH_COUNT' . "\n";
	}
	elsif ($way eq 'row locks')
	{
		$body = select_text(lock => 1) . ";\n";
		# subtransactions in between: the next locks make multixacts
		$body .= 'SAVEPOINT l; ' . select_text(lock => 1) . ";\n" if chance(30);
		foreach my $t (grep { $body =~ /\b$_\b/ } @tables)
		{
			$q->{observe} .= "SELECT '$_', locked_row, modes FROM pgrowlocks('$_') ORDER BY locked_row;\n"
			  foreach $t =~ /^part/ ? map { "${t}_$_" } 0 .. 3 : $t;
		}
	}
	elsif ($way eq 'writing')
	{
		my $s = select_text(dml => 1);
		my $where = join(' AND ', @{ $s->{where} });
		my $from = $s->{from};
		my $a = pick(@{ $s->{alias} });
		my ($on) = join_on($a, 'tg', 'target');
		my $kind = weighted(update => 3, delete => 3, insert => 2, merge => 2, with => 2);
		$body = "UPDATE target tg SET v = coalesce(tg.v, 0) + 1, pad = upper(tg.pad) FROM $from WHERE $on AND $where RETURNING tg.id, tg.v, $a.id;\n" if $kind eq 'update';
		$body = "DELETE FROM target tg USING $from WHERE $on AND $where RETURNING tg.id, $a.k;\n" if $kind eq 'delete';
		$body = "INSERT INTO target (id, k, v) SELECT 100000 + row_number() OVER (), $a.k, nextval('sq') FROM $from WHERE $where RETURNING id, k, v;\n" if $kind eq 'insert';
		$body = "MERGE INTO target tg USING (SELECT $a.id, $a.k FROM $from WHERE $where) w ON tg.id = w.id WHEN MATCHED AND tg.z > 40 THEN DELETE WHEN MATCHED THEN UPDATE SET v = w.k WHEN NOT MATCHED THEN INSERT (id, k) VALUES (w.id, w.k);\n" if $kind eq 'merge';
		$body = "WITH w AS (DELETE FROM target tg WHERE tg.k % 40 = " . draw(40) . " RETURNING tg.id, tg.k) SELECT w.*, y.id FROM w JOIN mid y ON y.k = w.k JOIN big z ON z.k = y.b;\n" if $kind eq 'with';
		$q->{observe} = "SELECT count(*), sum(hashtext(tg::text)::bigint) FROM target tg;\n";
	}
	elsif ($way eq 'serializable')
	{
		$body = chance(50) ? select_text(simple => 1) . ";\n"
		  : 'DECLARE c CURSOR FOR ' . select_text(risky => 60) . ";\nFETCH @{[between(2, 40)]} FROM c;\n";
		$q->{own} = 'SERIALIZABLE';
		$q->{observe} = "SELECT locktype, relation::regclass, page, tuple FROM pg_locks WHERE mode = 'SIReadLock' AND pid = pg_backend_pid() ORDER BY 1, 2, 3, 4;\n";
	}
	elsif ($way eq 'parallel')
	{
		$body = select_text(sum => 1) . ";\n";
	}
	else
	{
		$body = select_text() . ";\n";
	}
	$q->{body} = $body;
	$q->{texts} = [ @drawn ];
	return $q;
}

# churn_sql(): a pgbench script that writes to the tables of live_query(), and
# sometimes vacuums one of them.
sub churn_sql
{
	return <<'SQL';
\set i random(1, 3000)
\set t random(1, 2)
UPDATE live:t SET v = v + 1, pad = upper(pad) WHERE id BETWEEN :i AND :i + 20;
UPDATE live:t SET k = b, b = k WHERE id BETWEEN :i + 30 AND :i + 40;
BEGIN;
CREATE TEMP TABLE moved ON COMMIT DROP AS SELECT * FROM live:t WHERE id BETWEEN :i + 50 AND :i + 60;
DELETE FROM live:t WHERE id BETWEEN :i + 50 AND :i + 60;
INSERT INTO live:t SELECT * FROM moved;
COMMIT;
\set r random(1, 20)
\if :r = 1
VACUUM live:t;
\endif
SQL
}

# live_query($seed, $number, $version): a query over tables that others write to.
sub live_query
{
	my ($seed, $number, $version) = @_;
	seed($seed, -$number - 1);
	my @settings = settings('', $version);
	my $text = select_text(total => 1, from => [ qw(live1 live2 big) ]);
	return { number => $number, way => 'others write', observe => '', settings => \@settings, body => "$text;\n", texts => [ $text ] };
}

# long_sql($query): psql's lines that set its variable "long", by which its runs decide.
sub long_sql
{
	my ($q) = @_;
	return "\\set long false\n" if !@{ $q->{texts} };
	return join('', "BEGIN;\n", (map { "SET LOCAL $_;\n" } @{ $q->{settings} }),
		'SELECT ' . join(' OR ', map { "is_long(\$q\$$_\$q\$)" } @{ $q->{texts} }) . " AS long \\gset\n", "ROLLBACK;\n");
}

# script_of($query, $run, \@on): psql's lines for one run of it, "off" or "on". Its
# results stand between lines that start with "%%", on both outputs.
sub script_of
{
	my ($q, $run, $on) = @_;
	my $own = $q->{own};
	my $mark = "$q->{number} $run";
	my $s = "SELECT flush_buffers(), setval('sq', 1, false), nextval('sq'), setval('sq', 1, false), setseed(0.25) \\g /dev/null\n";
	$s .= $own ? "BEGIN ISOLATION LEVEL $own;\n" : "SAVEPOINT q;\n";
	$s .= join('', map { "SET LOCAL $_;\n" } @{ $q->{settings} }, map { "$_ = $run" } @$on);
	$s .= "\\if :long\n" . join('', map { "SET LOCAL enable_$_ = on;\n" } qw(bitmapscan hashjoin incremental_sort material memoize mergejoin seqscan sort)) . "\\endif\n";
	$s .= "\\echo %% $mark\n\\warn %% $mark\n$q->{body}";
	$s .= $q->{observe};
	# the settings hold until here
	$s .= $own ? "COMMIT;\n" : "ROLLBACK TO q;\n";
	$s .= "SELECT 'sequence', last_value, is_called, currval('sq') FROM sq;\nSELECT 'random', random();\n";
	$s .= "\\echo %%\n\\warn %%\n";
	$s .= "$q->{after} \\g /dev/null\n" if $q->{after};
	return $s;
}

1;

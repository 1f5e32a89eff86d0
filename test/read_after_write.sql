-- For a test that a read of a cache which begins after a write has returned never
-- finds an older value, while one session writes and others read. Which sessions, on
-- which nodes, says the test: write_until(n) in one, read_while_written(times) in n.
--
-- The writer tells the number of its last write that has returned, in a counter. A
-- reader looks at that first, and then for the key of that write. Eight keys, so that
-- several partitions have some. Nobody counts on a pace: readers are done after having
-- seen so many numbers, the writer when the readers are.

CREATE FUNCTION write_until(readers int) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
	i int := 0;
BEGIN
	WHILE nexusmem.counter_get('readers done') < readers LOOP
		i := i + 1;
		PERFORM nexusmem.cache_set('up ' || i % 8, i::text);
		PERFORM nexusmem.counter_set('written', i);
	END LOOP;
END $$;

-- how many of its reads found none, or one older than it had to be
CREATE FUNCTION read_while_written(times int) RETURNS int LANGUAGE plpgsql AS $$
DECLARE
	before int := 0;
	written int;
	got int;
	stale int := 0;
BEGIN
	WHILE times > 0 LOOP
		written := nexusmem.counter_get('written');
		got := nexusmem.cache_get('up ' || written % 8);
		stale := stale + (got IS NULL OR got < written)::int;
		times := times - (written <> before)::int;
		before := written;
	END LOOP;
	PERFORM nexusmem.counter_add('readers done');
	RETURN stale;
END $$;

SELECT nexusmem.counter_set('written', 0), nexusmem.counter_set('readers done', 0);
SELECT nexusmem.cache_set('up ' || i, '0') FROM generate_series(0, 7) i;

-- Who may use which cache.
\set VERBOSITY terse
SET lc_messages = 'C';
SET client_min_messages = warning;
DROP ROLE IF EXISTS regress_nexusmem_a, regress_nexusmem_b, regress_nexusmem_c, regress_nexusmem_stats;
CREATE ROLE regress_nexusmem_a;
CREATE ROLE regress_nexusmem_b;
CREATE ROLE regress_nexusmem_c IN ROLE regress_nexusmem_a;
CREATE ROLE regress_nexusmem_stats IN ROLE pg_read_all_stats;

-- without USAGE on the schema: nothing
SET ROLE regress_nexusmem_a;
SELECT nexusmem.cache_set('k', 'v');
SELECT * FROM nexusmem.stat_cache;
RESET ROLE;
GRANT USAGE ON SCHEMA nexusmem TO PUBLIC;
SET search_path = nexusmem, public;

-- each role has its own default cache
SET ROLE regress_nexusmem_a;
SELECT cache_set('k', 'of a'), cache_get('k');
SET ROLE regress_nexusmem_b;
SELECT cache_get('k'), cache_set('k', 'of b'), cache_get('k'), cache_add('k', 'x');
SELECT cache, owner, entries FROM stat_cache;
SET ROLE regress_nexusmem_c;
SELECT cache_get('k');
RESET ROLE;
SELECT cache_get('k'), cache_clear();
SET ROLE regress_nexusmem_a;
SELECT cache_get('k');
SELECT share('cache', 'default', 'regress_nexusmem_b', 'read');
-- a function of the definer's uses the definer's
RESET ROLE;
CREATE FUNCTION peek() RETURNS text LANGUAGE sql SECURITY DEFINER SET search_path = nexusmem AS $$ SELECT cache_get('k') $$;
ALTER FUNCTION peek() OWNER TO regress_nexusmem_a;
SET ROLE regress_nexusmem_b;
SELECT peek(), cache_get('k'), peek();
RESET ROLE;
DROP FUNCTION peek();
-- one call site, several roles
CREATE FUNCTION in_turns() RETURNS SETOF text LANGUAGE plpgsql AS $$
BEGIN
	FOR i IN 1 .. 2 LOOP
		SET LOCAL ROLE regress_nexusmem_a;
		RETURN NEXT cache_get('k');
		SET LOCAL ROLE regress_nexusmem_b;
		RETURN NEXT cache_get('k');
	END LOOP;
	RESET ROLE;
END $$;
SELECT * FROM in_turns();
DROP FUNCTION in_turns();

-- another cache is its creator's
SET ROLE regress_nexusmem_a;
SELECT cache_create('shop'), cache_set('k', 'v', NULL, 'shop');
SET ROLE regress_nexusmem_b;
SELECT cache_set('k', 'w', NULL, 'shop');
SELECT cache_add('k', 'w', NULL, 'shop');
SELECT cache_get('k', 'shop');
SELECT cache_get_bytea('k', 'shop');
SELECT cache_get_jsonb('k', 'shop');
SELECT * FROM cache_mget(ARRAY['k'], 'shop');
SELECT cache_mset(ARRAY['k'], ARRAY['w'], NULL, 'shop');
SELECT cache_delete('k', 'shop');
SELECT cache_ttl('k', 'shop');
SELECT cache_expire('k', NULL, 'shop');
SELECT cache_clear('shop');
SELECT cache_drop('shop');
SELECT cache_create('shop');
SELECT share('cache', 'shop', 'regress_nexusmem_b', 'read');
SELECT cache FROM stat_cache;
SELECT stat_cache_reset();
-- its members may all, and who reads statistics may look
SET ROLE regress_nexusmem_c;
SELECT cache_get('k', 'shop'), cache_set('k', 'c', NULL, 'shop'), cache_get('k', 'shop');
SELECT cache, owner FROM stat_cache ORDER BY cache COLLATE "C", owner::text COLLATE "C";
SET ROLE regress_nexusmem_stats;
SELECT cache, owner FROM stat_cache ORDER BY cache COLLATE "C", owner::text COLLATE "C";
SELECT kind, name, owner FROM structures ORDER BY name COLLATE "C", owner::text COLLATE "C";
SELECT cache_get('k', 'shop');
RESET ROLE;
SELECT cache_get('k', 'shop');

-- shared
SET ROLE regress_nexusmem_a;
SELECT share('cache', 'shop', 'regress_nexusmem_b', 'read'), share('cache', 'shop', 'regress_nexusmem_b', 'read') AS again;
SET ROLE regress_nexusmem_b;
SELECT cache_get('k', 'shop'), cache_ttl('k', 'shop');
SELECT * FROM cache_mget(ARRAY['k'], 'shop');
SELECT cache FROM stat_cache ORDER BY 1;
SELECT cache_set('k', 'w', NULL, 'shop');
SELECT cache_delete('k', 'shop');
SELECT cache_expire('k', '1 hour', 'shop');
SELECT cache_clear('shop');
SELECT cache_drop('shop');
SET ROLE regress_nexusmem_a;
SELECT share('cache', 'shop', 'regress_nexusmem_b', 'write');
SET ROLE regress_nexusmem_b;
SELECT cache_set('k', 'w', NULL, 'shop'), cache_expire('k', '1 hour', 'shop'), cache_get('k', 'shop'), cache_delete('k', 'shop'), cache_clear('shop');
SELECT cache_drop('shop');
SELECT owner FROM stat_cache WHERE cache = 'shop';
SET ROLE regress_nexusmem_a;
SELECT unshare('cache', 'shop', 'regress_nexusmem_b');
SET ROLE regress_nexusmem_b;
SELECT cache_get('k', 'shop');
SET ROLE regress_nexusmem_a;
SELECT share('cache', 'shop', NULL, 'write');
SET ROLE regress_nexusmem_b;
SELECT cache_add('k', 'all', NULL, 'shop'), cache_get('k', 'shop');
RESET ROLE;

-- the settings are the administrator's
SET ROLE regress_nexusmem_a;
SET nexusmem.cache_size = '1GB';
SET nexusmem.enable_numa_caching = on;
SELECT cache_drop('shop'), cache_drop('default');
RESET ROLE;
SET nexusmem.cache_size = '1GB';
GRANT SET ON PARAMETER nexusmem.role_limit TO regress_nexusmem_a;
SET ROLE regress_nexusmem_a;

-- what a role may take: its cache keeps below it, with what else it has
SET nexusmem.role_limit = '100kB';
SELECT cache_set('k', 'v');
SET nexusmem.role_limit = '2MB';
SELECT count(cache_set('k' || i, repeat('x', 200))) FROM generate_series(1, 30000) AS i;
SELECT entries > 2000 AS filled, bytes + overhead_bytes <= 2 * 1024 * 1024 AS bounded, evictions > 0 AS evicted, refusals FROM stat_cache;
SELECT cache_get('k30000') = repeat('x', 200) AS newest;
SELECT count(map_put('m', i::text, repeat('x', 1000))) FROM generate_series(1, 10000) AS i;
SELECT map_drop('m'), cache_drop('default');
-- what it has added to other things since it wrote to the cache counts
SET nexusmem.role_limit = '8MB';
SELECT cache_set('x', 'x');
SELECT count(map_put('m', i::text, repeat('x', 1000))) FROM generate_series(1, 6500) AS i;
SELECT count(cache_set('k' || i, repeat('x', 500000))) FROM generate_series(1, 14) AS i;
SELECT sum(bytes) FILTER (WHERE kind = 'cache') > 500000 AS used, sum(bytes) <= 8 * 1024 * 1024 AS bounded FROM structures;
RESET nexusmem.role_limit;
SELECT map_drop('m'), cache_drop('default');
-- where no room is left a write is an error, and the old value stays until it is removed
SELECT cache_mset('{a,b,c,d,e}', '{v,v,v,v,v}', NULL, 'old');
SET nexusmem.role_limit = '1MB';
SELECT count(map_put('m', i::text, repeat('x', 1000))) FROM generate_series(1, 10000) AS i;
SELECT cache_set('a', 'w', NULL, 'old');
SELECT cache_expire('a', '1 hour', 'old');
SELECT cache_get('a', 'old');
SELECT cache_delete('a', 'old'), cache_set('b', 'w', '0', 'old'), cache_expire('c', '0', 'old'), cache_expire('c', '-1 hour', 'old') AS again, cache_mset('{d,f}', '{w,w}', '0', 'old'), cache_add('e', 'w', '0', 'old'), cache_add('g', 'w', '0', 'old') AS absent;
SELECT key, value FROM cache_mget('{a,b,c,d,e,f}', 'old') AS m(key, value) WHERE value IS NOT NULL;
-- removing makes no cache
SELECT cache_set('a', 'w', '0', 'none'), cache_mset('{a}', '{w}', '0', 'none'), cache_expire('a', '0', 'none'), cache_add('a', 'w', '0', 'none');
SELECT cache FROM stat_cache WHERE cache IN ('none', 'old');
RESET nexusmem.role_limit;
SELECT map_drop('m'), cache_drop('old');
RESET ROLE;
REVOKE SET ON PARAMETER nexusmem.role_limit FROM regress_nexusmem_a;

SET ROLE regress_nexusmem_b;
SELECT cache_drop('default');
RESET ROLE;
SELECT count(*) FROM stat_cache;
REVOKE USAGE ON SCHEMA nexusmem FROM PUBLIC;
DROP ROLE regress_nexusmem_a, regress_nexusmem_b, regress_nexusmem_c, regress_nexusmem_stats;

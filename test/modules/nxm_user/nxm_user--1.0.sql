\echo Use "CREATE EXTENSION nxm_user" to load this file. \quit

CREATE FUNCTION user_version() RETURNS int AS 'MODULE_PATHNAME' LANGUAGE C;
CREATE FUNCTION user_exists(kind int, name text) RETURNS bool AS 'MODULE_PATHNAME' LANGUAGE C STRICT;
CREATE FUNCTION user_null_exists() RETURNS bool AS 'MODULE_PATHNAME' LANGUAGE C STRICT;
CREATE FUNCTION user_drop(kind int, name text) RETURNS bool AS 'MODULE_PATHNAME' LANGUAGE C STRICT;

CREATE FUNCTION user_add(name text, delta bigint, flags int) RETURNS bigint AS 'MODULE_PATHNAME' LANGUAGE C STRICT;
CREATE FUNCTION user_kept_add(delta bigint) RETURNS bigint AS 'MODULE_PATHNAME' LANGUAGE C STRICT;
CREATE FUNCTION user_value(name text) RETURNS bigint AS 'MODULE_PATHNAME' LANGUAGE C STRICT;
CREATE FUNCTION user_set(name text, value bigint) RETURNS bigint AS 'MODULE_PATHNAME' LANGUAGE C STRICT;

CREATE FUNCTION user_kept_fill(entries int) RETURNS int AS 'MODULE_PATHNAME' LANGUAGE C STRICT;
CREATE FUNCTION user_put(map text, key text, value text, type int DEFAULT 0) RETURNS bool AS 'MODULE_PATHNAME' LANGUAGE C STRICT;
CREATE FUNCTION user_put_bytes(map bytea, key bytea, value bytea, type int DEFAULT 0) RETURNS bool AS 'MODULE_PATHNAME' LANGUAGE C STRICT;
CREATE FUNCTION user_put_if(map text, key text, expected text, value text) RETURNS bool AS 'MODULE_PATHNAME' LANGUAGE C;
CREATE FUNCTION user_get(map text, key text, OUT value text, OUT type int) RETURNS record AS 'MODULE_PATHNAME' LANGUAGE C STRICT;
CREATE FUNCTION user_read(map text, key text, size int, OUT value text, OUT in_room bool) RETURNS record AS 'MODULE_PATHNAME' LANGUAGE C STRICT;
CREATE FUNCTION user_delete(map text, key text) RETURNS bool AS 'MODULE_PATHNAME' LANGUAGE C STRICT;
CREATE FUNCTION user_map_add(map text, key text, delta bigint) RETURNS bigint AS 'MODULE_PATHNAME' LANGUAGE C STRICT;
CREATE FUNCTION user_size(map text) RETURNS bigint AS 'MODULE_PATHNAME' LANGUAGE C STRICT;
-- entries and bytes of keys and values that a scan visits, at most so many
CREATE FUNCTION user_scan(map text, most bigint, OUT entries bigint, OUT bytes bigint) RETURNS record AS 'MODULE_PATHNAME' LANGUAGE C STRICT;

CREATE FUNCTION user_push(kind int, name text, value text) RETURNS void AS 'MODULE_PATHNAME' LANGUAGE C STRICT;
CREATE FUNCTION user_pop(kind int, name text) RETURNS text AS 'MODULE_PATHNAME' LANGUAGE C STRICT;
CREATE FUNCTION user_length(kind int, name text) RETURNS bigint AS 'MODULE_PATHNAME' LANGUAGE C STRICT;

CREATE FUNCTION user_ends() RETURNS int AS 'MODULE_PATHNAME' LANGUAGE C;

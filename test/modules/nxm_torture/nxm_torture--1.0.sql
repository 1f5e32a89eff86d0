/* test/modules/nxm_torture/nxm_torture--1.0.sql */

-- complain if script is sourced in psql, rather than via CREATE EXTENSION
\echo Use "CREATE EXTENSION nxm_torture" to load this file. \quit

CREATE FUNCTION torture_pause_at(place text) RETURNS boolean
AS 'MODULE_PATHNAME', 'torture_pause_at' LANGUAGE C STRICT;

CREATE FUNCTION torture_worker_start(work text, place text) RETURNS int
AS 'MODULE_PATHNAME', 'torture_worker_start' LANGUAGE C STRICT;

CREATE FUNCTION torture_worker_end() RETURNS boolean
AS 'MODULE_PATHNAME', 'torture_worker_end' LANGUAGE C STRICT;

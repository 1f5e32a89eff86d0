/*
 * tables.h
 *	  Hash tables to compare, behind one interface: keys and values of any
 *	  length; a value is copied out while it cannot change.
 */
#ifndef TABLES_H
#define TABLES_H

#include "map.h"

#define MAX_THREADS 64

typedef struct Table
{
	const char *name;
	const char *what;
	void		(*create) (void);
	/* once it is filled; NULL: nothing to do */
	void		(*settle) (void);
	/* before and after a thread's operations */
	void		(*begin) (int thread);
	void		(*end) (int thread);
	bool		(*get) (int thread, const NxmKey *key, NxmBuffer *buffer);
	void		(*put) (int thread, const NxmKey *key, const NxmValue *value);
} Table;

/* Is memory to be in huge pages?  Set before tables are created. */
extern bool huge_pages;

extern const Table nexusmem_table;
extern const Table mutex_table;
extern const Table rwlock_table;
extern const Table ck_table;
extern const Table ck_epoch_table;

#endif							/* TABLES_H */

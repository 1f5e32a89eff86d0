/*
 * registry_sites.c
 *	  What this process remembers of the objects that it used last.
 *
 * A table of sets of a few sites each: the set is chosen by a hash of kind, name and
 * role, and a name that is not in it takes the place of one that is.  It outlives
 * statements, and is what makes a prepared statement that calls one function cheap:
 * its FmgrInfo is new at each execution.  Within an execution fn_extra points to the
 * site that the call used last.
 *
 * Nothing in here is trusted: every use goes through nxm_site_holds(), which sees a
 * drop, a sharing taken back, another role and a change of roles.
 *
 * Limits: a process that uses more names at the same time than there is room for
 * resolves some of them again and again.
 */
#include "registry.h"

#define SETS 64
#define SITES_PER_SET 4

static NxmSite sites[SETS][SITES_PER_SET];

/* The site of each kind that was opened last; NULL: none was. */
static NxmSite *last_opened[NXM_KINDS];

/* Where an object is remembered, or may be. */
static NxmSite *
place_of(NxmKind kind, const char *name, size_t len, Oid role)
{
	static unsigned int turn = 0;
	uint64		hash = hash_bytes_extended((const unsigned char *) name, (int) len,
										   (uint64) kind << 32 | role);
	NxmSite    *set = sites[hash % SETS];

	for (int i = 0; i < SITES_PER_SET; i++)
	{
		if (set[i].role == role && nxm_site_is_of(&set[i], kind, name, len))
			return &set[i];
	}
	for (int i = 0; i < SITES_PER_SET; i++)
	{
		if (set[i].object == NULL)
			return &set[i];
	}
	return &set[turn++ % SITES_PER_SET];
}

NxmSite *
nxm_object_open_slow(FunctionCallInfo fcinfo, NxmKind kind, const char *name,
					 size_t len, NxmPrivilege privilege, bool create)
{
	NxmSite    *site = last_opened[kind];

	if (unlikely(site == NULL || !nxm_site_is_of(site, kind, name, len) ||
				 !nxm_site_holds(site, privilege)))
	{
		nxm_check_name(kind, len);
		site = place_of(kind, name, len, GetUserId());
		if ((!nxm_site_is_of(site, kind, name, len) ||
			 !nxm_site_holds(site, privilege)) &&
			!nxm_site_open(site, kind, name, len, privilege, create))
			return NULL;
		last_opened[kind] = site;
	}
	/* once an execution: a new home, a new limit */
	(void) nxm_space();
	if (fcinfo->flinfo != NULL)
		fcinfo->flinfo->fn_extra = site;
	return site;
}

/*
 * api.h
 *	  Offers the C interface of nexusmem_api.h to other extensions.
 */
#ifndef NXM_API_H
#define NXM_API_H

extern void nxm_api_init(void);

#endif							/* NXM_API_H */

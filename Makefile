# nexusmem: make, make install, make installcheck are PGXS's own.
# make demo and make test do everything on a fresh Debian or Ubuntu machine.

EXTENSION = nexusmem
MODULE_big = nexusmem
DATA = $(patsubst $(srcdir)/%,%,$(wildcard $(srcdir)/sql/nexusmem--*.sql))
# for other extensions: into include/server/extension/nexusmem
HEADERS = src/nexusmem_api.h
OBJS = \
	src/core/cache.o \
	src/core/cache_batch.o \
	src/core/cache_chain.o \
	src/core/cache_counts.o \
	src/core/cache_evict.o \
	src/core/cache_ghost.o \
	src/core/cache_recycle.o \
	src/core/cache_segment.o \
	src/core/cache_tick.o \
	src/core/counter.o \
	src/core/item.o \
	src/core/map.o \
	src/core/map_grow.o \
	src/core/map_drain.o \
	src/core/predictor.o \
	src/core/predictor_save.o \
	src/core/predictor_table.o \
	src/core/queue.o \
	src/core/space.o \
	src/core/space_reclaim.o \
	src/core/stack.o \
	src/core/topology.o \
	src/core/topology_set.o \
	src/core/topology_sysfs.o \
	src/numa_seam.o \
	src/nodes.o \
	src/shmem.o \
	src/slot.o \
	src/segment.o \
	src/subtransaction.o \
	src/saved_file.o \
	src/arena.o \
	src/arena_chunks.o \
	src/arena_huge.o \
	src/arena_report.o \
	src/registry.o \
	src/registry_drain.o \
	src/registry_limits.o \
	src/registry_rights.o \
	src/registry_scan.o \
	src/registry_sites.o \
	src/caches.o \
	src/scheduler.o \
	src/placement.o \
	src/buffer_nodes.o \
	src/btree_probe.o \
	src/plan_effects.o \
	src/plan_walk.o \
	src/nestloop_plan.o \
	src/prefetch_index.o \
	src/prefetch_page.o \
	src/prefetch_am.o \
	src/prefetch_leaf.o \
	src/prefetch_array.o \
	src/prefetch_whole.o \
	src/prefetch_nestloop.o \
	src/prefetch_learned.o \
	src/prefetch_stats.o \
	src/prefetch_parallel.o \
	src/prefetch_explain.o \
	src/predictor_area.o \
	src/single_flight.o \
	src/save.o \
	src/save_write.o \
	src/load.o \
	src/worker.o \
	src/memory_worker.o \
	src/api.o \
	src/stats.o \
	src/status.o \
	src/sql_topology.o \
	src/sql_buffers.o \
	src/sql_memory.o \
	src/sql_structures.o \
	src/sql_counters.o \
	src/sql_maps.o \
	src/sql_lists.o \
	src/sql_cache.o \
	src/sql_cache_batch.o \
	src/sql_cache_fetch.o \
	src/sql_cache_admin.o \
	src/sql_predictor.o \
	src/nexusmem.o

PG_CFLAGS = -Wall -Wextra
# PostgreSQL's headers as system headers: their own warnings are not ours.
PG_CPPFLAGS = -isystem $(includedir_server) -I$(srcdir)/src

# No bitcode: JIT would put functions of ours into its own code, where they miss the symbols that
# are hidden in the library (PostgreSQL 16 and newer; the session ends), and where those of a
# version that was just installed work on the shared memory of the one that is loaded.
override with_llvm := no

# what the objects were built for, see below
STAMP = src/built_for
EXTRA_CLEAN = $(STAMP)

REGRESS = install nodes settings errors privileges prefetch nestloop_prefetch predictor structures structure_errors structure_privileges cache cache_errors cache_privileges
ISOLATION = concurrent remembered recheck
ISOLATION_OPTS = --inputdir=$(srcdir)/test --load-extension=nexusmem
TAP_TESTS = 1
PROVE_TESTS = test/t/*.pl

# demo, test and unit install or need nothing of PGXS before they start.
STANDALONE = demo test unit deps
ifeq ($(filter-out $(STANDALONE),$(or $(MAKECMDGOALS),all)),)
srcdir = .
else
PG_CONFIG ?= pg_config
PGXS := $(shell $(PG_CONFIG) --pgxs)
$(if $(PGXS),,$(error $(PG_CONFIG) does not tell where PGXS is: set PG_CONFIG, or install the \
	files for server development))
include $(PGXS)

# Each object depends on every header: the tree is small, and a stale object in
# a shared-memory layout is a crash. That goes for PostgreSQL's headers, too, of which the stamp
# tells. Compiler and flags are left out: they are often given to `make` and not to
# `make install`.
built_for := $(strip $(includedir_server) $(shell cat $(includedir_server)/pg_config*.h | cksum))
ifneq ($(shell cat $(STAMP) 2>/dev/null),$(built_for))
.PHONY: $(STAMP)
endif
$(STAMP):
	@mkdir -p $(sort $(dir $(OBJS)))
	@echo 'objects are made for $(built_for)'
	@rm -f $@
	@echo '$(built_for)' >$@
$(OBJS): $(STAMP) $(wildcard $(srcdir)/src/*.h $(srcdir)/src/core/*.h)

# Earlier versions have installed bitcode. Nobody begins with it without its index, but a session
# that has read that goes on to read the rest, and would end without it.
.PHONY: remove-index remove-bitcode
install: remove-index
remove-index:
	$(if $(bitcodedir),rm -f '$(DESTDIR)$(bitcodedir)/$(MODULE_big).index.bc')
uninstall: remove-bitcode
remove-bitcode:
	$(if $(bitcodedir),$(call uninstall_llvm_module,$(MODULE_big)))
endif

.PHONY: $(STANDALONE)
deps:
	@test/deps.sh
demo:
	@test/deps.sh build >/dev/null && test/demo.sh $(if $(DIR),"$(DIR)")
test:
	@test/run.sh $(PARTS)
unit:
	@$(MAKE) -s -C test/unit check

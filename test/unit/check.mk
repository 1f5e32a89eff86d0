# The model checker's programs (check.h): core compiled with its operations
# mapped to the checker's, and with everything small.  Included by Makefile.
#
# A program NAME is made of NAME.c, the checker, and the files of src/core that
# NAME_CORE names.  check_source.sh looks whether core uses no other operations;
# check_mutants.sh compiles it with errors put in.
#
# CHECK_SECONDS=60 bin/check_map: a minute of random and of priority-based schedules of
# maps, told in the last line; make check-long: of each structure.

CHECKS = check_self check_space check_slab check_counter check_stack check_queue check_map check_cache check_predictor check_flight

check_self_CORE =
check_space_CORE = space space_reclaim item
check_slab_CORE = space space_reclaim item
check_counter_CORE = space space_reclaim item counter
check_stack_CORE = space space_reclaim item stack
check_queue_CORE = space space_reclaim item queue
check_map_CORE = space space_reclaim item map map_grow map_drain
check_flight_CORE =
check_predictor_CORE = space space_reclaim item $(PREDICTOR_CORE)
check_cache_CORE = space space_reclaim item map map_grow map_drain $(CACHE_CORE)

# A program with FLAGS has objects of its own.
check_slab_FLAGS = -UNXM_PAGE_SIZE -DNXM_PAGE_SIZE=4096 -UNXM_PAGE_SHIFT -DNXM_PAGE_SHIFT=9
check_cache_FLAGS = -UFIRST_TAG_BIT -DFIRST_TAG_BIT=0 -DNXM_CACHE_SEGMENT=40 -DNXM_CACHE_INLINE=16 \
	-DNXM_CACHE_WINDOWS=2 -DNXM_CACHE_LEAST_WINDOWS=2 -DNXM_CACHE_UNDERFULL=1 -DNXM_CACHE_STRIPES=1 -DNXM_CACHE_COUNT_LINES=1 -DNXM_CACHE_COUNT_BLOCKS=2 -DNXM_CACHE_COUNTS_SHARE=1000000 -DNXM_CACHE_RIPE=2 -DNXM_CACHE_SEEK=2 -DNXM_CACHE_HELD=1 -DNXM_CACHE_ROOM_LISTS=1 -DNXM_CACHE_ROOMS=2 -DNXM_CACHE_ROOM_ALIGN=8 -DNXM_CHAIN_ENTRIES=2 -DNXM_CHAIN_STEP=5 \
	-DNXM_CACHE_KEEP=1 -DNXM_CACHE_AHEAD=1 -DNXM_CACHE_SMALL_INDEX=144 -DNXM_CACHE_INDEX_BYTES=1 -DNXM_GHOST_MIN_LINES=1 -DNXM_CACHE_PROMOTE=1 -DNXM_CACHE_SMALL_SHARE=357913941

CHECK_SMALL = -DNXM_PAGE_SIZE=2048 -DNXM_PAGE_SHIFT=8 -DNXM_SPACE_NODES=2 \
	-DNXM_LIMBO=1 -DNXM_READY=1 -DNXM_EPOCH_LIMBO=16 -DNXM_MAGAZINE_BYTES=64 \
	-DNXM_KEPT_PAGES=1 -DNXM_MAX_OBJECT=1024 -DNXM_CLASSES=62 -DFLAT_DEPTH=7 -DNXM_BUCKET_SLOTS=3 -DNXM_BUCKET_LINES=2 -DNXM_OVERFLOW_SLOTS=2 -DNXM_CHAIN_OVERFLOWS=2 -DNXM_EXTENT_OVERFLOWS=1 \
	-DNXM_SCAN_TRIES=2 -DNXM_SCAN_BYTES=12 -DNXM_SAFE_DELTA=8 -DNXM_MOST_PENDING=32 -DNXM_PREDICTOR_CHUNK=4 -DNXM_PREDICTOR_RELATIONS=4 -DFIRST_TAG_BIT=6 -DNXM_MIN_LOG=0 -DNXM_MAX_LOG=2 -D"POOL_OF(log)=(int)(0*(log)+1)"
CHECK_CFLAGS = -std=c11 -Wall -Wextra -Wmissing-prototypes \
	-Wdeclaration-after-statement -Wvla -O2 -g -DNXM_CHECKED $(CHECK_SMALL) \
	-I$(CORE) -I.
CHECK_OBJECTS = $(addprefix bin/check/,check_memory.o check_run.o check_linear.o)
CHECK_BINARIES = $(CHECKS:%=bin/%)
CHECK_SCRIPTS = ./check_source.sh ./check_mutants.sh
# these begin: the rest is short beside them
CHECK_LONGEST = bin/check_cache bin/check_map
CHECK_JOBS := $(shell nproc 2>/dev/null || echo 1)

all: $(CHECK_BINARIES)

bin/check/%.o: %.c $(wildcard check*.h $(CORE)/*.h) check.mk
	@mkdir -p bin/check
	$(CC) $(CHECK_CFLAGS) -c -o $@ $<

bin/check/%.o: $(CORE)/%.c $(wildcard check*.h $(CORE)/*.h) check.mk
	@mkdir -p bin/check
	$(CC) $(CHECK_CFLAGS) -c -o $@ $<

define own_objects
bin/check/$(1)/%.o: %.c $(wildcard check*.h $(CORE)/*.h) check.mk
	@mkdir -p $$(@D)
	$$(CC) $$(CHECK_CFLAGS) $$(check_$(1)_FLAGS) -c -o $$@ $$<

bin/check/$(1)/%.o: $(CORE)/%.c $(wildcard check*.h $(CORE)/*.h) check.mk
	@mkdir -p $$(@D)
	$$(CC) $$(CHECK_CFLAGS) $$(check_$(1)_FLAGS) -c -o $$@ $$<

bin/check_$(1): $$(patsubst %,bin/check/$(1)/%.o,check_$(1) check_core $$(check_$(1)_CORE)) \
		$$(CHECK_OBJECTS)
	$$(CC) -o $$@ $$^
endef
CHECKS_WITH_FLAGS = slab cache
$(foreach check,$(CHECKS_WITH_FLAGS),$(eval $(call own_objects,$(check))))

bin/check_self bin/check_flight: bin/%: bin/check/%.o $(CHECK_OBJECTS)
	$(CC) -o $@ $^

$(filter-out bin/check_self bin/check_flight $(CHECKS_WITH_FLAGS:%=bin/check_%),$(CHECK_BINARIES)): bin/%: bin/check/%.o \
		bin/check/check_core.o $(CHECK_OBJECTS) \
		$$(addprefix bin/check/,$$(addsuffix .o,$$($$*_CORE)))
	$(CC) -o $@ $^

# what check_mutants.sh compiles with
export CC CHECK_CFLAGS $(CHECKS_WITH_FLAGS:%=check_%_FLAGS) $(foreach check,$(CHECKS),$(check)_CORE)

check-mutants: $(CHECK_BINARIES)
	./check_mutants.sh

check-long: $(CHECK_BINARIES)
	@status=0; for program in $^; do CHECK_SECONDS=$${CHECK_SECONDS:-60} $$program || status=1; done; exit $$status

.PHONY: check-mutants check-long

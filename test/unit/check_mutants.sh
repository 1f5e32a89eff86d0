#!/bin/bash
# check_mutants.sh: errors put into core one at a time, each of which the checker
# must find. Started by make, which tells how to compile.
#
# A mutant is a name, the program that is to find it, the file of core, and two
# texts: what stands there, once, and what to put in its place. A text that is not found is
# a failure too: a mutant must not go stale unseen. So is one that stands there twice: the
# mutant might be found for another place than it is named for. Where all cases by turns
# take long, it may name the one to begin with.
#
# MUTANT=part-of-a-name, or PROGRAM=one-of-them, runs some of them.
set -u
cd "$(dirname "$0")"
: "${CHECK_CFLAGS:?make check-mutants starts this with what it needs}"
eval "flags=($CHECK_CFLAGS)"
read -r -a cc <<<"${CC:-cc}"
core=../../src/core
jobs=$(nproc 2>/dev/null || echo 1)
dir=bin/check/mutants
rm -rf "$dir"
mkdir -p "$dir"
names=()

# mutant NAME PROGRAM FILE FROM TO [CASE]
mutant() {
	local name=$1 program=$2 file=$3 from=$4 to=$5 number=${#names[@]}
	[[ $name == *"${MUTANT-}"* && $program == "${PROGRAM-$program}" ]] || return 0
	names+=("$name")
	while [ "$(jobs -rp | wc -l)" -ge "$jobs" ]; do wait -n; done
	one "$dir/$number" "$program" "$file" "$from" "$to" "${@:6}" >"$dir/$number.log" 2>&1 &
}

# Exits with 0 if the mutant is found.
one() {
	local at=$1 program=$2 file=$3 from=$4 to=$5 text object sources=() objects=() cores=${2}_CORE
	local own=${2}_FLAGS built=bin/check more=() common=check_core
	if [ -n "${!own-}" ]; then
		built=bin/check/${program#check_}
		read -r -a more <<<"${!own}"
	fi
	# of headers alone: without a space
	[ -n "${!cores}" ] || common=
	mkdir -p "$at/core"
	cp "$core"/*.h "$at/core/"
	for c in ${!cores}; do cp "$core/$c.c" "$at/core/"; done
	text=$(<"$at/core/$file")
	if [[ $text != *"$from"* || ${text#*"$from"} == *"$from"* ]]; then
		echo "$file has this text not once: $from"
		exit 1
	fi
	printf '%s\n' "${text/"$from"/"$to"}" >"$at/core/$file"
	case $file in
		*.c) sources=("$at/core/$file") ;;
		*.h) for c in ${!cores}; do sources+=("$at/core/$c.c"); done
			for c in "$program" $common; do sources+=("$c.c"); done ;;
	esac
	for object in "$program" $common ${!cores}; do
		case " ${sources[*]} " in
			*"/$object.c "* | *" $object.c "*) ;;
			*) objects+=("$built/$object.o") ;;
		esac
	done
	"${cc[@]}" -I"$at/core" "${flags[@]}" "${more[@]}" -O1 -w -o "$at/$program" "${sources[@]}" "${objects[@]}" \
		bin/check/check_{memory,run,linear}.o || exit 1
	"$at/$program" mutant "${@:6}"
	[ $? = 3 ]
}

# Reclamation.
mutant "no fence in nxm_protect" check_space space.h \
	'	/* pairs with the fence of nxm_flush(): it sees the hazard, or we the removal */
	nxm_fence();' ''
mutant "no fence in nxm_enter" check_space space.h \
	'or the epoch is seen.
	 */
	nxm_fence();' '*/'
mutant "no fence in nxm_flush" check_space space_reclaim.c \
	'	/* pairs with nxm_protect(): it sees the removal, or we its hazard */
	nxm_fence();' ''
mutant "no fence in nxm_epoch_poll" check_space space_reclaim.c \
	'nxm_enter(): an epoch published before is seen below */
	nxm_fence();' '*/' 'arrays, and the epoch moved on by a third'
mutant "no fence in nxm_retire_epoch" check_space space_reclaim.c \
	'	/* the removal comes before the epoch is read: pairs with nxm_enter() */
	nxm_fence();' ''
mutant "line attached that nobody looks at" check_space space_reclaim.c \
	'nxm_fetch_or(&space->attached[proc / 64], UINT64_C(1) << (proc % 64));' ''
mutant "record not asked for ahead of many objects" check_space space_reclaim.c \
	'before + n <= NXM_EPOCH_LIMBO' 'true'
mutant "no fence between the last words of a page" check_slab space.c \
	'			nxm_fence();' '			;'
mutant "epoch advanced one early" check_space space_reclaim.c \
	'retired.epoch + 2 > epoch' 'retired.epoch + 1 > epoch'
mutant "epoch advanced past a section" check_space space_reclaim.c \
	'theirs == 0 || theirs == epoch' 'true'
mutant "items freed without a look at the hazards" check_space space_reclaim.c \
	'proc = hazard_on(space, hazard);' ''
mutant "displaced note freed without a look at the hazards" check_space space_reclaim.c \
	'		proc = hazard_on(space, ref);
		if (proc < 0)
			break;' '		break;' 'items held for a reader that goes on, all schedules'
mutant "held item freed without a look at the hazards" check_space space_reclaim.c \
	'int			proc = hazard_on(space, held);' 'int			proc = -1;' \
	'items held for a reader that goes on, all schedules'
mutant "displaced note forgotten" check_space space_reclaim.c \
	'		if (before == 0)
			return;' '		if (before != ref)
			return;'
mutant "polled for what is not mapped" check_space space_reclaim.c \
	'return local->nretired - local->nunmapped;' 'return local->nretired;'
mutant "polled in vain again and again" check_space space_reclaim.c \
	' && has_moved(space)' ''
mutant "not polled where more waits" check_space space_reclaim.c \
	'waiting(space->local) != space->polled_waiting' 'false'
mutant "chunk mapped with nothing polled for" check_space space.h \
	'		space->local->nunmapped = 0;
		space->limbo_due = true;' ''
mutant "what was not mapped never polled for" check_space space_reclaim.c \
	'local->nunmapped = nunmapped;' 'local->nunmapped = kept;'
mutant "record of orphans taken for one of the account in use" check_space space_reclaim.c \
	'orphans, ref,
										in_other_account(space, ref))' 'orphans, ref,
										space->account != 0)'
mutant "lost objects counted as waiting" check_space space_reclaim.c \
	'nxm_fetch_add_relaxed(&space->shared->limbo, -(uint64_t) local->nretired);' ''
mutant "hazard withdrawn without release" check_space space.h \
	'nxm_store(&space->line->hazard, 0);
	nxm_store(&space->line->epoch, 0);
	if' 'nxm_store_relaxed(&space->line->hazard, 0);
	nxm_store_relaxed(&space->line->epoch, 0);
	if'

# The allocator.
mutant "magazine bits taken without CAS" check_space space.c \
	'!nxm_cas(&desc->free[w], &free, free & ~bits)' \
	'(nxm_store(&desc->free[w], free & ~bits), false)'
mutant "no tag in stacks of pages" check_space space.c \
	'#define TAG_ONE			(UINT64_C(1) << 32)' '#define TAG_ONE UINT64_C(0)'
mutant "life of a page not looked at after taking bits" check_space space.c \
	'if (((nxm_load(&desc->state) ^ state) & LIFE_MASK) == 0)' 'if (true)'
mutant "page unlisted with an object freed meanwhile" check_space space.c \
	'if (nxm_fetch_or(&desc->free[w], 0) != 0)' 'if (false)'
mutant "page unlisted with an object freed unseen" check_space space.c \
	'if (nxm_fetch_or(&desc->free[w], 0) != 0)' 'if (nxm_load(&desc->free[w]) != 0)'
mutant "page released with objects out" check_space space.c \
	'if (taken[n] != full_word(class, n))' 'if (false)'
mutant "page whose memory stayed is not listed" check_space space.c \
	'if (nxm_fetch_or(&desc->free[w], taken[w]) == 0)' 'if (nxm_fetch_or(&desc->free[w], taken[w]) != 0)'
mutant "page whose memory stayed is forgotten" check_space space.c \
	'nxm_store(&space->shared->unreleased, 1);' ''
mutant "page whose memory stayed is not counted" check_space space.c \
	'		populated = !depopulate(space, page, state);
		if (!populated)' \
	'		populated = depopulate(space, page, state) && false;
		if (!populated)'
mutant "page whose memory stayed is not counted on its stack" check_space space.c \
	'			populated = !depopulate(space, page, state);
			if (populated)' \
	'			populated = depopulate(space, page, state) && false;
			if (populated)'

mutant "limit looked at before the page is counted" check_space space.c \
	'nxm_fetch_add_relaxed(&of->pages, 1) < nxm_load_relaxed(&of->page_limit)' \
	'(nxm_load_relaxed(&of->pages) < nxm_load_relaxed(&of->page_limit) ? nxm_fetch_add_relaxed(&of->pages, 1), true : (nxm_fetch_add_relaxed(&of->pages, 1), false))'

mutant "EMPTY pages of another class not looked for" check_space space.c \
	'unlisted = unlist_empty(space, node);' 'unlisted = 0;'
mutant "EMPTY pages below one in use not looked for" check_space space.c \
	'what == TOP_IN_USE && held == UINT32_MAX' 'false'
mutant "page above EMPTY ones not put back" check_space space.c \
	'			push_page(stack, held_desc, held);
		held' '			;
		held'
mutant "page above one that is in use again not put back" check_space space.c \
	'		push_page(stack, held_desc, held);
	return' '		;
	return'
mutant "all EMPTY pages taken off by one allocation" check_space space.c \
	'unlisted == MOST_UNLISTED &&' 'false &&'
mutant "free objects below EMPTY pages not looked for" check_space space.c \
	'(is_none || space->need_chunk >= 0)' 'true'
mutant "EMPTY pages not counted" check_space space.c \
	'nxm_fetch_add_relaxed(&node->nempty, 1);' ';'

# Counters.
mutant "add without a read-modify-write" check_counter counter.c \
	'nxm_fetch_add_relaxed(&stripe->value, (uint64_t) delta)' \
	'(nxm_store_relaxed(&stripe->value, (uint64_t) (old + delta)), (uint64_t) old)'
mutant "overflow not looked for" check_counter counter.c \
	'old >= SAFE_VALUE || old <= -SAFE_VALUE' 'false'
mutant "additions under way not waited for" check_counter counter.c \
	'return nxm_load(epoch) >= since + 2;' 'return true;'
mutant "additions under way waited for by one epoch" check_counter counter.c \
	'since + 2' 'since + 1'
mutant "fetch-and-add after its end" check_counter counter.c \
	'nxm_load_relaxed(&stripe->slow) != 0' 'false'
mutant "additions to a stripe not waited for" check_counter counter.c \
	'if (i == 0 && !may_be(space, stripe, value))' 'if (false)'
mutant "slow set without a fence" check_counter counter.c \
	'	nxm_fence();' ''
mutant "all additions to the first stripe" check_counter counter.c \
	'	stripe = nxm_at(space, counter->stripes[i]);' '	stripe = nxm_at(space, counter->stripes[0]);'
mutant "processes of a node on one stripe" check_counter counter.c \
	'((uint32_t) space->proc & (counter->per_node - 1)) * counter->nnodes' '0'
mutant "stripe of another node" check_counter counter.c \
	'nth = (uint32_t) node;' 'nth = (uint32_t) space->proc;'

# The stack.
mutant "relaxed publish of an item" check_stack stack.c \
	'while (!nxm_cas(&stack->top, &top,
					  ((top & ~NXM_REF_MASK) + DEPTH_ONE) | ref));' \
	'while (!check_cas(&stack->top, &top,
					  ((top & ~NXM_REF_MASK) + DEPTH_ONE) | ref, CHECK_RELAXED, CHECK_HERE));'
mutant "bytes of an item counted after it was published, stack" check_stack stack.c \
	'while (!nxm_cas(&stack->top, &top,
					  ((top & ~NXM_REF_MASK) + DEPTH_ONE) | ref));' \
	'while (({ size_t bytes = nxm_item_bytes(item);
		nxm_fetch_add_relaxed(&stack->bytes, -bytes);
		bool		pushed = nxm_cas(&stack->top, &top, ((top & ~NXM_REF_MASK) + DEPTH_ONE) | ref);
		nxm_fetch_add_relaxed(&stack->bytes, bytes);
		!pushed; }));'
mutant "deeper than depth can tell" check_stack stack.c \
	'if (top >> NXM_REF_BITS == MAX_DEPTH)' 'if (false)'
mutant "bytes of an item that found no room, stack" check_stack stack.c \
	'			nxm_fetch_add_relaxed(&stack->bytes, -nxm_item_bytes(item));
			nxm_item_free' '			nxm_item_free'
mutant "item that found no room kept, stack" check_stack stack.c \
	'			nxm_item_free(space, ref);' ''
mutant "relaxed second look at the top" check_stack stack.c \
	'again = nxm_load(&stack->top);' 'again = nxm_load_relaxed(&stack->top);'
mutant "no second look after the hazard, stack" check_stack stack.c \
	'if (again != top)' 'if (false)'
mutant "double pop" check_stack stack.c \
	'if (!nxm_cas(&stack->top, &top,
					 ((top & ~NXM_REF_MASK) - DEPTH_ONE) | link))' \
	'nxm_store(&stack->top, ((top & ~NXM_REF_MASK) - DEPTH_ONE) | link);
		if (false)'

# The queue.
mutant "relaxed publish of an item, queue" check_queue queue.c \
	'if (nxm_cas(NXM_ITEM_LINK(last), &link, ref))' \
	'if (check_cas(NXM_ITEM_LINK(last), &link, ref, CHECK_RELAXED, CHECK_HERE))'
mutant "relaxed load of a link" check_queue queue.c \
	'link = nxm_load(NXM_ITEM_LINK(dummy));' 'link = nxm_load_relaxed(NXM_ITEM_LINK(dummy));'
mutant "no second look after the first hazard, queue" check_queue queue.c \
	'nxm_protect(space, head & NXM_REF_MASK);
		if (nxm_load(&queue->head) != head)' 'nxm_protect(space, head & NXM_REF_MASK);
		if (false)'
mutant "no second look at tail" check_queue queue.c \
	'if (nxm_load(&queue->tail) != tail)' 'if (false)'
mutant "bytes of an item that found no room, queue" check_queue queue.c \
	'			nxm_fetch_add_relaxed(&queue->bytes, -bytes);
			nxm_item_free(space, ref);
			return nxm' '			nxm_item_free(space, ref);
			return nxm'
mutant "item that found no room kept, queue" check_queue queue.c \
	'			nxm_item_free(space, ref);
			return nxm' '			return nxm'
mutant "queue popped from in the middle of a drain" check_queue queue.c \
	'nxm_load_relaxed(&queue->dropped) != 0' 'false' 'dropped while in use'
mutant "dropped queue left with a long dummy" check_queue queue.c \
	'result == NXM_ABSENT && !last' 'false' 'dropped while in use'
mutant "length of the queue not looked at" check_queue queue.c \
	'>= MAX_LENGTH' '>= UINT64_MAX'
mutant "tag of the queue's head not compared" check_queue queue.c \
	'!nxm_cas(&queue->head, &head, advance(head, link))' \
	'({ uint64_t seen = nxm_load(&queue->head);
		((seen ^ head) & NXM_REF_MASK) != 0 || !nxm_cas(&queue->head, &seen, advance(seen, link)); })'
mutant "no tags in the queue" check_queue queue.c \
	'+ COUNT_ONE' ''
mutant "head passes tail" check_queue queue.c \
	'if (tail == head && link != 0)' 'if (false)'
mutant "no second look after the second hazard, queue" check_queue queue.c \
	'nxm_protect(space, link);
			if (nxm_load(&queue->head) != head)' 'nxm_protect(space, link);
			if (false)'
mutant "item read after it was published" check_queue queue.c \
	'NXM_PAUSE("linked");' '(void) nxm_item_bytes(nxm_at(space, ref));'
mutant "bytes of an item counted after it was published" check_queue queue.c \
	'		if (nxm_cas(NXM_ITEM_LINK(last), &link, ref))
		{' '		nxm_fetch_add_relaxed(&queue->bytes, -bytes);
		if (!nxm_cas(NXM_ITEM_LINK(last), &link, ref))
			nxm_fetch_add_relaxed(&queue->bytes, bytes);
		else
		{
			nxm_fetch_add_relaxed(&queue->bytes, bytes);'
mutant "length of a queue of two moments" check_queue queue.c \
	'if (length >= MAX_LENGTH)' 'if (nxm_queue_length(queue) >= MAX_LENGTH)'

mutant "stack popped from in the middle of a drain" check_stack stack.c \
	'nxm_load_relaxed(&stack->dropped) != 0' 'false' 'dropped while in use'

# The map.
mutant "UNINIT = EMPTY" check_map map_internal.h \
	'#define EMPTY			OPEN' '#define EMPTY UINT64_C(0)'
mutant "entries of a bucket that changed are given" check_map map.c \
	'			begin(context);
			return NXM_OK;' '			return NXM_OK;'
mutant "insert that commits without the version" check_map map.c \
	'	uint64_t	header = place->header;
	uint64_t	committed' '	uint64_t	header = nxm_load(&place->bucket->header);
	uint64_t	committed'
mutant "growth before the one before is over" check_map map_grow.c \
	'	if (place->parent != NULL && !has_migrated(place->parent))' \
	'	if ((header & H_OVERFLOW) != 0)
		return split(space, map, place);
	if (place->parent != NULL && !has_migrated(place->parent))'
mutant "inserts held up by a process before counting a bucket" check_map map_grow.c \
	'	if (!has_migrated(seg))
		nxm_store(&seg->migrated, n);' ''
mutant "pending not rechecked in completion" check_map map_grow.c \
	'		if (nxm_load(&place->bucket->header) != header)
			return;' ''
mutant "LIVE slot changed while pending" check_map map.c \
	'if (pending_slot(header) == found.number)' 'if (false)' \
	'schedules of inserts, deleted before they are complete'
mutant "insert made LIVE without CAS" check_map map.c \
	'(void) nxm_cas(at, &tentative, OPEN | tag | ref);' 'nxm_store(at, OPEN | tag | ref);'
mutant "value overwritten without CAS" check_map map.c \
	'if (!nxm_cas(found.slot, &found.word, OPEN | tag_of(position) | ref))' \
	'nxm_store(found.slot, OPEN | tag_of(position) | ref);
	if (false)'
mutant "slots not frozen in growth" check_map map_grow.c \
	'			if (nxm_cas(slot, &word, frozen))
				word = frozen;' '			word = frozen;'
mutant "growth not helped" check_map map.c \
	'if ((place->header & H_MIGRATED) == 0)' 'if (false)'
mutant "get that takes TENTATIVE and FROZEN for LIVE" check_map map_lookup.h \
	'if ((w & (STATE_MASK | TAG_MASK)) == (OPEN | tag) && (w & NXM_REF_MASK) != 0)' \
	'if ((w & TAG_MASK) == tag && (w & NXM_REF_MASK) != 0)'
mutant "gate of a migration not looked at" check_map map_grow.c \
	'			if ((nxm_load(&place.bucket->header) & H_MIGRATED) != 0)
				return NXM_OK;
			side' '			side'
mutant "no second look after the hazard, map" check_map map_lookup.h \
	'if (__builtin_expect(confirmed != *w, 0))' 'if (false)'
mutant "insert without a hazard" check_map map.c \
	'	nxm_protect(space, ref);
	if (!nxm_cas(at' '	if (!nxm_cas(at'
mutant "old segment freed at once" check_map map_grow.c \
	'	}
	nxm_map_retire(space, map, ref);
}

/* A segment' '	}
	nxm_map_free(space, map, ref);
}

/* A segment'
mutant "bucket with much in it read anew in the same section" check_map map.c \
	'tries == NXM_SCAN_TRIES || *seen > NXM_SCAN_BYTES' 'tries == NXM_SCAN_TRIES'
mutant "bucket not read anew in iteration" check_map map.c \
	'nxm_load(&place.bucket->header) == place.header &&
			!NXM_LACKS' '!NXM_LACKS'
mutant "cleared map drained before the new one is there" check_map map_drain.c \
	'	directory = nxm_load(&map->directory);
	do' '	directory = nxm_load(&map->directory);
	nxm_store(&map->dead, directory);
	do'
mutant "helping with growth forgets what the write is in need of" check_map map_grow.c \
	'	space->need_chunk = need_chunk;' ''
mutant "directory changed after it was cut off" check_map map_grow.c \
	'if (!nxm_cas(directory_entry(space, directory, from + i), &old, new))
			return false;' 'nxm_store(directory_entry(space, directory, from + i), new);'
mutant "drain that may lose what it retires" check_map map_drain.c \
	' ||
		!nxm_can_retire(space, directory_pages(depth) + 1)' ''
mutant "growth that may lose what it retires" check_map map_grow.c \
	' &&
		   nxm_can_retire(space, directory_pages(directory_depth(found.directory)) + 1)' ''
mutant "empty map cleared past the limit" check_map map_drain.c \
	'(*removed != 0 || nxm_load_relaxed(&map->memory) > GROWN_BYTES)' 'true'
mutant "large index not cleared past the limit" check_map map_drain.c \
	'(*removed != 0 || nxm_load_relaxed(&map->memory) > GROWN_BYTES)' '*removed != 0'
mutant "entries not cleared past the limit" check_map map_drain.c \
	'(*removed != 0 || nxm_load_relaxed(&map->memory) > GROWN_BYTES)' 'nxm_load_relaxed(&map->memory) > GROWN_BYTES'
mutant "entry drained while it may change" check_map map_drain.c \
	'nxm_fetch_or(entry, ENTRY_DEAD) | ENTRY_DEAD' 'nxm_load(entry)'
mutant "drain that begins where one of a body before ended" check_map map_drain.c \
	'(i & ~(SERIAL_ONE - 1)) == serial ?' 'true ?'
mutant "memory for a directory not asked for" check_map map_grow.c \
	'nxm_store_relaxed(&map->wanted, depth);' ';' 'a directory of several pages'
mutant "memory for a directory asked for when it is there" check_map map_grow.c \
	'depth != 0 && depth == directory_depth(nxm_load_relaxed(&map->directory)) + 1' 'depth != 0' \
	'a directory of several pages'
mutant "directory doubled after it was cut off" check_map map_grow.c \
	'if (!nxm_cas(&map->directory, &directory, doubled))' 'nxm_store(&map->directory, doubled);
	if (false)'

# The predictor.
mutant "entry written over what others have written" check_predictor predictor_table.c \
	'(void) nxm_cas(log_of(p) + position % p->log_size, &nothing, w)' \
	'nxm_store(log_of(p) + position % p->log_size, w)'
mutant "entry written after the head has passed" check_predictor predictor_table.c \
	'if (nxm_load_relaxed(&p->head) - position > p->log_size)
		return;' ''
mutant "cleared words of all turns alike" check_predictor predictor_table.c \
	'return position / p->log_size;' 'return (void) p, (void) position, 1;'
mutant "word not cleared where another one wrote" check_predictor predictor_table.c \
	'if (nxm_cas(word, &old, nothing_at(p, at)))' 'if (nxm_cas(word, &old, nothing_at(p, at)), true)'
mutant "word of a later turn cleared" check_predictor predictor_table.c \
	'while (nxm_load_relaxed(&p->head) - at <= p->log_size)' 'while (true)'
mutant "position read that is lost" check_predictor predictor_internal.h \
	'nxm_load_relaxed(&p->head) - position > p->log_size ||' ''
mutant "word of a later turn read without acquire" check_predictor predictor_internal.h \
	'nxm_load(log_of(p) + position % p->log_size)' 'nxm_load_relaxed(log_of(p) + position % p->log_size)'
mutant "score of an entry that was overwritten" check_predictor predictor_table.c \
	'if (nxm_cas(word, &w, used ? w + SCORE_ONE : w - SCORE_ONE))' \
	'if (nxm_store(word, used ? w + SCORE_ONE : w - SCORE_ONE), true)'
mutant "relation named without a second look at its generation" check_predictor predictor_table.c \
	'|| nxm_load(&r->generation) != before)' ')'
mutant "name free before the generation is over" check_predictor predictor_table.c \
	'	(void) nxm_fetch_add(&relation->generation, 1);
	name = GONE;
	(void) nxm_cas(&relation->name, &name, 0);' '	name = GONE;
	(void) nxm_cas(&relation->name, &name, 0);
	(void) nxm_fetch_add(&relation->generation, 1);'
mutant "generation read for a name that has gone" check_predictor predictor_table.c \
	'				if (nxm_load(&r->name) != name)
					return false;' ''

# The cache.
mutant "segment given back with a slot left" check_cache cache_evict.c \
	'	if (cursor == used)
	{' '	if (cursor > begin)
	{'
mutant "slot left where the bucket is frozen" check_cache cache_evict.c \
	'		if ((w & STATE_MASK) == FROZEN)
			return NXM_EXISTS;' ''
mutant "no second look after the hazard, cache" check_cache map_lookup.h \
	'if (__builtin_expect(confirmed != *w, 0))' 'if (false)'
mutant "segment given back without a look at the hazards" check_cache cache_evict.c \
	'if (nxm_page_is_read(space, nxm_ref_page(victim->page)))' 'if (false)'
mutant "no fence before the hazards of a page" check_cache space_reclaim.c \
	'they what was changed before */
	nxm_fence();
	while ((i = nxm_next_proc(space, &scan)) >= 0)
	{
		uint64_t	hazard' \
	'*/
	while ((i = nxm_next_proc(space, &scan)) >= 0)
	{
		uint64_t	hazard'
mutant "segment evicted before its items are in the index" check_cache cache_chain.c \
	'	if (DONE_COMMITTED(nxm_load(&segment->done)) != SEG_USED(word))
		return false;
	/* acquire: pairs with the store by who had it before; fails if it has ended */
	if (!nxm_cas(&segment->word, &word, word - state + SEG_EVICTING))
		return false;
	/* a room of it may have been taken since: see cache_recycle.c */
	if (DONE_COMMITTED(nxm_load(&segment->done)) != SEG_USED(word))' \
	'	if (!nxm_cas(&segment->word, &word, word - state + SEG_EVICTING))
		return false;
	if (false)'
mutant "lives of a segment not told apart" check_cache cache_evict.c \
	'(SEG_LIFE(victim->word) + 1) << SEG_LIFE_SHIFT' 'SEG_LIFE(victim->word) << SEG_LIFE_SHIFT'
mutant "segment evicted by two" check_cache cache_chain.c \
	'	if (!nxm_cas(&segment->word, &word, word - state + SEG_EVICTING))
		return false;' '	nxm_store(&segment->word, word - state + SEG_EVICTING);'
mutant "room given out twice" check_cache cache_segment.c \
	'if (nxm_cas(&segment->word, &word, word + units))' \
	'if (nxm_store(&segment->word, word + units), true)'
mutant "copy published over a newer item" check_cache cache_evict.c \
	'if (!nxm_cas(slot, &word, to))' 'if (nxm_store(slot, to), false)'
mutant "cleared index not waited for" check_cache cache_evict.c \
	'		if (nxm_load(&part->index.dead) != 0)
		{
			cursor = begin;' '		if (false)
		{
			cursor = begin;'
mutant "entries of a replaced index not counted as evicted" check_cache cache_evict.c \
	'	if (owner->evicts)' '	if (false)'
mutant "index not counted in what a cache uses" check_cache cache_segment.c \
	'	view->space->counted = &cache->used;' ''
mutant "limit of a cache looked at, and then added to" check_cache space.h \
	'while (!nxm_cas(counted, &before, before + bytes));' \
	'while (nxm_fetch_add(counted, bytes), false);'
mutant "deadline ignored on overwrite" check_cache cache.c \
	'nxm_cache_window(part, write->deadline, write->now, &scale, &due);' \
	'nxm_cache_window(part, old == NULL ? write->deadline : 0, write->now, &scale, &due);'
mutant "deadline not looked at" check_cache cache.c \
	'return *deadline <= view->now(view->env);' 'return false;'
mutant "copy in another window of deadlines" check_cache cache_evict.c \
	'due = nxm_load_relaxed(&victim->segment->due);' \
	'due = nxm_load_relaxed(&victim->segment->due) + (scale != 0) * (UINT64_C(1) << WINDOW_SHIFT(scale));'
mutant "age of the oldest segment by no segments" check_cache cache_chain.c \
	'small + main == 0 || ' ''
mutant "ghost counted twice" check_cache cache_ghost.c \
	'if (nxm_cas(&line[lane / 4], &word, word & ~(UINT64_C(0xFFFF) << shift)))' \
	'if (nxm_store(&line[lane / 4], word & ~(UINT64_C(0xFFFF) << shift)), true)'
mutant "fingerprint written over another" check_cache cache_ghost.c \
	'if (nxm_cas(&line[lane / 4], &word, (word & ~(UINT64_C(0xFFFF) << shift)) |
					(time << PRINT_BITS(ghost) | print_of(ghost, mixed)) << shift))' \
	'nxm_store(&line[lane / 4], (word & ~(UINT64_C(0xFFFF) << shift)) |
					(time << PRINT_BITS(ghost) | print_of(ghost, mixed)) << shift);
		if (true)' 'ghost'
mutant "long value read without a look at its slot" check_cache cache.c \
	'	return ((nxm_load(slot) ^ word) & ~FREQ_MASK) == 0 &&
		SEG_LIFE(nxm_load(&segment->word)) == life;' '	return true;'
mutant "long value freed with the item that it left" check_cache cache.c \
	'!moved || write->big == 0);' 'true);'
mutant "bytes of a long value counted after it was published" check_cache cache.c \
	'		if (nxm_map_insert(space, &place, slot, tag, write->room.ref))
		{' '		uint64_t	bytes = big_bytes(write->big);

		nxm_fetch_add_relaxed(&part->big, -bytes);
		if (!nxm_map_insert(space, &place, slot, tag, write->room.ref))
			nxm_fetch_add_relaxed(&part->big, bytes);
		else
		{
			nxm_fetch_add_relaxed(&part->big, bytes);'
mutant "room written again without a look at the hazards" check_cache space_reclaim.c \
	'named |= (uint64_t) (refs[r] == hazard) << r;' ';'
mutant "reads counted past what there is room for" check_cache cache.c \
	'if ((found.word & FREQ_MASK) != FREQ_MASK)' 'if (true)'
mutant "no fence before the hazards of rooms" check_cache space_reclaim.c \
	'	/* pairs with nxm_protect(): we see the hazard, or they what was changed before */
	nxm_fence();
	while ((i = nxm_next_proc(space, &scan)) >= 0)
	{
		/* acquire' '	while ((i = nxm_next_proc(space, &scan)) >= 0)
	{
		/* acquire' 'schedules of get and a room that others give and take'
mutant "block taken out that sparse segments are sought in" check_cache cache_chain.c \
	'		if (nxm_load_relaxed(&chain->sought) == ref)
			nxm_store_relaxed(&chain->sought, first);
' ''
mutant "block taken out that cleaning goes on behind" check_cache cache_chain.c \
	'		if (nxm_load_relaxed(&chain->cleaned) == ref)
			nxm_store_relaxed(&chain->cleaned, 0);
' '' 'a step of cleaning behind a block that goes'
mutant "names in a block that is due after them" check_cache cache_chain.c \
	'due = theirs < due ? theirs : due;' 'due = theirs;' \
	'names that go while a chain is cleaned by steps'
mutant "block taken out whose names are not written yet" check_cache cache_chain.c \
	'		else if (name == 0)
			return NXM_ABSENT;
' '' 'a name that is written while a chain is cleaned'
mutant "block with names that stay noted as empty" check_cache cache_chain.c \
	'n == NXM_CHAIN_ENTRIES && gone == n' 'n == NXM_CHAIN_ENTRIES && gone > 0' \
	'names that go while a chain is cleaned by steps'
mutant "block whose names are not written yet noted as empty" check_cache cache_chain.c \
	'gone += name != 0 && result == NXM_ABSENT;' 'gone++;' \
	'a name that is written while a chain is cleaned'
mutant "what has expired passed by for want of a place" check_cache cache_chain.c \
	'					claim(segment, name, word, SEG_SEALED, victim))
					return NXM_EXISTS;' '					true)
					return NXM_OK;' 'more has expired than there are places to note'
mutant "sparse segments sought without the lock" check_cache cache_chain.c \
	'	if (nxm_load_relaxed(&chain->lock) != 0 ||
		!nxm_cas(&chain->lock, &unlocked, (uint64_t) space->proc + 1))
		return NXM_ABSENT;
	ref =' '	(void) unlocked;
	ref =' 'sparse segments sought while chains are cleaned'
mutant "room written again in a segment that is evicted" check_cache cache_recycle.c \
	'if (!nxm_cas(&segment->word, &word, word))' 'if (false)'
mutant "segment evicted with a room taken meanwhile" check_cache cache_chain.c \
	'	if (DONE_COMMITTED(nxm_load(&segment->done)) != SEG_USED(word))
	{
		nxm_store(&segment->word, word);
		return false;
	}' ''
mutant "room written again behind who evicts" check_cache cache_recycle.c \
	'		if (nxm_load_relaxed(&segment->cursor) != HEAD_UNITS)
			break;
' ''
mutant "room of another life written again" check_cache cache_recycle.c \
	'gone = (SEG_LIFE(word) & ROOM_LIFE_MASK) != ROOM_LIFE(name) ||' 'gone ='
mutant "room looked at that others have, too" check_cache cache_recycle.c \
	'(names[i] != 0 && !nxm_cas(&list[i].name, &names[i], ROOM_BUSY)))
			names[i] = 0;
		refs[i] = ROOM_REF(names[i]);
	}
	read = nxm_hazards_on(space, refs, NXM_CACHE_ROOMS);
	for (int i = 0; i < NXM_CACHE_ROOMS; i++)
	{
		if (names[i] != 0)
			nxm_store(&list[i].name,
					  names[i] | ((read >> i & 1) == 0 ? ROOM_CLEAR : 0));' \
	'false)
			names[i] = 0;
		refs[i] = ROOM_REF(names[i]);
	}
	read = nxm_hazards_on(space, refs, NXM_CACHE_ROOMS);
	for (int i = 0; i < NXM_CACHE_ROOMS; i++)
	{
		if (names[i] != 0 && (read >> i & 1) == 0)
			(void) nxm_cas(&list[i].name, &names[i], names[i] | ROOM_CLEAR);'
mutant "room taken by two" check_cache cache_recycle.c \
	'if (!nxm_cas(&from->name, &name, 0) || gone)' 'if (nxm_store(&from->name, 0), gone)'
mutant "room that is not used never committed" check_cache cache_segment.c \
	'room->units * DEAD_ONE + room->units' 'room->units * DEAD_ONE'
mutant "extent given to a segment that is retired" check_cache map_grow.c \
	'nxm_fetch_or(&seg->extent[i], EXTENT_CLOSED)' 'nxm_load(&seg->extent[i])'
mutant "extent freed at once" check_cache map_grow.c \
	'nxm_retire_epoch(space, extent & NXM_REF_MASK);' 'nxm_free(space, extent & NXM_REF_MASK);'
mutant "extent given twice" check_cache map_grow.c \
	'	if (!nxm_cas(&seg->extent[number], &none, ref))
		nxm_map_free(space, map, ref);' '	nxm_store(&seg->extent[number], ref);'
mutant "more entries of a side than its successor has slots" check_cache map_lookup.h \
	'if (noverflows > 0 && nxm_map_side_is_full(place, tag))' 'if (false)'
mutant "overflow buckets of a header before" check_cache map_grow.c \
	'if (!nxm_map_find_overflows(space, &place, header))' \
	'if (place.overflow[0] == NULL && !nxm_map_find_overflows(space, &place, header))' 'crowded buckets'
mutant "held segment forgotten" check_cache cache_chain.c \
	'if (nxm_load_relaxed(&part->waiting) <= nheld)' 'if (true)'
mutant "cleaning that may lose what it retires" check_cache cache_chain.c \
	'	if (!nxm_can_retire(space, CHAIN_RUN))
		return NXM_NEED_CHUNK;
' ''
mutant "segment opened in a dropped cache" check_cache cache_segment.c \
	'		if (c == CELL_CLOSED)
			return NXM_DROPPED;
' '		if (c == CELL_CLOSED)
			c = 0;
'
mutant "bytes taken from the largest cache counted as given by the writer's" check_cache cache_evict.c \
	'nxm_cache_evict(view, other, theirs, units, reach)' 'nxm_cache_evict(view, cache, theirs, units, reach)' \
	'the largest cache gives way'
mutant "no room for a write where the largest cache was dropped" check_cache cache_evict.c \
	' && result != NXM_DROPPED' '' 'the largest cache gives way'
mutant "counts freed at once" check_cache cache_counts.c \
	'	nxm_retire_epoch(space, ref);
}

void' '	nxm_free(space, ref);
}

void'
mutant "counts of a dropped cache freed at once" check_cache cache_counts.c \
	'		nxm_cache_give(cache, BLOCK_BYTES);
		nxm_retire_epoch(space, ref);' '		nxm_cache_give(cache, BLOCK_BYTES);
		nxm_free(space, ref);' 'counts of a dropped cache'
mutant "block of counts made by two" check_cache cache_counts.c \
	'if (!nxm_cas(&part->counts[i], &wanted, ref))' 'if (nxm_store(&part->counts[i], ref), false)'
mutant "counts lost with their block" check_cache cache_counts.c \
	'nxm_fetch_add_relaxed(&to->counter[c],' '(void) (to,'
mutant "block of counts made in a dropped cache" check_cache cache_counts.c \
	'nxm_cas(&part->counts[i], &ref, COUNTS_CLOSED)' 'nxm_cas(&part->counts[i], &ref, ref > COUNTS_WANTED ? 0 : ref)' \
	'counts of a dropped cache'
mutant "ghost made in a dropped cache" check_cache cache_ghost.c \
	'	if (old == GHOST_CLOSED)
		return;' '' 'drop'
mutant "items of a batch looked at when they are loaded ahead" check_cache map_lookup.h \
	'__builtin_prefetch(base);' 'NXM_READS(base, 8);' \
	'all schedules of a batch and rooms that are written again'
mutant "values of a batch put over one another" check_cache cache_batch.c \
	'buffer->len += rest.len;' 'buffer->len = rest.len;' 'batches and few pages'
mutant "batch put behind the end of its buffer" check_cache cache_batch.c \
	'buffer->size - buffer->len' 'buffer->size' 'batches and few pages'
mutant "batch gone on with past a value that has no room" check_cache cache_batch.c \
	'		else if (answer->result != NXM_ABSENT)
			return answer->result;' '' 'batches and few pages'
mutant "batch that begins with its first key again" check_cache cache_batch.c \
	'	for (; *done < nkeys; ++*done)' '	for (*done = 0; *done < nkeys; ++*done)' \
	'batches and few pages'
mutant "entry of a chain not reserved" check_cache cache_chain.c \
	'uint64_t	i = nxm_fetch_add(&block->count, 1);' \
	'uint64_t	i = nxm_load(&block->count);

			nxm_store(&block->count, i + 1);'

# Flights.
mutant "no fence in nxm_flights_enter" check_flight flight.h \
	'sets sees us, or we what it changed
	 */
	nxm_fence();' '*/'
mutant "no fence in nxm_flights_before_delete" check_flight flight.h \
	'	/* what changed need not be of a commit; pairs with the one in nxm_flights_enter() */
	nxm_fence();' ''
mutant "no fence before a cache's flights are told" check_flight flight.h \
	'	/* pairs with the one in nxm_flights_enter(), as that in nxm_flights_before_delete() */
	nxm_fence();' ''
mutant "no fence in nxm_flights_tell" check_flight flight.h \
	'	/* pairs with the one in nxm_flights_outdated(); what was stored is found by it too */
	nxm_fence();' ''
mutant "no fence in nxm_flights_outdated" check_flight flight.h \
	'	/* pairs with the one in nxm_flights_tell(): one of the two sees what the other did */
	nxm_fence();' ''
mutant "not looked whether told after the store" check_flight flight.h \
	'	return nxm_flights_outdated(flights, watch);' '	return false;'
mutant "word of the key not looked at" check_flight flight.h \
	'nxm_load_relaxed(&slot->key) != NXM_FLIGHT_TAKEN(watch->hash)' 'false'
mutant "word of the cache not looked at" check_flight flight.h \
	'nxm_load_relaxed(&slot->cache) != NXM_FLIGHT_TAKEN(watch->cache_hash)' 'false'
mutant "flight of another key or cache told" check_flight flight.h \
	'if ((in & ~NXM_FLIGHT_TOLD) != NXM_FLIGHT_TAKEN(hash))' 'if (in == 0)'
mutant "told again and not counted" check_flight flight.h \
	'if ((in & ~NXM_FLIGHT_TOLD) != NXM_FLIGHT_TAKEN(hash))' 'if (in != NXM_FLIGHT_TAKEN(hash))'
mutant "flights without a slot not told" check_flight flight.h \
	'found = nxm_load_relaxed(&flights->slotless) != 0' 'found = false'
mutant "a process's own slot not tried" check_flight flight.h \
	'	nxm_flights_try_slot(flights, watch, proc % NXM_FLIGHT_OWN_SLOTS);' ''
mutant "a slot taken that is not free" check_flight flight.h \
	'nxm_cas(&slot->cache, &is_free, NXM_FLIGHT_TAKEN(watch->cache_hash))' \
	'(nxm_store(&slot->cache, NXM_FLIGHT_TAKEN(watch->cache_hash)), is_free == 0)'
mutant "flights without a slot taken for told" check_flight flight.h \
	'return nxm_flights_changed(flights, watch);' 'return true;'
mutant "counts watched without acquire" check_flight flight.h \
	'watch->key_told = nxm_load(' 'watch->key_told = nxm_load_relaxed('
mutant "flights looked at without acquire" check_flight flight.h \
	'return nxm_load(nxm_flights_word(flights->under_way, key_hash));' \
	'return nxm_load_relaxed(nxm_flights_word(flights->under_way, key_hash));'
mutant "several flights taken for one" check_flight flight.h \
	'(under_way & NXM_FLIGHT_COUNT) > 1' 'false'

wait
status=0
for i in "${!names[@]}"; do
	if grep -q '^found by' "$dir/$i.log"; then
		printf 'ok %d - check_mutants: %s\n' $((i + 1)) "${names[i]}"
		sed -n 's/^found by/# found by/p' "$dir/$i.log"
	else
		status=1
		printf 'not ok %d - check_mutants: %s\n' $((i + 1)) "${names[i]}"
		sed 's/^/# /' "$dir/$i.log"
	fi
done
echo "1..${#names[@]}"
exit $status

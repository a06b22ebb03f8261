// A balancer. The less busy of two instances taken at random wins; put your own policy into `pick`.
// meshwright/meshwright.h is the contract in C.

#include <stdlib.h>

#include "meshwright.h"

// The slots of a pool that may be picked.
typedef struct pool { struct pool *next; uint32_t id; size_t len; uint32_t slots[]; } pool;

// An instance of a plugin is never entered twice at a time, so that plain statics are enough.
static pool *pools;

mw_text metadata(void) { return mw_str("name = \"{{name}}\"\nversion = \"0.1.0\"\n"); }

// Called before anything below, with `{}` when nothing is configured. Any issue refuses it.
mw_issues configure(mw_text json) {
  static mw_issue there_are_none;
  if (mw_equal(json, "{}")) return (mw_issues){0};
  there_are_none.message = mw_str("This plugin has no settings.");
  return (mw_issues){&there_are_none, 1};
}

// What is wrong, if anything is: that keeps the plugin out.
mw_text self_test(void) { return mw_str(""); }

// Where the pool is told of, or the end of the list.
static pool **find(uint32_t id) {
  pool **at = &pools;
  while (*at != NULL && (*at)->id != id) at = &(*at)->next;
  return at;
}

static void forget(uint32_t id) {
  pool **at = find(id), *gone = *at;
  if (gone == NULL) return;
  *at = gone->next;
  free(gone);
}

static pool *begin(uint32_t id, size_t len_max) {
  forget(id);
  pool *made = malloc(sizeof *made + len_max * sizeof *made->slots);
  if (made == NULL) abort();
  *made = (pool){.next = pools, .id = id};
  return pools = made;
}

// The whole membership of a pool, before the first pick and after each change. No members: it is gone.
void on_pool(uint32_t id, mw_text service, const mw_member *members, size_t len) {
  if (len == 0) {
    forget(id);
    return;
  }
  pool *told = begin(id, len);
  for (size_t i = 0; i < len; i++) told->slots[told->len++] = members[i].slot;
}

// About once a second: a score of 0 means that the host will not route there now.
void on_load(uint32_t id, const mw_load *loads, size_t len) {
  pool *told = begin(id, len);
  for (size_t i = 0; i < len; i++) {
    if (loads[i].score > 0) told->slots[told->len++] = loads[i].slot;
  }
}

uint32_t pick(uint32_t id, uint64_t affinity, uint64_t random, uint64_t tried) {
  const pool *told = *find(id);
  if (told == NULL) return MW_NO_SLOT;
  uint32_t *free_slots = mw_scratch(told->len * sizeof *free_slots);
  size_t len = 0;
  for (size_t i = 0; i < told->len; i++) {
    uint32_t slot = told->slots[i];
    if (slot >= 64 || (tried >> slot & 1) == 0) free_slots[len++] = slot;
  }
  if (len == 0) return MW_NO_SLOT;
  uint32_t one = free_slots[random % len], other = free_slots[(random >> 32) % len];
  return mw_in_flight(id, other) < mw_in_flight(id, one) ? other : one;
}

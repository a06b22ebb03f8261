// What a balancer exports, beside meshwright.c.

#include "meshwright.h"

#define BALANCER "meshwright:plugin/balancer@0.1.0#"
#define LIVE "meshwright:plugin/live@0.1.0"

_Static_assert(sizeof(mw_member) == 40, "a member lies in memory as the host writes it");

MW_EXPORT(BALANCER "on-pool")
void mw_export_on_pool(uint32_t pool, const char *service, size_t service_len, const mw_member *members, size_t len) {
  on_pool(pool, (mw_text){service, service_len}, members, len);
  mw_forget();
}

MW_EXPORT(BALANCER "on-load") void mw_export_on_load(uint32_t pool, const mw_load *loads, size_t len) {
  on_load(pool, loads, len);
  mw_forget();
}

MW_EXPORT(BALANCER "pick")
uint32_t mw_export_pick(uint32_t pool, uint64_t affinity, uint64_t random, uint64_t tried) {
  uint32_t slot = pick(pool, affinity, random, tried);
  mw_forget();
  return slot;
}

MW_IMPORT(LIVE, "in-flight") uint32_t live_in_flight(uint32_t pool, uint32_t slot);
MW_IMPORT(LIVE, "ewma-us") uint32_t live_ewma_us(uint32_t pool, uint32_t slot);

uint32_t mw_in_flight(uint32_t pool, uint32_t slot) { return live_in_flight(pool, slot); }

uint32_t mw_ewma_us(uint32_t pool, uint32_t slot) { return live_ewma_us(pool, slot); }

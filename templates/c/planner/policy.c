// A planner. Each instance gets calls by its weight, less what fails; put your own policy into `compile`.
// meshwright/meshwright.h is the contract in C.

#include "meshwright.h"

// A plan outlives a few missed rounds.
#define TTL_MS 5000

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

static uint32_t failing_permille(uint32_t slot, const mw_load *loads, size_t len) {
  for (size_t i = 0; i < len; i++) {
    if (loads[i].slot == slot) return loads[i].errors_permille;
  }
  return 0;
}

// The host's own balancer follows the plan until the next one.
bool compile(mw_plan *plan, uint32_t pool, mw_text service, const mw_member *members, size_t members_len,
             const mw_load *loads, size_t loads_len) {
  if (members_len == 0) return false;
  uint32_t *weights = mw_scratch(members_len * sizeof *weights);
  for (size_t i = 0; i < members_len; i++) {
    weights[i] = members[i].weight * (1000 - failing_permille(members[i].slot, loads, loads_len)) / 1000;
  }
  *plan = (mw_plan){
      .strategy = MW_WEIGHTED,
      .weighted = {weights, members_len},
      .ttl_ms = TTL_MS,
      .why = mw_str("by weight and errors"),
  };
  return true;
}

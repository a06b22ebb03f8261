// An alerter. It warns about services with fewer than INSTANCES_MIN instances; put your own policy into `evaluate`.
// meshwright/meshwright.h is the contract in C.

#include "meshwright.h"

#define INSTANCES_MIN 2

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

// What the host has to bring along: the position in this list is a sample's `want`.
mw_wants wants(void) {
  static mw_want wanted = {.aggregate = MW_LAST, .window_s = 60};
  wanted.series = mw_str("meshwright_service_instances_available");
  return (mw_wants){&wanted, 1};
}

// Returns all that holds now, each time; the host remembers what it has already told.
mw_firings evaluate(uint64_t now_ms, const mw_sample *samples, size_t samples_len, const mw_event *events,
                    size_t events_len) {
  mw_firing *firings = mw_scratch(samples_len * sizeof *firings);
  size_t len = 0;
  for (size_t i = 0; i < samples_len; i++) {
    if (samples[i].value >= INSTANCES_MIN) continue;
    firings[len++] = (mw_firing){
        .rule = mw_str("few-instances"),
        .severity = MW_SEVERITY_WARNING,
        .labels = samples[i].labels,
        .title = mw_str("a service has few instances"),
        .detail = mw_print("%d available, %d wanted", (int)samples[i].value, INSTANCES_MIN),
        .value = samples[i].value,
        // A lower bound, since `resolve_at` is higher.
        .threshold = INSTANCES_MIN - 1,
        .resolve_at = INSTANCES_MIN,
    };
  }
  return (mw_firings){firings, len};
}

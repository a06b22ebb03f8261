// What an alerter exports, beside meshwright.c.

#include "meshwright.h"

#define ALERTER "meshwright:plugin/alerter@0.1.0#"

_Static_assert(sizeof(mw_sample) == 24 && sizeof(mw_event) == 40 && sizeof(mw_firing) == 72,
               "records lie in memory as the host writes and reads them");

MW_EXPORT(ALERTER "wants") const mw_wants *mw_export_wants(void) {
  static mw_wants wanted;
  wanted = wants();
  return &wanted;
}

MW_EXPORT("cabi_post_" ALERTER "wants") void mw_after_wants(const void *wanted) { mw_forget(); }

MW_EXPORT(ALERTER "evaluate")
const mw_firings *mw_export_evaluate(uint64_t now_ms, const mw_sample *samples, size_t samples_len,
                                     const mw_event *events, size_t events_len) {
  static mw_firings firing;
  firing = evaluate(now_ms, samples, samples_len, events, events_len);
  return &firing;
}

MW_EXPORT("cabi_post_" ALERTER "evaluate") void mw_after_evaluate(const void *firing) { mw_forget(); }

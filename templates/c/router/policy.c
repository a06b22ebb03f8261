// A router. It refuses the tools whose names begin with one of `refused`; put your own policy into `route`.
// meshwright/meshwright.h is the contract in C.

#include "meshwright.h"

static const char *const refused[] = {"delete_"};

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

// The services that exist, before the next decision when they changed.
void on_catalog(const mw_service *services, size_t len) {}

mw_decision route(const mw_call *call) {
  for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
    if (!mw_starts_with(call->tool, refused[i])) continue;
    return (mw_decision){
        .verdict = MW_REJECT,
        .reject.reason = mw_print("`%.*s` is refused", (int)call->tool.len, call->tool.ptr),
        .why = mw_str("refused by {{name}}"),
    };
  }
  return (mw_decision){.verdict = MW_PASS};
}

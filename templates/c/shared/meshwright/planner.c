// What a planner exports, beside meshwright.c.

#include "meshwright.h"

#define PLANNER "meshwright:plugin/planner@0.1.0#"

typedef struct { bool some; mw_plan plan; } planned;

_Static_assert(sizeof(planned) == 32, "a plan lies in memory as the host reads it");

MW_EXPORT(PLANNER "compile")
const planned *mw_export_compile(uint32_t pool, const char *service, size_t service_len, const mw_member *members,
                                 size_t members_len, const mw_load *loads, size_t loads_len) {
  static planned answer;
  answer = (planned){0};
  mw_text name = {service, service_len};
  answer.some = compile(&answer.plan, pool, name, members, members_len, loads, loads_len);
  return &answer;
}

MW_EXPORT("cabi_post_" PLANNER "compile") void mw_after_compile(const void *answer) { mw_forget(); }

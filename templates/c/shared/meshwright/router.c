// What a router exports, beside meshwright.c.

#include "meshwright.h"

#define CATALOG "meshwright:plugin/catalog@0.1.0#"
#define ROUTER "meshwright:plugin/router@0.1.0#"

_Static_assert(sizeof(mw_decision) == 80, "a decision lies in memory as the host reads it");

MW_EXPORT(CATALOG "on-catalog") void mw_export_on_catalog(const mw_service *services, size_t len) {
  on_catalog(services, len);
  mw_forget();
}

MW_EXPORT(ROUTER "route")
const mw_decision *mw_export_route(uint64_t id, uint64_t now_ms, uint64_t random, uint64_t affinity, const char *service,
                                   size_t service_len, const char *tool, size_t tool_len, const char *method,
                                   size_t method_len, const char *client, size_t client_len, uint32_t size,
                                   uint32_t deadline_ms) {
  static mw_decision decision;
  mw_call call = {
      .id = id,
      .now_ms = now_ms,
      .random = random,
      .affinity = affinity,
      .service = {service, service_len},
      .tool = {tool, tool_len},
      .method = {method, method_len},
      .client = {client, client_len},
      .size = size,
      .deadline_ms = deadline_ms,
  };
  decision = route(&call);
  return &decision;
}

MW_EXPORT("cabi_post_" ROUTER "route") void mw_after_route(const void *decision) { mw_forget(); }

MW_IMPORT("meshwright:plugin/arguments@0.1.0", "at")
void arguments_at(const char *pointer, size_t len, mw_optional_text *result);

bool mw_argument(mw_text pointer, mw_text *json) {
  mw_optional_text result;
  arguments_at(pointer.ptr, pointer.len, &result);
  if (result.some) *json = result.value;
  return result.some;
}

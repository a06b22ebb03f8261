// A router. It refuses the tools whose names begin with one of `refused`; put your own policy into `route`. `routing.h`
// is the contract in C, generated from `wit/plugin.wit`: this file implements what it declares as exported.

#include <stdlib.h>
#include <string.h>

#include "routing.h"

static const char *const refused[] = {"delete_"};

void exports_meshwright_plugin_lifecycle_metadata(routing_string_t *ret) {
  routing_string_dup(ret, "name = \"{{name}}\"\nversion = \"0.1.0\"\n");
}

// Called before anything below, with `{}` when nothing is configured. A list of issues refuses it.
bool exports_meshwright_plugin_lifecycle_configure(routing_string_t *config_json,
                                                   exports_meshwright_plugin_lifecycle_list_issue_t *err) {
  bool is_empty = config_json->len == 2 && memcmp(config_json->ptr, "{}", 2) == 0;
  routing_string_free(config_json);
  if (is_empty) return true;
  err->len = 1;
  err->ptr = malloc(sizeof *err->ptr);
  routing_string_dup(&err->ptr->path, "");
  routing_string_dup(&err->ptr->message, "This plugin has no settings.");
  return false;
}

// False, with a text in `err`, keeps the plugin out.
bool exports_meshwright_plugin_lifecycle_self_test(routing_string_t *err) { return true; }

// The services that exist, before the next decision when they changed.
void exports_meshwright_plugin_catalog_on_catalog(exports_meshwright_plugin_catalog_list_service_t *services) {
  exports_meshwright_plugin_catalog_list_service_free(services);
}

static bool is_refused(const routing_string_t *tool) {
  for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
    size_t len = strlen(refused[i]);
    if (tool->len >= len && memcmp(tool->ptr, refused[i], len) == 0) return true;
  }
  return false;
}

void exports_meshwright_plugin_router_route(exports_meshwright_plugin_router_call_t *call,
                                            exports_meshwright_plugin_router_decision_t *ret) {
  memset(ret, 0, sizeof *ret);
  if (is_refused(&call->tool)) {
    ret->verdict.tag = EXPORTS_MESHWRIGHT_PLUGIN_ROUTER_VERDICT_REJECT;
    routing_string_dup(&ret->verdict.val.reject.reason, "tools of this name are refused");
    routing_string_dup(&ret->why, "refused by {{name}}");
  } else {
    ret->verdict.tag = EXPORTS_MESHWRIGHT_PLUGIN_ROUTER_VERDICT_PASS;
  }
  exports_meshwright_plugin_router_call_free(call);
}

// A router that gives each client so many calls a minute. `routing.h` is the contract in C, generated from
// `wit/plugin.wit`; this file implements what it declares as exported.

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "routing.h"

#define MINUTE_MS 60000u
// The longest key that the host keeps, less what comes before the client's name.
#define CLIENT_BYTES_MAX 200

// An instance of a plugin is never entered twice at a time, so that plain statics are enough.
static uint32_t per_minute = 600;

static void say(routing_string_t *to, const char *text) { routing_string_dup(to, text); }

void exports_meshwright_plugin_lifecycle_metadata(routing_string_t *ret) {
  say(ret, "name = \"quota-router\"\nversion = \"0.1.0\"\nsummary = \"So many calls a minute for each client\"\n");
}

static void skip_blanks(const char **at) { *at += strspn(*at, " \t\r\n"); }

// `{}` or `{"per_minute": N}`: not worth a JSON library.
static bool read_settings(const char *at, uint32_t *limit) {
  skip_blanks(&at);
  if (*at++ != '{') return false;
  skip_blanks(&at);
  if (*at != '}') {
    static const char key[] = "\"per_minute\"";
    if (strncmp(at, key, sizeof key - 1) != 0) return false;
    at += sizeof key - 1;
    skip_blanks(&at);
    if (*at++ != ':') return false;
    skip_blanks(&at);
    if (*at < '0' || *at > '9') return false;
    char *end;
    unsigned long number = strtoul(at, &end, 10);
    if (number < 1 || number > 1000000) return false;
    *limit = (uint32_t)number;
    at = end;
    skip_blanks(&at);
  }
  return *at == '}';
}

bool exports_meshwright_plugin_lifecycle_configure(routing_string_t *config_json,
                                                   exports_meshwright_plugin_lifecycle_list_issue_t *err) {
  uint32_t limit = 600;
  char *text = strndup((const char *)config_json->ptr, config_json->len);
  bool good = text != NULL && read_settings(text, &limit);
  free(text);
  routing_string_free(config_json);
  if (good) {
    per_minute = limit;
    return true;
  }
  // What was in force stays in force.
  err->len = 1;
  err->ptr = malloc(sizeof *err->ptr);
  say(&err->ptr->path, "/per_minute");
  say(&err->ptr->message, "The one setting is `per_minute`, a number from 1 to 1000000.");
  return false;
}

bool exports_meshwright_plugin_lifecycle_self_test(routing_string_t *err) {
  uint32_t limit = 0;
  if (read_settings("{ \"per_minute\" : 7 }", &limit) && limit == 7 && !read_settings("{\"per\": 7}", &limit)) {
    return true;
  }
  say(err, "the settings are not read as they are written");
  return false;
}

void exports_meshwright_plugin_catalog_on_catalog(exports_meshwright_plugin_catalog_list_service_t *services) {
  // A quota does not depend on which services there are.
  exports_meshwright_plugin_catalog_list_service_free(services);
}

// Calls of this client in this minute, with this one. All instances of the plugin count together, and the host
// forgets the count when the minute is long over. Negative when the host keeps no more counts.
static int64_t count(const exports_meshwright_plugin_router_call_t *call) {
  char key[CLIENT_BYTES_MAX + 32];
  int client_bytes = call->client.len < CLIENT_BYTES_MAX ? (int)call->client.len : CLIENT_BYTES_MAX;
  int len = snprintf(key, sizeof key, "%llu/%.*s", (unsigned long long)(call->now_ms / MINUTE_MS), client_bytes,
                     (const char *)call->client.ptr);
  routing_string_t name = {(uint8_t *)key, (size_t)len};
  routing_string_t problem;
  int64_t sum;
  if (meshwright_plugin_kv_add(&name, 1, 2 * MINUTE_MS / 1000, &sum, &problem)) return sum;
  meshwright_plugin_log_emit(MESHWRIGHT_PLUGIN_LOG_LEVEL_WARN, &problem);
  routing_string_free(&problem);
  return -1;
}

void exports_meshwright_plugin_router_route(exports_meshwright_plugin_router_call_t *call,
                                            exports_meshwright_plugin_router_decision_t *ret) {
  memset(ret, 0, sizeof *ret);
  if (count(call) > (int64_t)per_minute) {
    char reason[64];
    snprintf(reason, sizeof reason, "more than %u calls in this minute", per_minute);
    ret->verdict.tag = EXPORTS_MESHWRIGHT_PLUGIN_ROUTER_VERDICT_REJECT;
    say(&ret->verdict.val.reject.reason, reason);
    ret->verdict.val.reject.retry_after_ms.is_some = true;
    ret->verdict.val.reject.retry_after_ms.val = MINUTE_MS - (uint32_t)(call->now_ms % MINUTE_MS);
    say(&ret->why, "over its quota");
  } else {
    ret->verdict.tag = EXPORTS_MESHWRIGHT_PLUGIN_ROUTER_VERDICT_PASS;
  }
  exports_meshwright_plugin_router_call_free(call);
}

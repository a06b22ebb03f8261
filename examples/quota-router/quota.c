// A router that gives each client so many calls a minute. `meshwright.h` is the contract in C.

#include <stdlib.h>
#include <string.h>

#include "meshwright.h"

#define MINUTE_MS 60000u
// The longest key that the host keeps, less what comes before the client's name.
#define CLIENT_BYTES_MAX 200

// An instance of a plugin is never entered twice at a time, so that plain statics are enough.
static uint32_t per_minute = 600;

mw_text metadata(void) {
  return mw_str("name = \"quota-router\"\nversion = \"0.1.0\"\nsummary = \"So many calls a minute for each client\"\n");
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

mw_issues configure(mw_text json) {
  static mw_issue not_understood;
  uint32_t limit = 600;
  if (read_settings(mw_zero_terminated(json), &limit)) {
    per_minute = limit;
    return (mw_issues){0};
  }
  not_understood.path = mw_str("/per_minute");
  not_understood.message = mw_str("The one setting is `per_minute`, a number from 1 to 1000000.");
  return (mw_issues){&not_understood, 1};
}

mw_text self_test(void) {
  uint32_t limit = 0;
  bool reads = read_settings("{ \"per_minute\" : 7 }", &limit) && limit == 7;
  bool refuses = !read_settings("{\"per\": 7}", &limit);
  return mw_str(reads && refuses ? "" : "the settings are not read as they are written");
}

// A quota does not depend on which services there are.
void on_catalog(const mw_service *services, size_t len) {}

// Calls of this client in this minute, with this one. All instances of the plugin count together, and the host
// forgets the count when the minute is long over. Negative when the host keeps no more counts.
static int64_t count(const mw_call *call) {
  unsigned long long minute = call->now_ms / MINUTE_MS;
  int client_bytes = call->client.len < CLIENT_BYTES_MAX ? (int)call->client.len : CLIENT_BYTES_MAX;
  mw_text key = mw_print("%llu/%.*s", minute, client_bytes, call->client.ptr);
  mw_text problem;
  int64_t sum;
  if (mw_kv_add(key, 1, 2 * MINUTE_MS / 1000, &sum, &problem)) return sum;
  mw_log(MW_WARN, problem);
  return -1;
}

mw_decision route(const mw_call *call) {
  if (count(call) <= (int64_t)per_minute) return (mw_decision){.verdict = MW_PASS};
  return (mw_decision){
      .verdict = MW_REJECT,
      .reject =
          {
              .reason = mw_print("more than %u calls in this minute", per_minute),
              .retry_after_ms = {true, MINUTE_MS - (uint32_t)(call->now_ms % MINUTE_MS)},
          },
      .why = mw_str("over its quota"),
  };
}

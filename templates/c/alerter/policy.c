// An alerter. It warns about services with fewer than INSTANCES_MIN instances; put your own policy into `evaluate`.
// `alerting.h` is the contract in C, generated from `wit/plugin.wit`: this file implements what it declares as
// exported.

#include <stdlib.h>
#include <string.h>

#include "alerting.h"

#define INSTANCES_MIN 2

void exports_meshwright_plugin_lifecycle_metadata(alerting_string_t *ret) {
  alerting_string_dup(ret, "name = \"{{name}}\"\nversion = \"0.1.0\"\n");
}

// Called before anything below, with `{}` when nothing is configured. A list of issues refuses it.
bool exports_meshwright_plugin_lifecycle_configure(alerting_string_t *config_json,
                                                   exports_meshwright_plugin_lifecycle_list_issue_t *err) {
  bool is_empty = config_json->len == 2 && memcmp(config_json->ptr, "{}", 2) == 0;
  alerting_string_free(config_json);
  if (is_empty) return true;
  err->len = 1;
  err->ptr = malloc(sizeof *err->ptr);
  alerting_string_dup(&err->ptr->path, "");
  alerting_string_dup(&err->ptr->message, "This plugin has no settings.");
  return false;
}

// False, with a text in `err`, keeps the plugin out.
bool exports_meshwright_plugin_lifecycle_self_test(alerting_string_t *err) { return true; }

// What the host has to bring along: the position in this list is a sample's `want`.
void exports_meshwright_plugin_alerter_wants(exports_meshwright_plugin_alerter_list_want_t *ret) {
  ret->len = 1;
  ret->ptr = malloc(sizeof *ret->ptr);
  alerting_string_dup(&ret->ptr->series, "meshwright_service_instances_available");
  ret->ptr->aggregate = EXPORTS_MESHWRIGHT_PLUGIN_ALERTER_AGGREGATE_LAST;
  ret->ptr->window_s = 60;
}

// Returns all that holds now, each time; the host remembers what it has already told.
void exports_meshwright_plugin_alerter_evaluate(uint64_t now_ms,
                                                exports_meshwright_plugin_alerter_list_sample_t *samples,
                                                exports_meshwright_plugin_alerter_list_event_t *events,
                                                exports_meshwright_plugin_alerter_list_firing_t *ret) {
  ret->len = 0;
  ret->ptr = samples->len > 0 ? malloc(samples->len * sizeof *ret->ptr) : NULL;
  for (size_t i = 0; i < samples->len; i++) {
    exports_meshwright_plugin_alerter_sample_t *sample = &samples->ptr[i];
    if (sample->value >= INSTANCES_MIN) continue;
    exports_meshwright_plugin_alerter_firing_t *firing = &ret->ptr[ret->len++];
    alerting_string_dup(&firing->rule, "few-instances");
    firing->severity = MESHWRIGHT_PLUGIN_TYPES_SEVERITY_WARNING;
    // Taken from the sample, which must not free them then.
    firing->labels = sample->labels;
    memset(&sample->labels, 0, sizeof sample->labels);
    alerting_string_dup(&firing->title, "a service has few instances");
    alerting_string_dup(&firing->detail, "");
    firing->value = sample->value;
    // A lower bound, since `resolve_at` is higher.
    firing->threshold = INSTANCES_MIN - 1;
    firing->for_s = 0;
    firing->resolve_at = INSTANCES_MIN;
  }
  exports_meshwright_plugin_alerter_list_sample_free(samples);
  exports_meshwright_plugin_alerter_list_event_free(events);
}

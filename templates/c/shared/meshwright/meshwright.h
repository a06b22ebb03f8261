// The contract of wit/plugin.wit in C. A plugin defines what is said under its kind, and is built with meshwright.c
// and the file of its kind. The canonical ABI lays records out as C does, so that they cross as they are.
//
// Whatever a function is handed, and what mw_print and mw_scratch make, is gone once the host has read the answer:
// copy what is to stay. Nothing is to be freed.

#ifndef MESHWRIGHT_H
#define MESHWRIGHT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// UTF-8, without a zero at its end.
typedef struct { const char *ptr; size_t len; } mw_text;
typedef struct { const mw_text *ptr; size_t len; } mw_texts;
// An option is absent while its `some` is false.
typedef struct { bool some; mw_text value; } mw_optional_text;
typedef struct { bool some; uint32_t value; } mw_optional_u32;

mw_text mw_str(const char *zero_terminated);
__attribute__((format(printf, 1, 2))) mw_text mw_print(const char *format, ...);
void *mw_scratch(size_t bytes);
bool mw_equal(mw_text text, const char *other);
bool mw_starts_with(mw_text text, const char *beginning);
const char *mw_zero_terminated(mw_text text);

// What every plugin defines.
// `path` is a JSON pointer into the configuration; empty for the whole.
typedef struct { mw_text path, message; } mw_issue;
typedef struct { const mw_issue *ptr; size_t len; } mw_issues;

mw_text metadata(void);
// With `{}` when nothing is configured. Any issue refuses it, and then what was in force must stay in force.
mw_issues configure(mw_text json);
// What is wrong, which keeps the plugin out; an empty text when nothing is.
mw_text self_test(void);

// What every plugin may ask of the host.
typedef enum { MW_DEBUG, MW_INFO, MW_WARN, MW_ERROR } mw_level;

void mw_log(mw_level level, mw_text message);
// State that the host keeps. False when there is none of that key, or when the host refuses it; `problem` is why.
bool mw_kv_get(mw_text key, mw_text *value);
bool mw_kv_set(mw_text key, mw_text value, uint32_t ttl_s, mw_text *problem);
bool mw_kv_add(mw_text key, int64_t delta, uint32_t ttl_s, int64_t *sum, mw_text *problem);

// A router, with router.c, defines on_catalog and route.
typedef struct { mw_text name; mw_texts tags, tools; uint32_t instances, healthy; } mw_service;

typedef struct {
  uint64_t id, now_ms, random, affinity;
  mw_text service, tool, method, client;
  uint32_t size, deadline_ms;
} mw_call;

typedef struct { mw_text service; uint16_t permille; bool any_tool; } mw_mirror;
typedef struct {
  mw_text service;
  mw_optional_text tag, tool;
  mw_optional_u32 timeout_ms;
  struct { bool some; mw_mirror value; } mirror;
} mw_target;
typedef struct { mw_text reason; mw_optional_u32 retry_after_ms; } mw_refusal;

enum { MW_PASS, MW_FORWARD, MW_REJECT };
enum { MW_VARY_TOOL = 1, MW_VARY_CLIENT = 2, MW_VARY_AFFINITY = 4, MW_VARY_SIZE = 8 };

// All zeros pass.
typedef struct {
  uint8_t verdict;
  union { mw_target forward; mw_refusal reject; };
  mw_text why;
  struct { bool some; struct { uint32_t ttl_ms; uint8_t vary; } value; } reuse;
} mw_decision;

void on_catalog(const mw_service *services, size_t len);
mw_decision route(const mw_call *call);
// The JSON text at a pointer into the call's arguments; needs the grant `arguments`.
bool mw_argument(mw_text pointer, mw_text *json);

// A balancer, with balancer.c, defines on_pool, on_load and pick.
typedef struct { uint32_t slot; mw_text instance, node, zone; uint16_t weight; mw_texts tags; } mw_member;
typedef struct { uint32_t slot, in_flight, ewma_us; uint16_t errors_permille; uint8_t score; } mw_load;

// "Leave it to the next."
#define MW_NO_SLOT UINT32_MAX

void on_pool(uint32_t pool, mw_text service, const mw_member *members, size_t len);
void on_load(uint32_t pool, const mw_load *loads, size_t len);
uint32_t pick(uint32_t pool, uint64_t affinity, uint64_t random, uint64_t tried);
uint32_t mw_in_flight(uint32_t pool, uint32_t slot);
uint32_t mw_ewma_us(uint32_t pool, uint32_t slot);

// A planner, with planner.c, defines compile.
typedef struct { const uint32_t *ptr; size_t len; } mw_numbers;
typedef struct { uint32_t share; float price; bool first; } mw_choice;
typedef struct { uint64_t point; uint32_t slot; } mw_point;

enum { MW_WEIGHTED, MW_TWO_CHOICES, MW_RING, MW_TIERS };

typedef struct {
  uint8_t strategy;
  union {
    mw_numbers weighted;
    struct { const mw_choice *ptr; size_t len; uint32_t failure_us; } two_choices;
    struct { const mw_point *ptr; size_t len; } ring;
    struct { const mw_numbers *ptr; size_t len; } tiers;
  };
  uint32_t ttl_ms;
  mw_text why;
} mw_plan;

// False leaves the pool to the next.
bool compile(mw_plan *plan, uint32_t pool, mw_text service, const mw_member *members, size_t members_len,
             const mw_load *loads, size_t loads_len);

// An alerter, with alerter.c, defines wants and evaluate.
enum { MW_LAST, MW_MIN, MW_MAX, MW_MEAN, MW_P50, MW_P95, MW_P99, MW_RATE, MW_COUNT, MW_SLOPE };
enum { MW_SEVERITY_INFO, MW_SEVERITY_WARNING, MW_SEVERITY_ERROR, MW_SEVERITY_CRITICAL };

typedef struct { mw_text name, value; } mw_label;
typedef struct { const mw_label *ptr; size_t len; } mw_labels;
typedef struct { mw_text series; uint8_t aggregate; uint32_t window_s; } mw_want;
typedef struct { const mw_want *ptr; size_t len; } mw_wants;
// `want` is a position in the list of wants.
typedef struct { uint32_t want; mw_labels labels; double value; } mw_sample;
typedef struct { uint64_t at_ms; mw_text kind, service, instance, detail; } mw_event;
// An upper bound while `resolve_at` is not above `threshold`, and else a lower bound.
typedef struct {
  mw_text rule;
  uint8_t severity;
  mw_labels labels;
  mw_text title, detail;
  double value, threshold;
  uint32_t for_s;
  double resolve_at;
} mw_firing;
typedef struct { const mw_firing *ptr; size_t len; } mw_firings;

mw_wants wants(void);
mw_firings evaluate(uint64_t now_ms, const mw_sample *samples, size_t samples_len, const mw_event *events,
                    size_t events_len);

// For the files of the kinds.
#define MW_EXPORT(name) __attribute__((export_name(name)))
#define MW_IMPORT(module, name) __attribute__((import_module(module), import_name(name)))
void mw_forget(void);

#endif

// What plugins of every kind have: memory of one call, texts, the interface `lifecycle`, the log and `kv`.

#include "meshwright.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// What was handed out in this call, to be freed together. An instance of a plugin is never entered twice at a time.
typedef union block { union block *before; max_align_t align; } block;
static block *blocks;

void *mw_scratch(size_t bytes) {
  block *made = malloc(sizeof *made + bytes);
  // There is no way on without memory; the host takes another instance.
  if (made == NULL) abort();
  made->before = blocks;
  blocks = made;
  return made + 1;
}

void mw_forget(void) {
  while (blocks != NULL) {
    block *before = blocks->before;
    free(blocks);
    blocks = before;
  }
}

// The host asks for memory here, for arguments and for results of what is imported.
MW_EXPORT("cabi_realloc") void *mw_realloc(void *old, size_t old_len, size_t align, size_t len) {
  if (len == 0) return (void *)align;
  void *made = mw_scratch(len);
  if (old_len > 0) memcpy(made, old, old_len < len ? old_len : len);
  return made;
}

mw_text mw_str(const char *zero_terminated) { return (mw_text){zero_terminated, strlen(zero_terminated)}; }

mw_text mw_print(const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  int len = vsnprintf(NULL, 0, format, arguments);
  va_end(arguments);
  if (len < 0) abort();
  char *text = mw_scratch((size_t)len + 1);
  va_start(arguments, format);
  vsnprintf(text, (size_t)len + 1, format, arguments);
  va_end(arguments);
  return (mw_text){text, (size_t)len};
}

bool mw_equal(mw_text text, const char *other) { return text.len == strlen(other) && mw_starts_with(text, other); }

bool mw_starts_with(mw_text text, const char *beginning) {
  size_t len = strlen(beginning);
  return text.len >= len && memcmp(text.ptr, beginning, len) == 0;
}

const char *mw_zero_terminated(mw_text text) {
  char *copy = mw_scratch(text.len + 1);
  memcpy(copy, text.ptr, text.len);
  copy[text.len] = 0;
  return copy;
}

#define LIFECYCLE "meshwright:plugin/lifecycle@0.1.0#"

MW_EXPORT(LIFECYCLE "metadata") const mw_text *mw_export_metadata(void) {
  static mw_text said;
  said = metadata();
  return &said;
}

MW_EXPORT("cabi_post_" LIFECYCLE "metadata") void mw_after_metadata(const void *said) { mw_forget(); }

typedef struct { bool failed; mw_issues issues; } configured;

MW_EXPORT(LIFECYCLE "configure") const configured *mw_export_configure(const char *ptr, size_t len) {
  static configured result;
  mw_issues issues = configure((mw_text){ptr, len});
  result = (configured){issues.len > 0, issues};
  return &result;
}

MW_EXPORT("cabi_post_" LIFECYCLE "configure") void mw_after_configure(const void *result) { mw_forget(); }

// A result without a value, or with a text for what is wrong.
typedef struct { bool failed; mw_text problem; } tried;

MW_EXPORT(LIFECYCLE "self-test") const tried *mw_export_self_test(void) {
  static tried result;
  mw_text problem = self_test();
  result = (tried){problem.len > 0, problem};
  return &result;
}

MW_EXPORT("cabi_post_" LIFECYCLE "self-test") void mw_after_self_test(const void *result) { mw_forget(); }

MW_IMPORT("meshwright:plugin/log@0.1.0", "emit") void log_emit(int32_t level, const char *ptr, size_t len);

void mw_log(mw_level level, mw_text message) { log_emit((int32_t)level, message.ptr, message.len); }

#define KV "meshwright:plugin/kv@0.1.0"

MW_IMPORT(KV, "get") void kv_get(const char *key, size_t key_len, mw_optional_text *result);
MW_IMPORT(KV, "set")
void kv_set(const char *key, size_t key_len, const char *value, size_t value_len, uint32_t ttl_s, tried *result);

typedef struct { bool failed; union { int64_t sum; mw_text problem; }; } added;
MW_IMPORT(KV, "add") void kv_add(const char *key, size_t key_len, int64_t delta, uint32_t ttl_s, added *result);

bool mw_kv_get(mw_text key, mw_text *value) {
  mw_optional_text result;
  kv_get(key.ptr, key.len, &result);
  if (result.some) *value = result.value;
  return result.some;
}

bool mw_kv_set(mw_text key, mw_text value, uint32_t ttl_s, mw_text *problem) {
  tried result;
  kv_set(key.ptr, key.len, value.ptr, value.len, ttl_s, &result);
  if (result.failed) *problem = result.problem;
  return !result.failed;
}

bool mw_kv_add(mw_text key, int64_t delta, uint32_t ttl_s, int64_t *sum, mw_text *problem) {
  added result;
  kv_add(key.ptr, key.len, delta, ttl_s, &result);
  if (result.failed) {
    *problem = result.problem;
  } else {
    *sum = result.sum;
  }
  return !result.failed;
}

#include <memory>

#include "c/c_arguments.hpp"
#include "c/c_error.hpp"

struct dlbridge_plan {
  dlbridge::Plan decided;
  dlbridge::Explanation words;
};

using namespace dlbridge::detail;  // NOLINT(google-build-using-namespace): C has no namespaces

dlbridge_status dlbridge_plan_make(const dlbridge_source* source,
                                   const dlbridge_capabilities* target,
                                   const dlbridge_policy* policy, const dlbridge_request* request,
                                   dlbridge_plan** out, dlbridge_error** error) {
  return give(out, error, [&] {
    const Call call(target, policy, request);
    const ReadSource read(source);
    auto made = std::make_unique<dlbridge_plan>();
    made->decided = plan(read.source, call.target, call.policy, call.request);
    made->words = explain(made->decided, read.source, call.target, call.policy, call.request,
                          dlbridge::Dialect::kC);
    return made.release();
  });
}

int32_t dlbridge_plan_is_refused(const dlbridge_plan* plan) {
  return plan != nullptr && plan->decided.is_refused() ? 1 : 0;
}

int32_t dlbridge_plan_is_view(const dlbridge_plan* plan) {
  return plan != nullptr && plan->decided.view ? 1 : 0;
}

int32_t dlbridge_plan_is_writable(const dlbridge_plan* plan) {
  return plan != nullptr && plan->decided.writable ? 1 : 0;
}

int64_t dlbridge_plan_bytes_copied(const dlbridge_plan* plan) {
  return plan == nullptr ? 0 : plan->decided.bytes_copied;
}

size_t dlbridge_plan_step_count(const dlbridge_plan* plan) {
  return plan == nullptr ? 0 : plan->words.steps.size();
}

const char* dlbridge_plan_step(const dlbridge_plan* plan, size_t index) {
  return plan == nullptr ? nullptr : text_at(plan->words.steps, index);
}

size_t dlbridge_plan_reason_count(const dlbridge_plan* plan) {
  return plan == nullptr ? 0 : plan->words.reasons.size();
}

const char* dlbridge_plan_reason(const dlbridge_plan* plan, size_t index) {
  return plan == nullptr ? nullptr : text_at(plan->words.reasons, index);
}

size_t dlbridge_plan_note_count(const dlbridge_plan* plan) {
  return plan == nullptr ? 0 : plan->words.notes.size();
}

const char* dlbridge_plan_note(const dlbridge_plan* plan, size_t index) {
  return plan == nullptr ? nullptr : text_at(plan->words.notes, index);
}

const char* dlbridge_plan_message(const dlbridge_plan* plan) {
  return plan == nullptr ? nullptr : text_or_null(plan->words.message);
}

const char* dlbridge_plan_fix(const dlbridge_plan* plan) {
  return plan == nullptr ? nullptr : text_or_null(plan->words.fix);
}

void dlbridge_plan_free(dlbridge_plan* plan) {
  delete plan;
}

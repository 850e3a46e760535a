#include "dlbridge/dlbridge.h"

namespace {

constexpr uint32_t kVersion = DLBRIDGE_ABI_MAJOR << 16 | DLBRIDGE_ABI_MINOR;

constexpr dlbridge_api kApi = {
    .struct_size = sizeof(dlbridge_api),
    .abi_version = kVersion,
    .reserved = 0,
    .error_status = dlbridge_error_status,
    .error_message = dlbridge_error_message,
    .error_reason_count = dlbridge_error_reason_count,
    .error_reason = dlbridge_error_reason,
    .error_fix = dlbridge_error_fix,
    .error_free = dlbridge_error_free,
    .error_make = dlbridge_error_make,
    .to_managed = dlbridge_to_managed,
    .convert = dlbridge_convert,
    .own = dlbridge_own,
    .allocate = dlbridge_allocate,
    .share = dlbridge_share,
    .from_legacy = dlbridge_from_legacy,
    .to_legacy = dlbridge_to_legacy,
    .plan_make = dlbridge_plan_make,
    .plan_is_refused = dlbridge_plan_is_refused,
    .plan_is_view = dlbridge_plan_is_view,
    .plan_is_writable = dlbridge_plan_is_writable,
    .plan_bytes_copied = dlbridge_plan_bytes_copied,
    .plan_step_count = dlbridge_plan_step_count,
    .plan_step = dlbridge_plan_step,
    .plan_reason_count = dlbridge_plan_reason_count,
    .plan_reason = dlbridge_plan_reason,
    .plan_note_count = dlbridge_plan_note_count,
    .plan_note = dlbridge_plan_note,
    .plan_message = dlbridge_plan_message,
    .plan_fix = dlbridge_plan_fix,
    .plan_free = dlbridge_plan_free,
};

}  // namespace

uint32_t dlbridge_abi_version(void) {
  return kVersion;
}

const dlbridge_api* dlbridge_get_api(uint32_t major) {
  return major == DLBRIDGE_ABI_MAJOR ? &kApi : nullptr;
}

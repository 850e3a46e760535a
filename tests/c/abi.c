/* Prints where every member of the C interface's structs lies, and the numbers that it fixes: what
 * a compiled program relies on. check_abi.cmake holds it against the record. */

#include <dlbridge/dlbridge.h>
#include <stdio.h>

#define STRUCT(type) printf("struct %s: %u bytes\n", #type, (unsigned)sizeof(type))
#define MEMBER(type, member)                                                   \
  printf("  %s: at %u, %u bytes\n", #member, (unsigned)offsetof(type, member), \
         (unsigned)sizeof(((type*)0)->member))
#define NUMBER(name) printf("%s = %d\n", #name, (int)name)

int main(void) {
  NUMBER(DLBRIDGE_ABI_MAJOR);
  NUMBER(DLBRIDGE_ABI_MINOR);
  NUMBER(DLBRIDGE_OK);
  NUMBER(DLBRIDGE_REFUSED);
  NUMBER(DLBRIDGE_MALFORMED);
  NUMBER(DLBRIDGE_NO_MEMORY);
  NUMBER(DLBRIDGE_DEVICE);
  NUMBER(DLBRIDGE_USAGE);
  NUMBER(DLBRIDGE_INTERNAL);
  STRUCT(dlbridge_policy);
  MEMBER(dlbridge_policy, struct_size);
  MEMBER(dlbridge_policy, preset);
  MEMBER(dlbridge_policy, grad);
  MEMBER(dlbridge_policy, bits);
  MEMBER(dlbridge_policy, device);
  MEMBER(dlbridge_policy, layout);
  MEMBER(dlbridge_policy, dtype);
  MEMBER(dlbridge_policy, readonly);
  MEMBER(dlbridge_policy, mutable_);
  MEMBER(dlbridge_policy, overlap);
  MEMBER(dlbridge_policy, copy);
  STRUCT(dlbridge_request);
  MEMBER(dlbridge_request, struct_size);
  MEMBER(dlbridge_request, dtype);
  MEMBER(dlbridge_request, device);
  MEMBER(dlbridge_request, c_order);
  MEMBER(dlbridge_request, writable);
  MEMBER(dlbridge_request, warning);
  STRUCT(dlbridge_capabilities);
  MEMBER(dlbridge_capabilities, struct_size);
  MEMBER(dlbridge_capabilities, name);
  MEMBER(dlbridge_capabilities, devices);
  MEMBER(dlbridge_capabilities, dtypes);
  MEMBER(dlbridge_capabilities, strides);
  MEMBER(dlbridge_capabilities, read_only);
  MEMBER(dlbridge_capabilities, alignment);
  MEMBER(dlbridge_capabilities, min_dimensions);
  MEMBER(dlbridge_capabilities, max_dimensions);
  MEMBER(dlbridge_capabilities, reads_unaligned);
  MEMBER(dlbridge_capabilities, never_writable);
  MEMBER(dlbridge_capabilities, takes_as_constant);
  MEMBER(dlbridge_capabilities, guards_overlap);
  MEMBER(dlbridge_capabilities, carries_padding);
  MEMBER(dlbridge_capabilities, reserved);
  STRUCT(dlbridge_library);
  MEMBER(dlbridge_library, struct_size);
  MEMBER(dlbridge_library, name);
  MEMBER(dlbridge_library, object);
  MEMBER(dlbridge_library, fixes);
  STRUCT(dlbridge_lease);
  MEMBER(dlbridge_lease, context);
  MEMBER(dlbridge_lease, release);
  STRUCT(dlbridge_leg);
  MEMBER(dlbridge_leg, struct_size);
  MEMBER(dlbridge_leg, device);
  MEMBER(dlbridge_leg, steps);
  STRUCT(dlbridge_source);
  MEMBER(dlbridge_source, struct_size);
  MEMBER(dlbridge_source, library);
  MEMBER(dlbridge_source, tensor);
  MEMBER(dlbridge_source, flags);
  MEMBER(dlbridge_source, conditions);
  MEMBER(dlbridge_source, byte_strides);
  MEMBER(dlbridge_source, detail);
  MEMBER(dlbridge_source, stream);
  MEMBER(dlbridge_source, context);
  MEMBER(dlbridge_source, acquire);
  MEMBER(dlbridge_source, prepare);
  MEMBER(dlbridge_source, copies_to_host);
  MEMBER(dlbridge_source, copies_there);
  STRUCT(dlbridge_api);
  MEMBER(dlbridge_api, struct_size);
  MEMBER(dlbridge_api, abi_version);
  MEMBER(dlbridge_api, reserved);
  MEMBER(dlbridge_api, error_status);
  MEMBER(dlbridge_api, error_message);
  MEMBER(dlbridge_api, error_reason_count);
  MEMBER(dlbridge_api, error_reason);
  MEMBER(dlbridge_api, error_fix);
  MEMBER(dlbridge_api, error_free);
  MEMBER(dlbridge_api, error_make);
  MEMBER(dlbridge_api, to_managed);
  MEMBER(dlbridge_api, convert);
  MEMBER(dlbridge_api, own);
  MEMBER(dlbridge_api, allocate);
  MEMBER(dlbridge_api, share);
  MEMBER(dlbridge_api, from_legacy);
  MEMBER(dlbridge_api, to_legacy);
  MEMBER(dlbridge_api, plan_make);
  MEMBER(dlbridge_api, plan_is_refused);
  MEMBER(dlbridge_api, plan_is_view);
  MEMBER(dlbridge_api, plan_is_writable);
  MEMBER(dlbridge_api, plan_bytes_copied);
  MEMBER(dlbridge_api, plan_step_count);
  MEMBER(dlbridge_api, plan_step);
  MEMBER(dlbridge_api, plan_reason_count);
  MEMBER(dlbridge_api, plan_reason);
  MEMBER(dlbridge_api, plan_note_count);
  MEMBER(dlbridge_api, plan_note);
  MEMBER(dlbridge_api, plan_message);
  MEMBER(dlbridge_api, plan_fix);
  MEMBER(dlbridge_api, plan_free);
  return 0;
}

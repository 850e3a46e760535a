/* dlbridge for C, and for whatever speaks C: tensors of any library as DLPack's own struct, under
 * one policy. C99; it needs DLPack's header (1.3 or a later 1.x) and nothing else.
 *
 * Rules of every function here:
 *  - It returns a status. On any but DLBRIDGE_OK its outputs are NULL, and `error`, unless the
 *    caller gave NULL for it, says what was met, why, and what would work; dlbridge_error_free()
 *    ends it. On DLBRIDGE_OK `*error` is NULL. There is no "last error".
 *  - No C++ exception leaves it. One that a callback throws comes back as DLBRIDGE_INTERNAL.
 *  - A tensor that it gives is released by the struct's own deleter, once, on any thread.
 *  - Structs that callers fill begin with `struct_size`, which is their sizeof. All other members
 *    may be zero, which is always the default, but for those that are called required.
 *  - Vocabulary is text, as Python writes it; a list of texts ends with NULL. What the library does
 *    not know is DLBRIDGE_USAGE, with the words that it knows.
 *  - What is given to it is borrowed for the call and not changed, unless it says otherwise.
 *  - It may be called on any thread. One plan or error may be read by several threads at once. */
#ifndef DLBRIDGE_DLBRIDGE_H_
#define DLBRIDGE_DLBRIDGE_H_

#include <dlpack/dlpack.h>
#include <stddef.h>
#include <stdint.h>

#if !defined(DLPACK_MAJOR_VERSION) || DLPACK_MAJOR_VERSION != 1 || DLPACK_MINOR_VERSION < 3
#error "dlbridge needs DLPack 1.3 or a later 1.x: another dlpack/dlpack.h comes first in the path"
#endif

/* A new major version breaks programs; a new minor one only adds, at the end of structs too. */
#define DLBRIDGE_ABI_MAJOR 1
#define DLBRIDGE_ABI_MINOR 0

#if defined(DLBRIDGE_EXPORT) /* empty, where the functions stay inside of what they are built into \
                              */
#elif defined(_WIN32)
#define DLBRIDGE_EXPORT
#else
#define DLBRIDGE_EXPORT __attribute__((visibility("default")))
#endif

#ifdef __cplusplus
extern "C" {
#endif

typedef int32_t dlbridge_status;
enum {
  DLBRIDGE_OK = 0,
  DLBRIDGE_REFUSED = 1,   /* the policy does not allow it, or nothing could do it */
  DLBRIDGE_MALFORMED = 2, /* a tensor breaks a rule of DLPack */
  DLBRIDGE_NO_MEMORY = 3,
  DLBRIDGE_DEVICE = 4,  /* a device failed */
  DLBRIDGE_USAGE = 5,   /* an argument is wrong */
  DLBRIDGE_INTERNAL = 6 /* none of these: a fault of dlbridge, or a callback that threw */
};

/* --- errors ----------------------------------------------------------------------------------- */

typedef struct dlbridge_error dlbridge_error;

/* Of NULL: DLBRIDGE_OK, NULL and 0. Texts live as long as the error. */
DLBRIDGE_EXPORT dlbridge_status dlbridge_error_status(const dlbridge_error* error);
DLBRIDGE_EXPORT const char* dlbridge_error_message(const dlbridge_error* error);
/* One for each condition that refused. NULL from `index` == count on. */
DLBRIDGE_EXPORT size_t dlbridge_error_reason_count(const dlbridge_error* error);
DLBRIDGE_EXPORT const char* dlbridge_error_reason(const dlbridge_error* error, size_t index);
/* The call that would work; NULL where nothing is known to. */
DLBRIDGE_EXPORT const char* dlbridge_error_fix(const dlbridge_error* error);
DLBRIDGE_EXPORT void dlbridge_error_free(dlbridge_error* error);
/* An error of a callback's own, which the caller of the conversion gets. Never NULL. */
DLBRIDGE_EXPORT dlbridge_error* dlbridge_error_make(dlbridge_status status, const char* message);

/* --- what callers fill ------------------------------------------------------------------------ */

/* What a conversion may do. NULL for the struct is the preset "host". */
typedef struct dlbridge_policy {
  size_t struct_size;
  const char* preset; /* "host", "strict", "zero_copy" or "snapshot" */
  /* Each stands over the preset's. */
  const char* grad;
  const char* bits;
  const char* device;
  const char* layout;
  const char* dtype;
  const char* readonly;
  const char* mutable_; /* C++ has taken the word */
  const char* overlap;
  const char* copy; /* "when_needed", "never" or "always" */
} dlbridge_policy;

/* What the caller asks for beside the policy. */
typedef struct dlbridge_request {
  size_t struct_size;
  const char* dtype;    /* "float32", or another name of DLPack's; NULL: the source's own */
  const char* device;   /* "cpu", "cuda:1"; NULL: where the source is, or where the target reads */
  int32_t c_order;      /* the result is to be C-contiguous */
  int32_t writable;     /* the result is to be written to, and nobody else is harmed by it */
  const char** warning; /* set to NULL, or to what a cast met: "invalid" (NaN or a number out of
                           range became some integer), "overflow" (a number became infinity) */
} dlbridge_request;

/* What the taker of a tensor can take. NULL for the struct is everything that DLPack can carry. */
typedef struct dlbridge_capabilities {
  size_t struct_size;
  const char* name;           /* for messages: "my_image" */
  const char* const* devices; /* where it reads memory: "cuda", ..., or "any". NULL: the host, which
                                 what lies elsewhere is brought to. "cpu" is all that the host can
                                 read, pinned and managed memory too */
  const char* const* dtypes;  /* NULL: all */
  const char* strides;        /* "any", "non-negative" or "compact" (C-contiguous memory only) */
  const char* read_only;      /* what it does with memory that nobody may write to: "unaware" (it
                                 would write), "honours", or "never" (it cannot be told) */
  int64_t alignment;          /* bytes, a power of two, where it needs more than the type's own */
  int32_t min_dimensions;
  int32_t max_dimensions;    /* 0: 64, which is the most */
  int32_t reads_unaligned;   /* it reads an element at any address */
  int32_t never_writable;    /* nobody can write to its objects */
  int32_t takes_as_constant; /* it computes as if nobody wrote to the memory any more */
  int32_t guards_overlap;    /* it refuses by itself to write where elements share memory */
  int32_t carries_padding;   /* it reads elements below a byte that are padded to bytes */
  int32_t reserved;          /* zero */
} dlbridge_capabilities;

/* How a library speaks of its tensors in messages. */
typedef struct dlbridge_library {
  size_t struct_size;
  const char* name;         /* "my_image" */
  const char* object;       /* "my_image_t" */
  const char* const* fixes; /* pairs of a condition and the call that takes it away, with `x` for
                               the object: {"read_only", "my_image_copy(x)", NULL}. 20 at most */
} dlbridge_library;

/* --- a library's tensor on its way out -------------------------------------------------------- */

/* What keeps memory valid: `release(context)` is called once, on any thread. It must not block,
 * and must not call back into the holder of a lock; what it throws is dropped. Where nothing has to
 * be given back, it is a function that does nothing: NULL is taken for a mistake. */
typedef struct dlbridge_lease {
  void* context;
  void (*release)(void* context); /* required */
} dlbridge_lease;

/* A part of the way that only the source's library can do. */
typedef struct dlbridge_leg {
  size_t struct_size;
  DLDevice device;          /* where it ends; a device's memory is ordered on its default stream */
  const char* const* steps; /* "densify", "copy to host", "resolve conj", ...; ends with NULL */
} dlbridge_leg;

/* A view of the source's memory is about to be handed over. Sets `lease` to what keeps the memory
 * whatever becomes of the object; may correct `data`, which holds the tensor's.
 * On another status than DLBRIDGE_OK nothing was taken and `lease` is not looked at; `error`, which
 * is never NULL, may then be set by dlbridge_error_make(). */
typedef dlbridge_status (*dlbridge_acquire)(void* context, void** data, dlbridge_lease* lease,
                                            dlbridge_error** error);

/* Gives in `out` a new tensor that nobody else has, which the steps were done to: of the source's
 * shape and dtype, writable, where the leg ends. Failures are as above. */
typedef dlbridge_status (*dlbridge_prepare)(void* context, const dlbridge_leg* leg,
                                            DLManagedTensorVersioned** out, dlbridge_error** error);

/* A tensor as its library sees it. All of it is borrowed for the call. */
typedef struct dlbridge_source {
  size_t struct_size;
  const dlbridge_library* library; /* NULL: "tensor" */
  const DLTensor* tensor;          /* required. Memory that is copied is read during the call. It
                                      may be NULL in `data` where a condition says that there is no
                                      memory to be read */
  uint64_t flags;                  /* DLPack's, as DLPACK_FLAG_BITMASK_READ_ONLY */
  const char* const* conditions;   /* "in_graph", "conj_bit", "sparse", "meta", ...: what DLPack
                                      cannot say of it */
  const int64_t* byte_strides;     /* required with the condition "fractional_strides" */
  const char* detail;       /* what a message adds, as the name of a type that DLPack lacks */
  void* stream;             /* that work on a device's memory is on; NULL: the default one */
  void* context;            /* of the two callbacks */
  dlbridge_acquire acquire; /* required by dlbridge_to_managed() */
  dlbridge_prepare prepare; /* where the library can do what is named next, or "densify" */
  int32_t copies_to_host;   /* it can bring its memory to the host */
  int32_t copies_there;     /* it can copy its memory where it is */
} dlbridge_source;

/* The source as a tensor that `target` can take, under `policy`. The result keeps its memory by
 * itself. On failure nothing was taken. `target`, `policy` and `request` may be NULL. */
DLBRIDGE_EXPORT dlbridge_status dlbridge_to_managed(const dlbridge_source* source,
                                                    const dlbridge_capabilities* target,
                                                    const dlbridge_policy* policy,
                                                    const dlbridge_request* request,
                                                    DLManagedTensorVersioned** out,
                                                    dlbridge_error** error);

/* --- tensors that are there ------------------------------------------------------------------- */

/* Any library's tensor as one that `target` can take, under `policy`: the same memory where that is
 * right, otherwise a copy or a refusal. `tensor` is taken in every case: its deleter runs once, now
 * or when the result ends. `library` is how messages speak of it; NULL: "DLPack tensor". */
DLBRIDGE_EXPORT dlbridge_status dlbridge_convert(
    DLManagedTensorVersioned* tensor, const dlbridge_library* library,
    const dlbridge_capabilities* target, const dlbridge_policy* policy,
    const dlbridge_request* request, DLManagedTensorVersioned** out, dlbridge_error** error);

/* The caller's memory as a tensor; shape and strides are copied. `flags` are DLPack's. The lease is
 * taken in every case: where this fails it is given back before the return. */
DLBRIDGE_EXPORT dlbridge_status dlbridge_own(const DLTensor* tensor, uint64_t flags,
                                             const dlbridge_lease* lease,
                                             DLManagedTensorVersioned** out,
                                             dlbridge_error** error);

/* New host memory: 64-byte aligned, C-contiguous, writable, not initialised. `shape` has `ndim`
 * sizes; elements below a byte, as of "int4", are packed. */
DLBRIDGE_EXPORT dlbridge_status dlbridge_allocate(const char* dtype, int32_t ndim,
                                                  const int64_t* shape,
                                                  DLManagedTensorVersioned** out,
                                                  dlbridge_error** error);

/* Another tensor of the same memory, which lives until the last of them ends. `tensor` stays with
 * its caller and must be one that dlbridge gave; dlbridge_convert() makes one of any other. */
DLBRIDGE_EXPORT dlbridge_status dlbridge_share(const DLManagedTensorVersioned* tensor,
                                               DLManagedTensorVersioned** out,
                                               dlbridge_error** error);

/* The struct that DLPack had before 1.0, taken in every case. It cannot say whether its memory may
 * be written to: read-only, unless the caller knows that `writable` is so. */
DLBRIDGE_EXPORT dlbridge_status dlbridge_from_legacy(DLManagedTensor* tensor, int32_t writable,
                                                     DLManagedTensorVersioned** out,
                                                     dlbridge_error** error);

/* And to it: `tensor` is taken in every case. Read-only memory is refused unless `policy` (NULL:
 * "host") copies it, since the struct could not say so. */
DLBRIDGE_EXPORT dlbridge_status dlbridge_to_legacy(DLManagedTensorVersioned* tensor,
                                                   const dlbridge_policy* policy,
                                                   DLManagedTensor** out, dlbridge_error** error);

/* --- plans: looking before leaping ------------------------------------------------------------ */

typedef struct dlbridge_plan dlbridge_plan;

/* What dlbridge_to_managed() would do, or why it would refuse, which is a plan as well. Takes
 * nothing, calls no callback and reads no element. Of a managed tensor `m`, what dlbridge_convert()
 * would do: {.tensor = &m->dl_tensor, .flags = m->flags}. */
DLBRIDGE_EXPORT dlbridge_status dlbridge_plan_make(const dlbridge_source* source,
                                                   const dlbridge_capabilities* target,
                                                   const dlbridge_policy* policy,
                                                   const dlbridge_request* request,
                                                   dlbridge_plan** out, dlbridge_error** error);
/* Of NULL: 0 and NULL. Texts live as long as the plan. Lists give NULL from `index` == count on. */
DLBRIDGE_EXPORT int32_t dlbridge_plan_is_refused(const dlbridge_plan* plan);
DLBRIDGE_EXPORT int32_t dlbridge_plan_is_view(const dlbridge_plan* plan);
DLBRIDGE_EXPORT int32_t dlbridge_plan_is_writable(const dlbridge_plan* plan);
DLBRIDGE_EXPORT int64_t dlbridge_plan_bytes_copied(const dlbridge_plan* plan);
/* What is done on the way, in its order: "detach", "repack", "cast", ... */
DLBRIDGE_EXPORT size_t dlbridge_plan_step_count(const dlbridge_plan* plan);
DLBRIDGE_EXPORT const char* dlbridge_plan_step(const dlbridge_plan* plan, size_t index);
/* Why: one for each condition that was met, or, of a refusal, that refuses. */
DLBRIDGE_EXPORT size_t dlbridge_plan_reason_count(const dlbridge_plan* plan);
DLBRIDGE_EXPORT const char* dlbridge_plan_reason(const dlbridge_plan* plan, size_t index);
/* Who else carries a part of it, and what the taker of a view should know. */
DLBRIDGE_EXPORT size_t dlbridge_plan_note_count(const dlbridge_plan* plan);
DLBRIDGE_EXPORT const char* dlbridge_plan_note(const dlbridge_plan* plan, size_t index);
/* Of a refusal: one sentence, and the call that would work. Otherwise NULL. */
DLBRIDGE_EXPORT const char* dlbridge_plan_message(const dlbridge_plan* plan);
DLBRIDGE_EXPORT const char* dlbridge_plan_fix(const dlbridge_plan* plan);
DLBRIDGE_EXPORT void dlbridge_plan_free(dlbridge_plan* plan);

/* --- versions, and all of it as one table ----------------------------------------------------- */

/* DLBRIDGE_ABI_MAJOR << 16 | DLBRIDGE_ABI_MINOR of the library that runs. */
DLBRIDGE_EXPORT uint32_t dlbridge_abi_version(void);

/* Every function, for those that open the library while they run. A later minor version has more
 * of them at the end: `struct_size` says how many there are. */
typedef struct dlbridge_api {
  size_t struct_size;
  uint32_t abi_version;
  uint32_t reserved;
  dlbridge_status (*error_status)(const dlbridge_error*);
  const char* (*error_message)(const dlbridge_error*);
  size_t (*error_reason_count)(const dlbridge_error*);
  const char* (*error_reason)(const dlbridge_error*, size_t);
  const char* (*error_fix)(const dlbridge_error*);
  void (*error_free)(dlbridge_error*);
  dlbridge_error* (*error_make)(dlbridge_status, const char*);
  dlbridge_status (*to_managed)(const dlbridge_source*, const dlbridge_capabilities*,
                                const dlbridge_policy*, const dlbridge_request*,
                                DLManagedTensorVersioned**, dlbridge_error**);
  dlbridge_status (*convert)(DLManagedTensorVersioned*, const dlbridge_library*,
                             const dlbridge_capabilities*, const dlbridge_policy*,
                             const dlbridge_request*, DLManagedTensorVersioned**, dlbridge_error**);
  dlbridge_status (*own)(const DLTensor*, uint64_t, const dlbridge_lease*,
                         DLManagedTensorVersioned**, dlbridge_error**);
  dlbridge_status (*allocate)(const char*, int32_t, const int64_t*, DLManagedTensorVersioned**,
                              dlbridge_error**);
  dlbridge_status (*share)(const DLManagedTensorVersioned*, DLManagedTensorVersioned**,
                           dlbridge_error**);
  dlbridge_status (*from_legacy)(DLManagedTensor*, int32_t, DLManagedTensorVersioned**,
                                 dlbridge_error**);
  dlbridge_status (*to_legacy)(DLManagedTensorVersioned*, const dlbridge_policy*, DLManagedTensor**,
                               dlbridge_error**);
  dlbridge_status (*plan_make)(const dlbridge_source*, const dlbridge_capabilities*,
                               const dlbridge_policy*, const dlbridge_request*, dlbridge_plan**,
                               dlbridge_error**);
  int32_t (*plan_is_refused)(const dlbridge_plan*);
  int32_t (*plan_is_view)(const dlbridge_plan*);
  int32_t (*plan_is_writable)(const dlbridge_plan*);
  int64_t (*plan_bytes_copied)(const dlbridge_plan*);
  size_t (*plan_step_count)(const dlbridge_plan*);
  const char* (*plan_step)(const dlbridge_plan*, size_t);
  size_t (*plan_reason_count)(const dlbridge_plan*);
  const char* (*plan_reason)(const dlbridge_plan*, size_t);
  size_t (*plan_note_count)(const dlbridge_plan*);
  const char* (*plan_note)(const dlbridge_plan*, size_t);
  const char* (*plan_message)(const dlbridge_plan*);
  const char* (*plan_fix)(const dlbridge_plan*);
  void (*plan_free)(dlbridge_plan*);
} dlbridge_api;

/* The table, which lives as long as the program; NULL for a major version that is not this one. */
DLBRIDGE_EXPORT const dlbridge_api* dlbridge_get_api(uint32_t major);

#ifdef __cplusplus
}
#endif

#endif /* DLBRIDGE_DLBRIDGE_H_ */

/* A library of images in C: its pixels go out as tensors, and other libraries' tensors come in. */

#include <dlbridge/dlbridge.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Eight-bit greyscale, counted by whoever holds it. Its rows may be padded to whole words. */
typedef struct image {
  int64_t shape[2];
  int64_t strides[2];
  int frozen; /* nobody may write to it */
  int holders;
  unsigned char pixels[];
} image;

static int images_alive = 0;

static image* image_new(int64_t height, int64_t width, int64_t row) {
  image* made = malloc(sizeof(image) + (size_t)(height * row));
  if (made == NULL) {
    exit(2);
  }
  made->shape[0] = height;
  made->shape[1] = width;
  made->strides[0] = row;
  made->strides[1] = 1;
  made->frozen = 0;
  made->holders = 1;
  memset(made->pixels, 0, (size_t)(height * row));
  ++images_alive;
  return made;
}

static void image_drop(void* held) {
  image* self = held;
  if (--self->holders == 0) {
    --images_alive;
    free(self);
  }
}

/* What keeps the pixels while a tensor shows them, whatever becomes of the image. */
static dlbridge_status image_acquire(void* context, void** data, dlbridge_lease* lease,
                                     dlbridge_error** error) {
  image* self = context;
  (void)data; /* they lie where the tensor said */
  (void)error;
  ++self->holders;
  lease->context = self;
  lease->release = image_drop;
  return DLBRIDGE_OK;
}

/* How its users speak, for the messages. */
static const char* const kFixes[] = {"read_only", "image_copy(x)", NULL};
static const dlbridge_library kLibrary = {sizeof(dlbridge_library), "images", "struct image",
                                          kFixes};

/* What others' tensors have to be to become images: bytes on the host, in C order. */
static const char* const kTypes[] = {"uint8", NULL};
static dlbridge_capabilities image_capabilities(void) {
  const dlbridge_capabilities can = {.struct_size = sizeof can,
                                     .name = "images",
                                     .dtypes = kTypes,
                                     .strides = "compact",
                                     .min_dimensions = 2,
                                     .max_dimensions = 2};
  return can;
}

static dlbridge_status image_export(image* self, const dlbridge_capabilities* target,
                                    const dlbridge_policy* policy, DLManagedTensorVersioned** out,
                                    dlbridge_error** error) {
  const DLTensor tensor = {.data = self->pixels,
                           .device = {.device_type = kDLCPU},
                           .ndim = 2,
                           .dtype = {.code = kDLUInt, .bits = 8, .lanes = 1},
                           .shape = self->shape,
                           .strides = self->strides};
  const dlbridge_source source = {.struct_size = sizeof source,
                                  .library = &kLibrary,
                                  .tensor = &tensor,
                                  .flags = self->frozen ? DLPACK_FLAG_BITMASK_READ_ONLY : 0,
                                  .context = self,
                                  .acquire = image_acquire};
  return dlbridge_to_managed(&source, target, policy, NULL, out, error);
}

static void check(int holds, const char* what) {
  if (!holds) {
    fprintf(stderr, "failed: %s\n", what);
    exit(1);
  }
}

int main(void) {
  const dlbridge_capabilities images = image_capabilities();
  DLManagedTensorVersioned* tensor = NULL;
  DLManagedTensorVersioned* packed = NULL;
  dlbridge_error* error = NULL;
  const dlbridge_policy zero_copy = {.struct_size = sizeof zero_copy, .preset = "zero_copy"};
  image* picture = image_new(2, 3, 8);
  picture->pixels[8] = 7;

  /* Out: one memory, for anybody who takes DLPack. */
  check(image_export(picture, NULL, NULL, &tensor, &error) == DLBRIDGE_OK, "the export");
  check(tensor->dl_tensor.data == picture->pixels, "it is a view");
  image_drop(picture); /* the tensor keeps the pixels */
  check(images_alive == 1, "they are kept");

  /* In: rows with gaps are not what images take, so this is a copy. The tensor is taken. */
  check(dlbridge_convert(tensor, NULL, &images, NULL, NULL, &packed, &error) == DLBRIDGE_OK,
        "the way back");
  check(images_alive == 0, "the pixels are given back");
  check(((unsigned char*)packed->dl_tensor.data)[3] == 7, "the second row follows the first");
  packed->deleter(packed);

  /* And where the policy forbids what it would take: why, and what would work. */
  picture = image_new(2, 3, 3);
  picture->frozen = 1;
  check(image_export(picture, &images, &zero_copy, &tensor, &error) == DLBRIDGE_REFUSED,
        "read-only memory is refused to one that would write");
  check(tensor == NULL, "no tensor");
  printf("%s\n", dlbridge_error_message(error));
  dlbridge_error_free(error);
  image_drop(picture);
  check(images_alive == 0, "nothing was taken");
  return 0;
}

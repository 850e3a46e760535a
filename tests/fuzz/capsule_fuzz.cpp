// Managed tensors of both kinds with anything in them, through every door of ManagedTensor: refused
// exactly where a slow second opinion refuses them, never read further than they reach, and their
// deleter called exactly once.

#include <cstddef>
#include <cstring>
#include <memory>
#include <optional>
#include <vector>

#include "dlbridge/error.hpp"
#include "dlbridge/managed_tensor.hpp"
#include "fuzz.hpp"

namespace dlbridge::fuzz {
namespace {

// Wide enough that nothing here overflows in it: at most 64 dimensions are looked at.
using Wide = __int128;

constexpr Wide kMost = INT64_MAX;

struct Parts {
  bool versioned = true;
  DLPackVersion version = kVersion;
  std::uint64_t flags = 0;
  DLTensor tensor{};
  std::unique_ptr<std::int64_t[]> shape;    // as long as ndim says where that makes sense, so
  std::unique_ptr<std::int64_t[]> strides;  // that one step further is a finding
  bool has_deleter = true;
};

std::int64_t any_number(FuzzedDataProvider& bytes) {
  constexpr std::int64_t kEdges[] = {-1,
                                     0,
                                     INT64_MAX,
                                     INT64_MIN,
                                     std::int64_t{1} << 31,
                                     std::int64_t{1} << 32,
                                     std::int64_t{1} << 61,
                                     std::int64_t{1} << 62};
  switch (bytes.ConsumeIntegralInRange(0, 5)) {
    case 0:
      return one_of(bytes, kEdges);
    case 1:
      return bytes.ConsumeIntegral<std::int64_t>();
    default:
      return bytes.ConsumeIntegralInRange<std::int64_t>(-2, 9);
  }
}

std::unique_ptr<std::int64_t[]> any_numbers(FuzzedDataProvider& bytes, std::int32_t count) {
  const bool readable = count >= 0 && count <= kMaxDimensions;
  const auto length = readable ? static_cast<std::size_t>(count) : std::size_t{0};
  auto numbers = std::make_unique<std::int64_t[]>(length);
  for (std::size_t i = 0; i < length; ++i) {
    numbers[i] = any_number(bytes);
  }
  return numbers;
}

Parts any_parts(FuzzedDataProvider& bytes) {
  Parts parts;
  parts.versioned = bytes.ConsumeBool();
  if (bytes.ConsumeIntegralInRange(0, 15) == 0) {
    parts.version = {bytes.ConsumeIntegral<std::uint32_t>(),
                     bytes.ConsumeIntegral<std::uint32_t>()};
  }
  parts.flags = bytes.ConsumeIntegralInRange(0, 7) == 0 ? bytes.ConsumeIntegral<std::uint64_t>()
                                                        : bytes.ConsumeIntegralInRange(0, 7);
  DLTensor& t = parts.tensor;
  t.ndim = bytes.ConsumeIntegralInRange(0, 15) == 0
               ? bytes.ConsumeIntegral<std::int32_t>()
               : bytes.ConsumeIntegralInRange(0, bytes.ConsumeBool() ? 4 : 66);
  t.dtype = any_dtype(bytes).dl();
  t.device = {static_cast<DLDeviceType>(bytes.ConsumeIntegralInRange(0, 7) == 0
                                            ? bytes.ConsumeIntegral<std::int32_t>()
                                            : bytes.ConsumeIntegralInRange(0, 19)),
              bytes.ConsumeIntegral<std::int32_t>()};
  if (bytes.ConsumeIntegralInRange(0, 15) != 0) {
    parts.shape = any_numbers(bytes, t.ndim);
  }
  if (bytes.ConsumeBool()) {
    parts.strides = any_numbers(bytes, t.ndim);
  }
  t.shape = parts.shape.get();
  t.strides = parts.strides.get();
  const int place = bytes.ConsumeIntegralInRange(0, 7);
  t.data = reinterpret_cast<void*>(place == 0   ? std::uintptr_t{0}
                                   : place == 1 ? bytes.ConsumeIntegral<std::uintptr_t>()
                                                : std::uintptr_t{0x7f0000001000});
  t.byte_offset = bytes.ConsumeIntegralInRange(0, 3) == 0 ? bytes.ConsumeIntegral<std::uint64_t>()
                                                          : bytes.ConsumeIntegralInRange(0, 64);
  parts.has_deleter = bytes.ConsumeIntegralInRange(0, 15) != 0;
  return parts;
}

// ---- the second opinion -------------------------------------------------------------------------

bool dtype_is_sound(DType d) {
  const bool float8 = d.code >= kDLFloat8_e3m4 && d.code <= kDLFloat8_e8m0fnu;
  const bool float6 = d.code == kDLFloat6_e2m3fn || d.code == kDLFloat6_e3m2fn;
  return d.code <= kDLFloat4_e2m1fn && d.bits != 0 && d.lanes != 0 && (!float8 || d.bits == 8) &&
         (!float6 || d.bits == 6) && (d.code != kDLFloat4_e2m1fn || d.bits == 4);
}

// What element count, reach and address come to, without any care for speed.
bool memory_is_sound(const DLTensor& t) {
  Wide count = 1;
  Wide low = 0;
  Wide high = 0;
  for (std::int32_t i = t.ndim - 1; i >= 0; --i) {
    const Wide stride = t.strides == nullptr ? count : Wide{t.strides[i]};
    const Wide reach = (Wide{t.shape[i]} - 1) * stride;
    (reach < 0 ? low : high) += reach;
    count *= t.shape[i];
    if (low < -kMost - 1 || high > kMost || count > kMost) {
      return false;
    }
  }
  const Wide bits = DType(t.dtype).element_bits();
  if ((high - low + 1) * bits > kMost || count * bits > kMost || t.data == nullptr) {
    return false;
  }
  if (!Device(t.device).addressable()) {
    return true;
  }
  const Wide first = Wide{reinterpret_cast<std::uintptr_t>(t.data)} + Wide{t.byte_offset};
  const auto rounded = [](Wide of) { return of >= 0 ? of / 8 : -((-of + 7) / 8); };
  return first <= kMost && first + rounded(low * bits) >= 0 &&
         first + rounded(high * bits) <= kMost;
}

bool is_sound(const DLTensor& t) {
  if (t.ndim < 0 || t.ndim > kMaxDimensions || (t.ndim > 0 && t.shape == nullptr) ||
      !dtype_is_sound(t.dtype) || t.device.device_type <= 0) {
    return false;
  }
  bool empty = false;
  for (std::int32_t i = 0; i < t.ndim; ++i) {
    if (t.shape[i] < 0) {
      return false;
    }
    empty = empty || t.shape[i] == 0;
  }
  return empty || memory_is_sound(t);
}

// ---- the doors
// ------------------------------------------------------------------------------------

int deletes = 0;

// The struct in an allocation of its own: of another major version only as far as may be read.
template <typename Managed>
struct Struct {
  explicit Struct(std::size_t size) : memory(static_cast<std::byte*>(std::malloc(size))) {}
  ~Struct() { std::free(memory); }
  Struct(const Struct&) = delete;
  Struct& operator=(const Struct&) = delete;
  [[nodiscard]] Managed* get() const { return reinterpret_cast<Managed*>(memory); }
  std::byte* memory;
};

// A few of the things that an owner may do, in any order.
void use(FuzzedDataProvider& bytes, ManagedTensor tensor, const Parts& parts) {
  const DLTensor& given = parts.tensor;
  require(tensor.ndim() == given.ndim && tensor.dtype() == DType(given.dtype), "another tensor");
  for (std::int32_t i = 0; i < given.ndim; ++i) {
    require(tensor.shape()[static_cast<std::size_t>(i)] == given.shape[i], "another shape");
  }
  require(tensor_fault(tensor.tensor()).empty(), "its own tensor is not sound");
  require(element_count(tensor.tensor()) >= 0 && byte_count(tensor.tensor()) >= 0, "negative size");
  (void)is_c_contiguous(tensor.tensor());
  std::vector<ManagedTensor> more;
  for (int i = bytes.ConsumeIntegralInRange(0, 6); i > 0; --i) {
    switch (bytes.ConsumeIntegralInRange(0, 7)) {
      case 0:
        more.push_back(tensor.share());
        break;
      case 1:
        tensor.mark_read_only();
        break;
      case 2:
        tensor.drop_negative_strides();
        break;
      case 3:
        tensor.drop_address_if_empty();
        break;
      case 4:
        tensor = ManagedTensor::retake(tensor.release());
        break;
      case 5:
        tensor = ManagedTensor::adopt(tensor.release());
        break;
      case 6: {
        const bool padded = (tensor.flags() & DLPACK_FLAG_BITMASK_IS_SUBBYTE_TYPE_PADDED) != 0 &&
                            tensor.dtype().element_bits() % 8 != 0;
        if (tensor.readonly() || padded) {
          try {
            (void)tensor.release_legacy();
            require(false, "a legacy struct left that cannot say what its memory is");
          } catch (const ConversionRefused&) {
          }
        } else {
          const bool fits = tensor_fault(tensor.tensor()).empty();
          tensor = ManagedTensor::adopt(tensor.release_legacy(), true);
          require(fits, "a legacy struct of an unsound tensor was taken");
        }
        break;
      }
      default:
        if (!more.empty()) {
          more.pop_back();
        }
    }
  }
  require(deletes == 0, "the memory ended before its last user");
}

// The door's answer: a tensor, or nothing where it refused.
template <typename Door>
std::optional<ManagedTensor> taken(Door&& door) {
  try {
    return door();
  } catch (const MalformedTensor& refused) {
    require(!refused.reasons.empty() && !refused.reasons[0].empty(), "refused without a reason");
    return std::nullopt;
  }
}

void run_versioned(FuzzedDataProvider& bytes, const Parts& parts) {
  using Managed = DLManagedTensorVersioned;
  const bool ours = parts.version.major == DLPACK_MAJOR_VERSION;
  const Struct<Managed> memory(ours ? sizeof(Managed) : offsetof(Managed, dl_tensor));
  Managed* managed = memory.get();
  managed->version = parts.version;
  managed->manager_ctx = nullptr;
  managed->deleter = parts.has_deleter ? +[](Managed*) { ++deletes; } : nullptr;
  managed->flags = parts.flags;
  if (ours) {
    managed->dl_tensor = parts.tensor;
  }
  const bool leaves = bytes.ConsumeBool();
  auto tensor = taken([&] {
    return leaves ? ManagedTensor::adopt_or_leave(managed) : ManagedTensor::adopt(managed);
  });
  require(tensor.has_value() == (ours && is_sound(parts.tensor)), "the two opinions differ");
  if (tensor) {
    require(tensor->flags() == parts.flags, "other flags");
    use(bytes, std::move(*tensor), parts);
    tensor.reset();
  } else if (leaves) {
    require(deletes == 0, "a tensor that was left with its caller was deleted");
    return;
  }
  require(deletes == (parts.has_deleter ? 1 : 0), "the deleter did not run once");
}

void run_legacy(FuzzedDataProvider& bytes, const Parts& parts) {
  const Struct<DLManagedTensor> memory(sizeof(DLManagedTensor));
  DLManagedTensor* managed = memory.get();
  managed->dl_tensor = parts.tensor;
  managed->manager_ctx = nullptr;
  managed->deleter = parts.has_deleter ? +[](DLManagedTensor*) { ++deletes; } : nullptr;
  const bool writable = bytes.ConsumeBool();
  auto tensor = taken([&] { return ManagedTensor::adopt(managed, writable); });
  require(tensor.has_value() == is_sound(parts.tensor), "the two opinions differ");
  if (tensor) {
    require(tensor->readonly() != writable, "other flags");
    use(bytes, std::move(*tensor), parts);
    tensor.reset();
  }
  require(deletes == (parts.has_deleter ? 1 : 0), "the deleter did not run once");
}

}  // namespace
}  // namespace dlbridge::fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace dlbridge::fuzz;  // NOLINT(google-build-using-namespace)
  FuzzedDataProvider bytes(data, size);
  deletes = 0;
  const Parts parts = any_parts(bytes);
  parts.versioned ? run_versioned(bytes, parts) : run_legacy(bytes, parts);
  require(dlbridge::live_managed_tensors() == 0, "managed tensors are left");
  return 0;
}

#include "carry/pass.hpp"

#include <algorithm>
#include <cstddef>

#include "dlbridge/error.hpp"

namespace dlbridge::detail {
namespace {

void require_copyable(DType from, DType to) {
  if (!from.whole_bytes() || !can_cast(from, to)) {
    refuse_copy("cannot copy elements of dtype " + to_string(from) + " as " + to_string(to),
                from.whole_bytes() ? "the two types have no cast"
                                   : "they are packed below a byte, and do not lie together");
  }
}

char* first_element(const DLTensor& tensor) {
  return static_cast<char*>(tensor.data) + tensor.byte_offset;
}

}  // namespace

void fill_bytes(const DLTensor& tensor, DType type, ByteStrides& bytes) {
  const auto ndim = static_cast<std::size_t>(tensor.ndim);
  if (tensor.strides == nullptr) {
    fill_c_strides({tensor.shape, ndim}, bytes.data());
  } else {
    std::copy_n(tensor.strides, ndim, bytes.begin());
  }
  for (std::size_t i = 0; i < ndim; ++i) {
    bytes[i] *= type.itemsize();
  }
}

void refuse_copy(const std::string& what, const std::string& why) {
  throw ConversionRefused(what + ": " + why, {why});
}

Pass::Pass(const Leg& leg, const Source& source, const DLTensor& target) {
  const DLTensor& from = source.tensor;
  const DType type(from.dtype);
  const bool casts = leg.has(Step::kCast);
  // A view of the same bits is no cast: the bytes are copied as they are.
  job_.source_dtype = type;
  job_.target_dtype = casts ? leg.dtype : type;
  job_.ndim = from.ndim;
  job_.shape = from.shape;
  job_.source = first_element(from);
  job_.target = first_element(target);
  job_.source_strides_bytes = from_strides_.data();
  job_.target_strides_bytes = to_strides_.data();
  job_.conjugate = leg.has(Step::kResolveConj);
  job_.negate = leg.has(Step::kResolveNeg);
  job_.swap_bytes = leg.has(Step::kSwapBytes);
  if (source.traits.conditions.has(Condition::kZeroTensor)) {
    // Its zeros are nowhere in memory: one for all, as it is.
    static constexpr std::array<std::byte, 16> kZero{};
    job_.source = &kZero;
    job_.conjugate = job_.negate = job_.swap_bytes = false;
    from_strides_.fill(0);
    if (is_c_contiguous(target)) {
      take_as_bytes(byte_count(target));
      return;
    }
    require_copyable(job_.target_dtype, job_.target_dtype);
    if (job_.target_dtype.itemsize() > static_cast<std::int64_t>(kZero.size())) {
      refuse_copy("cannot write zeros of dtype " + to_string(job_.target_dtype) + " with strides",
                  "an element is larger than " + std::to_string(kZero.size()) + " bytes");
    }
    job_.source_dtype = job_.target_dtype;
    fill_bytes(target, job_.target_dtype, to_strides_);
    return;
  }
  if (!type.whole_bytes() && !casts && is_c_contiguous(from) && is_c_contiguous(target)) {
    // Packed elements have no addresses of their own, but their bytes can be copied together.
    take_as_bytes(byte_count(from));
    from_strides_[0] = 1;
    return;
  }
  require_copyable(type, job_.target_dtype);
  fill_bytes(from, type, from_strides_);
  if (source.byte_strides != nullptr) {
    std::copy_n(source.byte_strides, from.ndim, from_strides_.begin());
  }
  fill_bytes(target, job_.target_dtype, to_strides_);
}

// What lies together, byte by byte, whatever it is.
void Pass::take_as_bytes(std::int64_t count) {
  bytes_ = count;
  job_.source_dtype = job_.target_dtype = DType{kDLUInt, 8};
  job_.ndim = 1;
  job_.shape = &bytes_;
  to_strides_[0] = 1;
}

DeviceRuntime& runtime_of(Device device) {
  DeviceRuntime* runtime = device_runtime(device.type);
  if (runtime == nullptr) {
    refuse_copy("cannot copy memory on " + to_string(device), "there is no runtime for its device");
  }
  return *runtime;
}

int device_holding(DeviceRuntime& runtime, Device said, const void* address) {
  const auto found = runtime.locate(address);
  if (!found) {
    refuse_copy("cannot copy memory that is said to be on " + to_string(said),
                std::string(runtime.name()) + " knows of no memory at its address");
  }
  return found->type == said.type ? found->id : said.id;
}

void require_no_capture(DeviceRuntime& runtime, int device, Stream stream) {
  if (runtime.is_capturing(device, stream)) {
    refuse_copy("cannot copy while the stream is being captured into a graph",
                "a copy has to be waited for, and nothing in a capture is done before its graph is "
                "launched; convert before the capture or after it");
  }
}

void refuse_padded(const Source& source) {
  if (source.traits.conditions.has(Condition::kPaddedElements)) {
    throw ConversionRefused("cannot copy elements that are padded to whole bytes",
                            {"the elements are padded to whole bytes"});
  }
}

}  // namespace dlbridge::detail

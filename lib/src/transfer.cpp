#include "dlbridge/transfer.hpp"

#include <array>
#include <cstring>

#include "dlbridge/copy.hpp"

namespace dlbridge {
namespace {

void require_readable(const Plan& plan, const Source& source) {
  const Device device(source.tensor.device);
  if (!device.host_accessible()) {
    throw ConversionRefused("cannot copy memory on " + to_string(device) + " with the processor",
                            {"the memory is on " + to_string(device)});
  }
  const DType dtype(source.tensor.dtype);
  if (!dtype.whole_bytes() || !can_cast(dtype, plan.dtype)) {
    throw ConversionRefused(
        "cannot copy elements of dtype " + to_string(dtype) + " as " + to_string(plan.dtype) +
            ": they are packed below a byte, or the "
            "two types have no cast",
        {"dtype " + to_string(dtype) + " cannot be copied as " + to_string(plan.dtype)});
  }
}

}  // namespace

void describe(const ManagedTensor& tensor, const Library& library, Source& source) {
  source.traits.library = &library;
  source.traits.conditions.add_if(tensor.readonly(), Condition::kReadOnly);
  const bool padded = (tensor.flags() & DLPACK_FLAG_BITMASK_IS_SUBBYTE_TYPE_PADDED) != 0;
  source.traits.conditions.add_if(padded && tensor.dtype().element_bits() % 8 != 0,
                                  Condition::kPaddedElements);
  source.tensor = tensor.tensor();
}

ManagedTensor carry_out(const Plan& plan, const Source& source) {
  const DLTensor& from = source.tensor;
  const auto ndim = static_cast<std::size_t>(from.ndim);
  // A view of the same bits is no cast: the bytes are copied as they are.
  const bool casts = plan.has(Step::kCast);
  const DType dtype(from.dtype);
  ManagedTensor copy = ManagedTensor::allocate(casts ? plan.dtype : dtype, {from.shape, ndim});
  copy.mark_copied();
  if (source.traits.conditions.has(Condition::kPaddedElements)) {
    throw ConversionRefused("cannot copy elements that are padded to whole bytes",
                            {"the elements are padded to whole bytes"});
  }
  if (source.traits.conditions.has(Condition::kZeroTensor)) {
    std::memset(copy.data(), 0, static_cast<std::size_t>(byte_count(copy.tensor())));
  } else if (!dtype.whole_bytes() && !casts && is_c_contiguous(from)) {
    // Packed elements have no addresses of their own, but their bytes can be copied together.
    std::memcpy(copy.data(), static_cast<const char*>(from.data) + from.byte_offset,
                static_cast<std::size_t>(byte_count(from)));
  } else if (element_count(from) != 0) {
    Plan same_type = plan;
    same_type.dtype = copy.dtype();
    require_readable(same_type, source);
    std::array<std::int64_t, kMaxDimensions> from_strides{};
    const std::int64_t* strides = from.strides;
    if (strides == nullptr) {
      fill_c_strides({from.shape, ndim}, from_strides.data());
      strides = from_strides.data();
    }
    std::array<std::int64_t, kMaxDimensions> to_strides{};
    for (std::size_t i = 0; i < ndim; ++i) {
      from_strides[i] =
          source.byte_strides != nullptr ? source.byte_strides[i] : strides[i] * dtype.itemsize();
      to_strides[i] = copy.strides()[i] * copy.dtype().itemsize();
    }
    CopyJob job;
    job.ndim = from.ndim;
    job.shape = from.shape;
    job.source = static_cast<const char*>(from.data) + from.byte_offset;
    job.source_strides_bytes = from_strides.data();
    job.target = copy.data();
    job.target_strides_bytes = to_strides.data();
    job.source_dtype = dtype;
    job.target_dtype = copy.dtype();
    job.conjugate = plan.has(Step::kResolveConj);
    job.negate = plan.has(Step::kResolveNeg);
    job.swap_bytes = plan.has(Step::kSwapBytes);
    copy_elements(job);
  }
  if (!casts) {
    copy.reinterpret(plan.dtype);
  }
  return copy;
}

void carry_out_view(const Plan& plan, ManagedTensor& view) noexcept {
  if (plan.has(Step::kMarkReadOnly)) {
    view.mark_read_only();
  }
  view.reinterpret(plan.dtype);
}

}  // namespace dlbridge

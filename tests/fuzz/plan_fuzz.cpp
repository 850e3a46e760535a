// plan() asked with any traits, capabilities, policy and request: it keeps every law, in words too.
// Where it copies and the memory is the host's, the copy is made: out of an allocation that ends
// where the source ends, and against a naive reference.

#include <array>
#include <cstring>
#include <memory>
#include <utility>
#include <vector>

#include "dlbridge/carry.hpp"
#include "dlbridge/copy.hpp"
#include "dlbridge/error.hpp"
#include "fuzz.hpp"
#include "lib/copy/copy_reference.hpp"
#include "lib/plan/plan_cases.hpp"
#include "lib/plan/plan_laws.hpp"

namespace dlbridge::fuzz {
namespace {

constexpr std::array kDevices{kDLCPU,  kDLCPU,   kDLCPU,      kDLCUDA,        kDLCUDAHost,
                              kDLROCM, kDLMetal, kDLROCMHost, kDLCUDAManaged, kDLWebGPU};

Device any_device(FuzzedDataProvider& bytes) {
  return {one_of(bytes, kDevices), bytes.ConsumeIntegralInRange(0, 1)};
}

DeviceSet any_devices(FuzzedDataProvider& bytes) {
  switch (bytes.ConsumeIntegralInRange(0, 3)) {
    case 0:
      return DeviceSet::host();
    case 1:
      return DeviceSet::everything();
    default:
      return DeviceSet::of({one_of(bytes, kDevices)}) | DeviceSet::of({one_of(bytes, kDevices)});
  }
}

DTypeSet any_dtypes(FuzzedDataProvider& bytes) {
  if (bytes.ConsumeIntegralInRange(0, 2) == 0) {
    return cases::kPlainTypes;
  }
  if (bytes.ConsumeIntegralInRange(0, 3) == 0) {
    return DTypeSet::everything();
  }
  DTypeSet set;
  for (int i = bytes.ConsumeIntegralInRange(0, 6); i > 0; --i) {
    set = set | DTypeSet::of_name(one_of(bytes, kNamedDTypes).name);
  }
  return set;
}

Capabilities any_capabilities(FuzzedDataProvider& bytes) {
  Capabilities target{.name = "Target", .result = "target.Array"};
  target.devices = any_devices(bytes);
  target.wants_host = bytes.ConsumeBool();
  target.copies_to_device = bytes.ConsumeBool();
  target.own_device = bytes.ConsumeIntegralInRange(0, 3) == 0 ? int{kDLCUDA} : 0;
  target.copies = bytes.ConsumeIntegralInRange(0, 7) == 0;
  target.dtypes = any_dtypes(bytes);
  target.extension_dtypes = any_dtypes(bytes);
  target.extension_hint = bytes.ConsumeBool() ? "pip install ml_dtypes" : "";
  target.readonly = static_cast<ReadOnlySupport>(bytes.ConsumeIntegralInRange(0, 2));
  target.gives_writable = bytes.ConsumeIntegralInRange(0, 7) != 0;
  target.guards_overlap = bytes.ConsumeBool();
  target.strides = static_cast<StrideSupport>(bytes.ConsumeIntegralInRange(0, 2));
  target.alignment = std::int64_t{1} << bytes.ConsumeIntegralInRange(0, 7);
  target.carries_padding = bytes.ConsumeBool();
  target.min_dimensions = bytes.ConsumeIntegralInRange(0, 7) == 0 ? 1 : 0;
  target.max_dimensions = bytes.ConsumeIntegralInRange(0, 7) == 0 ? 2 : kMaxDimensions;
  target.reads_unaligned = bytes.ConsumeBool();
  target.takes_as_constant = bytes.ConsumeIntegralInRange(0, 3) == 0;
  return target;
}

Policy any_policy(FuzzedDataProvider& bytes) {
  Policy policy;
  for (std::size_t i = 0; i < kFields.size(); ++i) {
    const auto& value = one_of(bytes, kFields[i].values);
    if (!value.name.empty()) {
      policy = policy.with(static_cast<Field>(i), value.ruling);
    }
  }
  return policy.with_copy(static_cast<CopyRule>(bytes.ConsumeIntegralInRange(0, 2)));
}

Request any_request(FuzzedDataProvider& bytes) {
  Request request;
  if (bytes.ConsumeIntegralInRange(0, 2) == 0) {
    request.dtype = any_dtype(bytes);
  }
  if (bytes.ConsumeIntegralInRange(0, 3) == 0) {
    request.device = any_device(bytes);
  }
  request.copy_was_argument = bytes.ConsumeBool();
  request.c_order = bytes.ConsumeBool();
  request.writable = bytes.ConsumeBool();
  return request;
}

// A source with memory of exactly the size that its shape and strides reach.
class Origin {
 public:
  explicit Origin(FuzzedDataProvider& bytes) {
    choose_conditions(bytes);
    DType dtype = any_dtype(bytes);
    if (!dtype_fault(dtype).empty() || dtype.lanes > 16) {
      dtype = {kDLFloat, 32};
    }
    choose_layout(bytes);
    const bool fractional = source.traits.conditions.has(Condition::kFractionalStrides);
    if (fractional && dtype.whole_bytes()) {
      for (std::size_t i = 0; i < shape_.size(); ++i) {
        byte_strides_.push_back(bytes.ConsumeIntegralInRange<std::int64_t>(-40, 40));
      }
      source.byte_strides = byte_strides_.data();
    } else if (fractional) {
      source.traits.conditions.remove(Condition::kFractionalStrides);
    }
    place(bytes, dtype);
    source.traits.library = &cases::kShelf;
    source.traits.copies_to_host = bytes.ConsumeBool();
    source.traits.copies_there = bytes.ConsumeBool();
    source.detail = "something";
    source.fix = bytes.ConsumeBool() ? "x.mended()" : "";
    source.tensor.device = any_device(bytes).dl();
    source.tensor.dtype = dtype.dl();
    source.tensor.ndim = static_cast<std::int32_t>(shape_.size());
    source.tensor.shape = shape_.data();
    source.tensor.strides = strides_.data();
  }
  Origin(const Origin&) = delete;
  Origin& operator=(const Origin&) = delete;

  [[nodiscard]] const std::byte* first() const {
    return static_cast<const std::byte*>(source.tensor.data) + source.tensor.byte_offset;
  }
  [[nodiscard]] std::vector<std::int64_t> steps() const {
    std::vector<std::int64_t> all(strides_);
    for (auto& step : all) {
      step *= DType(source.tensor.dtype).itemsize();
    }
    return source.byte_strides != nullptr ? byte_strides_ : all;
  }

  Source source;

 private:
  void choose_conditions(FuzzedDataProvider& bytes) {
    const auto last = static_cast<int>(Condition::kTooManyDimensions) - 1;
    for (int i = bytes.ConsumeIntegralInRange(0, 3); i > 0; --i) {
      source.traits.conditions.add(static_cast<Condition>(bytes.ConsumeIntegralInRange(0, last)));
    }
    source.traits.conditions.add_if(bytes.ConsumeBool(), Condition::kReadOnly);
  }

  void choose_layout(FuzzedDataProvider& bytes) {
    shape_.resize(bytes.ConsumeIntegralInRange<std::size_t>(0, 5));
    strides_.resize(shape_.size());
    for (auto& size : shape_) {
      size = bytes.ConsumeIntegralInRange<std::int64_t>(0, 5);
    }
    fill_c_strides(shape_, strides_.data());
    const int kind = bytes.ConsumeIntegralInRange(0, 2);
    for (std::size_t i = 0; i < shape_.size(); ++i) {
      if (kind == 0) {
        strides_[i] = bytes.ConsumeIntegralInRange<std::int64_t>(-12, 24);
      } else if (kind == 1) {  // a permutation of both together
        const auto j = bytes.ConsumeIntegralInRange<std::size_t>(0, i);
        std::swap(shape_[i], shape_[j]);
        std::swap(strides_[i], strides_[j]);
      }
    }
  }

  void place(FuzzedDataProvider& bytes, DType dtype) {
    std::int64_t low = 0;  // bits
    std::int64_t high = 0;
    bool empty = false;
    for (std::size_t i = 0; i < shape_.size(); ++i) {
      const std::int64_t step = source.byte_strides != nullptr ? byte_strides_[i] * 8
                                                               : strides_[i] * dtype.element_bits();
      (step < 0 ? low : high) += std::max<std::int64_t>(shape_[i] - 1, 0) * step;
      empty = empty || shape_[i] == 0;
    }
    const std::int64_t below = empty ? 0 : (-low + 7) / 8;
    const std::int64_t size = empty ? 0 : below + (high + dtype.element_bits() + 7) / 8;
    const std::int64_t shift = bytes.ConsumeIntegralInRange<std::int64_t>(0, 9);
    memory_ = std::make_unique<std::byte[]>(static_cast<std::size_t>(shift + size));
    const auto values = bytes.ConsumeBytes<std::uint8_t>(static_cast<std::size_t>(shift + size));
    for (std::size_t i = 0; i < static_cast<std::size_t>(shift + size); ++i) {
      memory_[i] = static_cast<std::byte>(i < values.size() ? values[i] : 37 * i);
    }
    source.tensor.byte_offset = static_cast<std::uint64_t>(shift);
    source.tensor.data = memory_.get() + below;
  }

  std::vector<std::int64_t> shape_;
  std::vector<std::int64_t> strides_;
  std::vector<std::int64_t> byte_strides_;
  std::unique_ptr<std::byte[]> memory_;
};

// What the plan says, done slowly to one element.
std::vector<std::byte> wanted_element(const Plan& plan, DType from, DType to,
                                      const std::byte* element) {
  CopyJob job;
  job.source_dtype = from;
  job.target_dtype = to;
  job.conjugate = plan.has(Step::kResolveConj);
  job.negate = plan.has(Step::kResolveNeg);
  job.swap_bytes = plan.has(Step::kSwapBytes);
  std::vector<std::byte> wanted(static_cast<std::size_t>(to.itemsize()));
  copy_reference::reference_element(job, element, wanted.data());
  return wanted;
}

void check_values(const Plan& plan, const Origin& origin, const ManagedTensor& copy) {
  const DLTensor& from = origin.source.tensor;
  const auto steps = origin.steps();
  const DType to = plan.has(Step::kCast) ? plan.dtype : DType(from.dtype);
  const auto itemsize = static_cast<std::size_t>(to.itemsize());
  const bool zero = origin.source.traits.conditions.has(Condition::kZeroTensor);
  const std::int64_t count = element_count(from);
  for (std::int64_t n = 0; n < count; ++n) {
    const std::byte* element = origin.first();
    for (std::int32_t i = from.ndim, rest = static_cast<std::int32_t>(n); i-- > 0;) {
      const auto size = static_cast<std::int32_t>(from.shape[i]);
      element += (rest % size) * steps[static_cast<std::size_t>(i)];
      rest /= size;
    }
    const auto* got =
        static_cast<const std::byte*>(copy.data()) + static_cast<std::size_t>(n) * itemsize;
    const std::vector<std::byte> wanted =
        zero ? std::vector<std::byte>(itemsize) : wanted_element(plan, from.dtype, to, element);
    require(copy_reference::same_element(from.dtype, to, got, wanted.data()),
            "element " + std::to_string(n) + " of " + to_string(DType(from.dtype)) + " as " +
                to_string(to) + " is not what the plan says");
  }
}

void carry(const Plan& plan, const Origin& origin) {
  const Device here(origin.source.tensor.device);
  if (plan.view) {
    ManagedTensor view = ManagedTensor::own(
        origin.source.tensor,
        origin.source.traits.conditions.has(Condition::kReadOnly) ? DLPACK_FLAG_BITMASK_READ_ONLY
                                                                  : 0,
        {});
    carry_out_view(plan, view);
    require(!plan.has(Step::kMarkReadOnly) || view.readonly(), "not marked read-only");
    require(view.dtype() == plan.dtype, "a view of another type");
    return;
  }
  const bool by_library = plan.has(Step::kDensify) || plan.has(Step::kGather) ||
                          plan.has(Step::kCopyToHost) || plan.has(Step::kCopyToDevice) ||
                          !here.host_accessible();
  if (by_library) {
    return;
  }
  try {
    const ManagedTensor copy = carry_out(plan, origin.source);
    require(copy.dtype() == plan.dtype && !copy.readonly(), "a copy of another type");
    require(is_c_contiguous(copy.tensor()), "a copy that is not C-contiguous");
    require(byte_count(copy.tensor()) == plan.bytes_copied, "bytes_copied is not what was copied");
    if (DType(origin.source.tensor.dtype).whole_bytes() && copy.dtype().whole_bytes()) {
      check_values(plan, origin, copy);
    }
  } catch (const ValueOutOfRange& refused) {
    require(!always_fits(refused.met.from, refused.met.to), "a cast that cannot fail, and did");
  } catch (const ConversionRefused&) {
    // Only packed elements may turn out not to be copyable.
    require(!DType(origin.source.tensor.dtype).whole_bytes() || !plan.dtype.whole_bytes(),
            "a plan that cannot be carried out");
  }
}

}  // namespace
}  // namespace dlbridge::fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace dlbridge;        // NOLINT(google-build-using-namespace)
  using namespace dlbridge::fuzz;  // NOLINT(google-build-using-namespace)
  FuzzedDataProvider bytes(data, size);
  const Capabilities target = any_capabilities(bytes);
  const Policy policy = any_policy(bytes);
  const Request request = any_request(bytes);
  const Origin origin(bytes);
  const Plan decided = plan(origin.source, target, policy, request);
  const std::string broken = laws::broken_law(decided, {origin.source, target, policy, request});
  require(broken.empty(), broken);
  if (!decided.is_refused()) {
    carry(decided, origin);
  }
  require(live_managed_tensors() == 0, "managed tensors are left");
  return 0;
}

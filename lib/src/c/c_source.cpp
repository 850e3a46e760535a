#include <algorithm>
#include <array>

#include "c/c_arguments.hpp"
#include "c/c_structs.hpp"
#include "tensor/layout.hpp"

namespace dlbridge::detail {
namespace {

// Conditions of which the memory is not read where its shape would say, if it is read at all.
constexpr Conditions kMayLackMemory =
    kWithoutStorage | kWithoutStrides | Conditions{Condition::kQuantised, Condition::kNested};

constexpr std::uintptr_t kSomewhere = 64;

}  // namespace

ReadSource::ReadSource(const dlbridge_source* pointer)
    : given(read_struct(pointer, "dlbridge_source")),
      library{.name = "the source", .object = "tensor"} {
  require_usage(pointer != nullptr, "the source is NULL; give a dlbridge_source");
  require_usage(given.tensor != nullptr, "dlbridge_source.tensor is NULL; it is required");
  require_usage(given.prepare != nullptr || (given.copies_to_host == 0 && given.copies_there == 0),
                "dlbridge_source says that its library copies, and has no prepare()");
  require_known(given.flags);
  read_library(given.library, library);
  source.traits.library = &library;
  source.traits.can_prepare = given.prepare != nullptr;
  source.traits.copies_to_host = given.copies_to_host != 0;
  source.traits.copies_there = given.copies_there != 0;
  source.stream.handle = given.stream;
  if (given.detail != nullptr) {
    source.detail = given.detail;
  }
  source.traits.conditions = conditions_of_flags(given.flags, given.tensor->dtype);
  read_conditions();
  read_tensor(*given.tensor);
}

void ReadSource::read_conditions() {
  Conditions& conditions = source.traits.conditions;
  for_each_text(given.conditions, [&](const char* text) {
    const auto& row = row_named(kConditions, text, "a condition in dlbridge_source.conditions");
    if (row.condition >= Condition::kMutable) {
      throw UsageError(std::string("the condition \"") + text +
                       "\" is for a plan to find, and not for a source to say; leave it out");
    }
    conditions.add(row.condition);
  });
  // Said either way, the tensor that shows the memory has to say it as well.
  given.flags |= flags_of_conditions(conditions);
  require_usage(!conditions.has(Condition::kFractionalStrides) || given.byte_strides != nullptr,
                "the condition \"fractional_strides\" needs dlbridge_source.byte_strides");
}

void ReadSource::read_tensor(const DLTensor& tensor) {
  source.tensor = tensor;
  DLTensor& own = source.tensor;
  const bool fractional = source.traits.conditions.has(Condition::kFractionalStrides);
  source.byte_strides = fractional ? given.byte_strides : nullptr;
  require_sound();
  const auto ndim = static_cast<std::size_t>(own.ndim);
  if (own.strides == nullptr || fractional) {
    fill_c_strides({own.shape, ndim}, source.room.data());
    own.strides = source.room.data();
  }
  if (own.data == nullptr) {
    own.byte_offset = 0;  // of nothing
  }
}

void ReadSource::require_sound() const {
  DLTensor checked = source.tensor;
  const Conditions conditions = source.traits.conditions;
  if (conditions.meets(kMayLackMemory) && checked.data == nullptr) {
    checked.data = reinterpret_cast<void*>(kSomewhere);
    checked.byte_offset = 0;
  }
  if (conditions.has(Condition::kInexpressibleDType)) {
    checked.dtype = DType{kDLUInt, 8}.dl();
  }
  if (source.byte_strides == nullptr) {
    detail::require_sound(checked);
    return;
  }
  checked.strides = nullptr;
  detail::require_sound(checked);
  // And as bytes: an element is one more dimension of them.
  std::array<std::int64_t, kMaxDimensions> shape;
  std::array<std::int64_t, kMaxDimensions> strides;
  const auto ndim = static_cast<std::size_t>(checked.ndim);
  const DType dtype(checked.dtype);
  if (!dtype.whole_bytes() || ndim == shape.size()) {
    throw MalformedTensor(
        "strides in bytes are for elements of whole bytes in fewer than 64 "
        "dimensions");
  }
  std::copy_n(checked.shape, ndim, shape.begin());
  std::copy_n(source.byte_strides, ndim, strides.begin());
  shape[ndim] = dtype.itemsize();
  strides[ndim] = 1;
  checked.ndim += 1;
  checked.dtype = DType{kDLUInt, 8}.dl();
  checked.shape = shape.data();
  checked.strides = strides.data();
  detail::require_sound(checked);
}

}  // namespace dlbridge::detail

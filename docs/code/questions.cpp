// What authors ask first, each answered in a few lines; the manual shows them one by one.

#include <cassert>
#include <cstdlib>
#include <dlbridge/convert.hpp>
#include <dlbridge/tensor_view.hpp>
#include <iostream>
#include <memory>
#include <vector>

// [element type]
namespace mine {
struct Half {
  std::uint16_t bits;
};
}  // namespace mine

template <>
struct dlbridge::ElementType<mine::Half> {
  static constexpr DType kDType{kDLFloat, 16};
};
// [element type]

using dlbridge::Device;
using dlbridge::DLPack;
using dlbridge::Lease;
using dlbridge::ManagedTensor;
using dlbridge::Policy;
using dlbridge::TensorView;

// [policy]
using dlbridge::CopyRule;
using dlbridge::Field;
using dlbridge::Ruling;

// Presets, a field of one's own, and what Python says by copy=False; a wrong pair does not compile.
constexpr Policy kCareful =
    Policy::host().with(Field::kGrad, Ruling::kRefuse).with_copy(CopyRule::kNever);
// By a name, as from a configuration: nothing where there is no such preset.
constexpr std::optional<Policy> kNamed = dlbridge::policy_named("snapshot");
// [policy]
static_assert(kNamed == Policy::snapshot() && kCareful != Policy::zero_copy());

namespace {

// [existing tensor]
// Whoever made the tensor: what the target cannot take is copied, or refused, as ever.
ManagedTensor private_copy(const ManagedTensor& tensor) {
  const auto& target = dlbridge::managed_tensor_capabilities();
  return dlbridge::to_managed<DLPack>(tensor, target, Policy::snapshot());
}
// [existing tensor]

// [was it copied]
bool is_copy(const ManagedTensor& tensor) {
  return (tensor.flags() & DLPACK_FLAG_BITMASK_IS_COPIED) != 0;
}

// And before anything is done:
bool would_copy(const ManagedTensor& tensor, const Policy& policy) {
  dlbridge::Source source;
  DLPack::describe(tensor, source);
  return !dlbridge::plan(source, dlbridge::managed_tensor_capabilities(), policy).view;
}
// [was it copied]

// [own memory]
// A buffer that must not be copied, with whatever has to keep it: a lambda without exceptions.
ManagedTensor over(float* data, std::int64_t rows, std::int64_t columns, void (*free_it)(float*)) {
  std::int64_t shape[] = {rows, columns};
  DLTensor tensor{};  // without strides: in C order
  tensor.data = data;
  tensor.device = Device{}.dl();
  tensor.dtype = dlbridge::dtype_of<float>().dl();
  tensor.ndim = 2;
  tensor.shape = shape;  // which are copied
  return ManagedTensor::own(tensor, 0, Lease::calling([=]() noexcept { free_it(data); }));
}
// [own memory]

void require(bool holds, const char* what) {
  if (!holds) {
    std::cerr << "FAIL " << what << '\n';
    std::exit(EXIT_FAILURE);
  }
}

}  // namespace

int main() {
  const auto halves = ManagedTensor::own(std::vector<mine::Half>{{0x3C00}, {0x4000}});
  require(TensorView<const mine::Half, 1>(halves)(1).bits == 0x4000, "an element type");
  require(to_string(halves.dtype()) == "float16", "its name");

  const auto copy = private_copy(halves);
  require(is_copy(copy) && !is_copy(halves) && copy.data() != halves.data(), "a copy is one");
  require(would_copy(halves, Policy::snapshot()) && !would_copy(halves, {}), "it was said before");

  static int freed = 0;
  auto* data = new float[6]{0, 1, 2, 3, 4, 5};
  auto own = over(data, 2, 3, [](float* held) {
    ++freed;
    delete[] held;
  });
  require(TensorView<float, 2>(own)(1, 2) == 5, "own memory");
  const ManagedTensor other = own.share();
  own = {};
  require(freed == 0 && other.data() == data, "it stays for the last owner");
}

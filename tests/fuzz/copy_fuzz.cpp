// The copy engine against a reference that is slow and goes element by element: any strides of the
// source, any layout of the target, every pair of types that has a cast, lanes, and all that is
// done on the way. Neither side's memory is larger than its elements reach.

#include <algorithm>
#include <array>
#include <cstring>
#include <memory>
#include <numeric>
#include <utility>
#include <vector>

#include "dlbridge/copy.hpp"
#include "fuzz.hpp"
#include "lib/copy/copy_reference.hpp"

namespace dlbridge::fuzz {
namespace {

using Numbers = std::vector<std::int64_t>;

// Memory for one side of a job.
struct Side {
  Numbers strides;  // bytes
  std::int64_t size = 0;
  std::int64_t first = 0;  // of the element of index zero
  std::unique_ptr<std::byte[]> memory;

  void allocate(const Numbers& shape, std::int64_t itemsize, std::int64_t shift) {
    std::int64_t low = 0;
    std::int64_t high = 0;
    bool empty = false;
    for (std::size_t i = 0; i < shape.size(); ++i) {
      empty = empty || shape[i] == 0;
      const std::int64_t reach = (shape[i] - 1) * strides[i];
      (reach < 0 ? low : high) += reach;
    }
    first = empty ? 0 : shift - low;
    size = empty ? 0 : first + high + itemsize;
    memory = std::make_unique<std::byte[]>(static_cast<std::size_t>(size));
  }
  [[nodiscard]] std::byte* at(const Numbers& shape, std::int64_t n, std::byte* base) const {
    std::int64_t place = first;
    for (std::size_t i = shape.size(); i-- > 0;) {
      place += n % shape[i] * strides[i];
      n /= shape[i];
    }
    return base + place;
  }
};

Numbers any_shape(FuzzedDataProvider& bytes) {
  Numbers shape(bytes.ConsumeIntegralInRange<std::size_t>(0, 6));
  std::int64_t room = bytes.ConsumeIntegralInRange<std::int64_t>(1, 4000);
  for (auto& size : shape) {
    size = bytes.ConsumeIntegralInRange<std::int64_t>(0, 15) == 0
               ? 0
               : bytes.ConsumeIntegralInRange<std::int64_t>(1, std::min<std::int64_t>(room, 300));
    room = std::max<std::int64_t>(1, room / std::max<std::int64_t>(1, size));
  }
  return shape;
}

// Side by side in some order of the dimensions, now and then with gaps, some backwards.
Numbers strides_without_overlap(FuzzedDataProvider& bytes, const Numbers& shape,
                                std::int64_t itemsize) {
  std::vector<std::size_t> order(shape.size());
  std::iota(order.rbegin(), order.rend(), std::size_t{0});
  if (bytes.ConsumeBool()) {
    for (std::size_t i = order.size(); i > 1; --i) {
      std::swap(order[i - 1], order[bytes.ConsumeIntegralInRange<std::size_t>(0, i - 1)]);
    }
  }
  const bool gaps = bytes.ConsumeBool();
  Numbers strides(shape.size());
  std::int64_t step = itemsize;
  for (const std::size_t dimension : order) {
    if (gaps) {
      step += bytes.ConsumeIntegralInRange<std::int64_t>(0, 9);
    }
    strides[dimension] = gaps && bytes.ConsumeBool() ? -step : step;
    step *= std::max<std::int64_t>(1, shape[dimension]);
  }
  return strides;
}

// A source may overlap itself, stand still, and step by anything.
Numbers any_strides(FuzzedDataProvider& bytes, const Numbers& shape, std::int64_t itemsize) {
  if (bytes.ConsumeIntegralInRange(0, 3) != 0) {
    return strides_without_overlap(bytes, shape, itemsize);
  }
  Numbers strides(shape.size());
  for (auto& stride : strides) {
    stride = bytes.ConsumeIntegralInRange<std::int64_t>(-70, 70);
  }
  return strides;
}

std::pair<DType, DType> any_types(FuzzedDataProvider& bytes) {
  DType from = any_dtype(bytes);
  if (!dtype_fault(from).empty() || !from.whole_bytes() || from.lanes > 32) {
    from = {kDLFloat, 32};
  }
  const DType to = one_of(bytes, kNamedDTypes).dtype;
  const bool casts = bytes.ConsumeBool() && to.whole_bytes() && can_cast(from, to);
  return {from, casts ? to : from};
}

void fill(FuzzedDataProvider& bytes, Side& side) {
  const auto given = bytes.ConsumeBytes<std::uint8_t>(static_cast<std::size_t>(side.size));
  std::uint64_t state = bytes.ConsumeIntegral<std::uint64_t>() | 1;
  for (std::size_t i = 0; i < static_cast<std::size_t>(side.size); ++i) {
    state = state * 6364136223846793005U + 1442695040888963407U;
    side.memory[i] = static_cast<std::byte>(i < given.size() ? given[i] : state >> 56);
  }
}

}  // namespace
}  // namespace dlbridge::fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace dlbridge;        // NOLINT(google-build-using-namespace)
  using namespace dlbridge::fuzz;  // NOLINT(google-build-using-namespace)
  FuzzedDataProvider bytes(data, size);
  const auto [from, to] = any_types(bytes);
  const Numbers shape = any_shape(bytes);
  Side source;
  Side target;
  source.strides = any_strides(bytes, shape, from.itemsize());
  target.strides = strides_without_overlap(bytes, shape, to.itemsize());
  source.allocate(shape, from.itemsize(), bytes.ConsumeIntegralInRange<std::int64_t>(0, 9));
  target.allocate(shape, to.itemsize(), bytes.ConsumeIntegralInRange<std::int64_t>(0, 9));
  CopyJob job;
  job.conjugate = bytes.ConsumeBool();
  job.negate = bytes.ConsumeBool();
  job.swap_bytes = bytes.ConsumeBool();
  fill(bytes, source);
  std::fill_n(target.memory.get(), target.size, std::byte{0xA5});
  job.ndim = static_cast<std::int32_t>(shape.size());
  job.shape = shape.data();
  job.source = source.memory.get() + source.first;
  job.source_strides_bytes = source.strides.data();
  job.target = target.memory.get() + target.first;
  job.target_strides_bytes = target.strides.data();
  job.source_dtype = from;
  job.target_dtype = to;
  require(copy_elements(job) || !always_fits(from, to), "a cast that cannot fail, and did");

  std::vector<std::byte> wanted(static_cast<std::size_t>(target.size), std::byte{0xA5});
  const std::int64_t count =
      std::accumulate(shape.begin(), shape.end(), std::int64_t{1}, std::multiplies<>());
  const auto itemsize = static_cast<std::size_t>(to.itemsize());
  for (std::int64_t n = 0; n < count; ++n) {
    std::byte* expected = target.at(shape, n, wanted.data());
    std::byte* got = target.at(shape, n, target.memory.get());
    copy_reference::reference_element(job, source.at(shape, n, source.memory.get()), expected);
    require(copy_reference::same_element(from, to, got, expected),
            "element " + std::to_string(n) + " of " + to_string(from) + " as " + to_string(to));
    std::memcpy(got, expected, itemsize);
  }
  require(std::equal(wanted.begin(), wanted.end(), target.memory.get()),
          "something beside the elements was written");
  return 0;
}

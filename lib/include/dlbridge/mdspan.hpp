/// To and from mdspan: the standard's, Kokkos' reference, or cuda::std's.
#pragma once

#include <algorithm>
#include <array>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <span>
#include <utility>
#if defined(__has_include) && __has_include(<mdspan>)
#include <mdspan>
#endif

#include "dlbridge/managed_tensor.hpp"
#include "dlbridge/tensor_view.hpp"

namespace dlbridge {

/// An mdspan of any library, whose elements lie in memory as they are read, at strides.
template <typename M>
concept Mdspan = M::mapping_type::is_always_strided() &&
    std::same_as<typename M::reference, typename M::element_type&> && requires(const M& span) {
  { span.data_handle() } -> std::convertible_to<typename M::element_type*>;
};

/// What an mdspan looks at, valid as long as `keeper` is held; read-only where its elements are
/// const. Throws MalformedTensor or std::bad_alloc after letting go of `keeper`.
template <Mdspan From>
[[nodiscard]] ManagedTensor own(const From& span, std::shared_ptr<const void> keeper) {
  std::array<std::int64_t, From::rank()> shape{};
  std::array<std::int64_t, From::rank()> strides{};
  if constexpr (From::rank() > 0) {  // else there is no stride() to name
    for (std::size_t i = 0; i < From::rank(); ++i) {
      shape[i] = static_cast<std::int64_t>(span.extent(i));
      strides[i] = static_cast<std::int64_t>(span.stride(i));
    }
  }
  return ManagedTensor::own(span.data_handle(), shape, strides, std::move(keeper));
}

namespace detail {

// The view's strides as an mdspan may have them. The standard leaves undefined what is refused
// here.
template <typename Extents, typename T, std::size_t Rank>
std::array<std::int64_t, Rank> strides_of_mdspan(const TensorView<T, Rank>& view) {
  const auto steps = [&](std::size_t i) { return view.extent(i) > 1 && view.size() != 0; };
  std::array<std::int64_t, Rank> strides{};
  std::array<std::size_t, Rank> order{};
  for (std::size_t i = 0; i < Rank; ++i) {
    strides[i] = steps(i) ? view.stride(i) : std::numeric_limits<std::int64_t>::max();
    order[i] = i;
  }
  std::sort(order.begin(), order.end(),
            [&](std::size_t a, std::size_t b) { return strides[a] < strides[b]; });
  std::int64_t beyond = 1;  // the elements of the dimensions so far end before it
  for (const std::size_t i : order) {
    if (strides[i] < beyond) {
      refuse_view("that is reversed, expanded or overlaps itself",
                  "the elements of an mdspan lie apart, one behind the other", kCallForACopy);
    }
    // Where there is no second element any stride would do that is not too small.
    strides[i] = steps(i) ? strides[i] : beyond;
    if (__builtin_mul_overflow(strides[i], std::max<std::int64_t>(view.extent(i), 1), &beyond) ||
        !std::in_range<typename Extents::index_type>(beyond)) {
      refuse_view("of this size", "the index type of the mdspan ends before it");
    }
    if (Extents::static_extent(i) != std::dynamic_extent &&
        std::cmp_not_equal(Extents::static_extent(i), view.extent(i))) {
      refuse_view("of this shape", "the mdspan is of another one");
    }
  }
  return strides;
}

template <typename Mapping, typename T, std::size_t Rank, std::size_t... I>
Mapping mapping_of(const TensorView<T, Rank>& view, std::index_sequence<I...>) {
  using Extents = typename Mapping::extents_type;
  using Index = typename Extents::index_type;
  const std::array<std::int64_t, Rank> strides = strides_of_mdspan<Extents>(view);
  const Extents extents(static_cast<Index>(view.extent(I))...);
  if constexpr (requires(const Mapping& mapping) { Mapping(extents, mapping.strides()); }) {
    using Strides = decltype(std::declval<const Mapping&>().strides());
    return Mapping(extents, Strides{static_cast<Index>(strides[I])...});
  } else {
    const Mapping mapping(extents);
    if (view.size() != 0 &&
        ((view.extent(I) > 1 && std::cmp_not_equal(mapping.stride(I), strides[I])) || ...)) {
      refuse_view("with other strides", "those of the mdspan follow from its shape");
    }
    return mapping;
  }
}

}  // namespace detail

/// The same look as an mdspan of the type that is named. Throws ConversionRefused where that has
/// another shape, other strides, or an index that is too small, and for what is reversed, expanded
/// or overlaps itself, which no mdspan of strides is.
template <Mdspan To, typename T, std::size_t Rank>
requires(To::rank() == Rank) [[nodiscard]] To as_mdspan(const TensorView<T, Rank>& view) {
  return To(view.data(),
            detail::mapping_of<typename To::mapping_type>(view, std::make_index_sequence<Rank>()));
}

#if defined(__cpp_lib_mdspan)
/// The same look as the standard's.
template <typename T, std::size_t Rank>
requires(Rank != kDynamicRank) [[nodiscard]] auto as_mdspan(const TensorView<T, Rank>& view) {
  using Extents = std::dextents<std::int64_t, Rank>;
  return as_mdspan<std::mdspan<T, Extents, std::layout_stride>>(view);
}
#endif

}  // namespace dlbridge

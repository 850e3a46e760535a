/// To and from mdspan: the standard's, Kokkos' reference, or cuda::std's.
#pragma once

#include <array>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <utility>
#if defined(__has_include) && __has_include(<mdspan>)
#include <mdspan>
#endif

#include "dlbridge/managed_tensor.hpp"
#include "dlbridge/tensor_view.hpp"

namespace dlbridge {

/// An mdspan of any library, whose elements have an address and strides.
template <typename M>
concept Mdspan = M::mapping_type::is_always_strided() && requires(const M& span) {
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

template <typename Mapping, typename T, std::size_t Rank, std::size_t... I>
Mapping mapping_of(const TensorView<T, Rank>& view, std::index_sequence<I...>) {
  using Extents = typename Mapping::extents_type;
  using Index = typename Extents::index_type;
  // The standard leaves undefined what these find.
  const auto steps = [&](std::size_t i) { return view.extent(i) > 1 && view.size() != 0; };
  std::int64_t last = 0;
  for (std::size_t i = 0; i < Rank; ++i) {
    if (steps(i) && view.stride(i) <= 0) {
      refuse_view("that is reversed or expanded", "the strides of an mdspan are positive");
    }
    last += steps(i) ? (view.extent(i) - 1) * view.stride(i) : 0;
    if (!std::in_range<Index>(view.extent(i)) || !std::in_range<Index>(last)) {
      refuse_view("of this size", "the index type of the mdspan ends before it");
    }
    if (Extents::static_extent(i) != std::dynamic_extent &&
        std::cmp_not_equal(Extents::static_extent(i), view.extent(i))) {
      refuse_view("of this shape", "the mdspan is of another one");
    }
  }
  const Extents extents(static_cast<Index>(view.extent(I))...);
  if constexpr (requires(const Mapping& mapping) { mapping.strides(); }) {
    using Strides = decltype(std::declval<const Mapping&>().strides());
    // Where there is no second element any stride is right, and only a positive one allowed.
    return Mapping(extents, Strides{static_cast<Index>(steps(I) ? view.stride(I) : 1)...});
  } else {
    const Mapping mapping(extents);
    if (((steps(I) && std::cmp_not_equal(mapping.stride(I), view.stride(I))) || ...)) {
      refuse_view("with other strides", "those of the mdspan follow from its shape");
    }
    return mapping;
  }
}

}  // namespace detail

/// The same look as an mdspan of the type that is named. Throws ConversionRefused where that has
/// another shape, other strides, or an index that is too small; what is reversed or expanded is
/// refused too, since the strides of an mdspan are positive.
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

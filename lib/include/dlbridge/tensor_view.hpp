#pragma once

#include <algorithm>
#include <array>
#include <complex>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <type_traits>

#include "dlbridge/element_type.hpp"
#include "dlbridge/error.hpp"
#include "dlbridge/managed_tensor.hpp"
#include "dlbridge/streams.hpp"

namespace dlbridge {

/// The rank of a view whose number of dimensions is known when it runs only.
inline constexpr std::size_t kDynamicRank = static_cast<std::size_t>(-1);

namespace detail {

// Out of the templates, which every element type and rank would repeat.
[[noreturn]] void refuse_view(const std::string& met, const std::string& why,
                              const std::string& fix = {});
// The call that gives a copy in C order, aligned and to be written to.
inline constexpr const char* kCallForACopy =
    "to_managed<DLPack>(x, managed_tensor_capabilities(), Policy::snapshot()) for a copy";
[[noreturn]] void refuse_empty();
[[noreturn]] void refuse_visit(DType dtype);
void require_viewable(const ManagedTensor& tensor, DType dtype, std::size_t rank, bool writes);
[[noreturn]] void refuse_index(std::int64_t index, std::size_t dimension, std::int64_t extent);
[[noreturn]] void refuse_index(std::size_t count, std::size_t rank);

/// What views of any place have in common: an address, and the shape in elements.
template <typename T, std::size_t Rank>
class Look {
 public:
  using element_type = T;
  using value_type = std::remove_const_t<T>;

  [[nodiscard]] constexpr std::size_t rank() const noexcept { return extents_.size(); }
  [[nodiscard]] T* data() const noexcept { return data_; }
  [[nodiscard]] std::int64_t extent(std::size_t dimension) const noexcept {
    return extents_[dimension];
  }
  [[nodiscard]] std::int64_t stride(std::size_t dimension) const noexcept {
    return strides_[dimension];
  }
  [[nodiscard]] std::int64_t size() const noexcept {
    std::uint64_t count = 1;  // beside a size of zero the others may multiply to anything
    for (auto extent : extents_) {
      count *= static_cast<std::uint64_t>(extent);
    }
    return static_cast<std::int64_t>(count);
  }
  /// Whether the elements lie in C order without gaps.
  [[nodiscard]] bool is_contiguous() const noexcept {
    std::uint64_t expected = 1;
    for (std::size_t i = rank(); i-- > 0;) {
      if (extents_[i] != 1 && static_cast<std::uint64_t>(strides_[i]) != expected && size() != 0) {
        return false;
      }
      expected *= static_cast<std::uint64_t>(extents_[i]);
    }
    return true;
  }

 protected:
  static constexpr bool kDynamic = Rank == kDynamicRank;
  // Those of a dynamic rank are the managed tensor's own.
  using Dimensions = std::conditional_t<kDynamic, std::span<const std::int64_t>,
                                        std::array<std::int64_t, kDynamic ? 0 : Rank>>;

  Look(T* data, const Dimensions& extents, const Dimensions& strides) noexcept
      : data_(data), extents_(extents), strides_(strides) {}
  explicit Look(const ManagedTensor& tensor) : data_(nullptr) {
    require_viewable(tensor, dtype_of<T>(), Rank, !std::is_const_v<T>);
    look_at(tensor);
  }
  void look_at(const ManagedTensor& tensor) noexcept {
    data_ = static_cast<T*>(tensor.data());
    if constexpr (kDynamic) {
      extents_ = tensor.shape();
      strides_ = tensor.strides();
    } else {
      for (std::size_t i = 0; i < Rank; ++i) {
        extents_[i] = tensor.shape()[i];
        strides_[i] = tensor.strides()[i];
      }
    }
  }

  // The element at `index` of that dimension. As numbers: where there are no elements, address and
  // stride may be anything, and nothing is read.
  [[nodiscard]] T* stepped(std::size_t dimension, std::int64_t index) const noexcept {
    return reinterpret_cast<T*>(reinterpret_cast<std::uintptr_t>(data_) +
                                static_cast<std::uintptr_t>(index) *
                                    static_cast<std::uintptr_t>(strides_[dimension]) * sizeof(T));
  }

  T* data_;
  Dimensions extents_{};
  Dimensions strides_{};
};

}  // namespace detail

/// A borrowed, typed look at host memory: T is the element, const where it is only read; Rank is
/// the number of dimensions, or kDynamicRank. Indexed like std::mdspan, with any strides.
///
/// The managed tensor must outlive the view. Strides are in elements.
template <typename T, std::size_t Rank>
class TensorView : public detail::Look<T, Rank> {
  using Base = detail::Look<T, Rank>;

 public:
  /// Throws ConversionRefused when the tensor is empty, of another type or rank, is not readable by
  /// the processor, not aligned, or is read-only while T is not const.
  explicit TensorView(const ManagedTensor& tensor) : Base(tensor) {
    if (!tensor.device().host_accessible()) {
      detail::refuse_view("on " + to_string(tensor.device()), "the view reads host memory",
                          "a DeviceView, or to_managed<DLPack>(x, managed_tensor_capabilities(), "
                          "{}, Request{.device = Device{}}) where the device has a runtime");
    }
    if (reinterpret_cast<std::uintptr_t>(this->data_) % alignof(T) != 0 && this->size() != 0) {
      detail::refuse_view(
          "at an unaligned address",
          "a " + to_string(dtype_of<T>()) + " needs " + std::to_string(alignof(T)) + " bytes",
          detail::kCallForACopy);
    }
  }
  // A view of a temporary would dangle at the end of the line.
  explicit TensorView(ManagedTensor&&) = delete;

  /// A view of a tensor that the caller knows to be what the constructor asks for.
  [[nodiscard]] static TensorView trusted(const ManagedTensor& tensor) noexcept {
    TensorView view(nullptr, {}, {});
    view.look_at(tensor);
    return view;
  }
  /// The same of a tensor without a byte offset, whose shape and strides need not outlive this.
  [[nodiscard]] static TensorView trusted(const DLTensor& tensor) noexcept
      requires(Rank != kDynamicRank) {
    TensorView view(static_cast<T*>(tensor.data), {}, {});
    std::uint64_t packed = 1;
    for (std::size_t i = Rank; i-- > 0;) {
      view.extents_[i] = tensor.shape[i];
      view.strides_[i] =
          tensor.strides != nullptr ? tensor.strides[i] : static_cast<std::int64_t>(packed);
      packed *= static_cast<std::uint64_t>(tensor.shape[i]);
    }
    return view;
  }

  /// A view that writes is also one that reads.
  template <std::same_as<std::remove_const_t<T>> Writing>
  TensorView(const TensorView<Writing, Rank>& writing) noexcept  // NOLINT(*-explicit-*)
      : Base(writing.data_, writing.extents_, writing.strides_) {}

  /// Takes as many indices as there are dimensions. Not checked against the extents; at() is.
  template <std::convertible_to<std::int64_t>... Index>
  requires(Rank == kDynamicRank || sizeof...(Index) == Rank) [[nodiscard]] T& operator()(
      Index... index) const noexcept {
    const std::array<std::int64_t, sizeof...(Index)> indices{static_cast<std::int64_t>(index)...};
    std::int64_t offset = 0;
    for (std::size_t i = 0; i < indices.size(); ++i) {
      offset += indices[i] * this->strides_[i];
    }
    return this->data_[offset];
  }

  /// Throws std::out_of_range.
  template <std::convertible_to<std::int64_t>... Index>
  requires(Rank == kDynamicRank || sizeof...(Index) == Rank)
      [[nodiscard]] T& at(Index... index) const {
    const std::array<std::int64_t, sizeof...(Index)> indices{static_cast<std::int64_t>(index)...};
    if (indices.size() != this->rank()) {
      detail::refuse_index(indices.size(), this->rank());
    }
    for (std::size_t i = 0; i < indices.size(); ++i) {
      if (indices[i] < 0 || indices[i] >= this->extents_[i]) {
        detail::refuse_index(indices[i], i, this->extents_[i]);
      }
    }
    return (*this)(index...);
  }

  /// The elements at `index` of the first dimension: a view of one dimension less. Not checked.
  [[nodiscard]] auto operator[](std::int64_t index) const noexcept requires(Rank > 0) {
    T* const data = this->stepped(0, index);
    if constexpr (Rank == kDynamicRank) {
      return TensorView(data, this->extents_.subspan(1), this->strides_.subspan(1));
    } else {
      std::array<std::int64_t, Rank - 1> extents;
      std::array<std::int64_t, Rank - 1> strides;
      std::copy_n(this->extents_.begin() + 1, Rank - 1, extents.begin());
      std::copy_n(this->strides_.begin() + 1, Rank - 1, strides.begin());
      return TensorView<T, Rank - 1>(data, extents, strides);
    }
  }

  /// The elements from `first` on, before `end`, of one dimension, as x[..., first:end] in Python.
  /// Throws std::out_of_range unless 0 <= first <= end <= extent. Of a known rank only: a view of a
  /// dynamic one borrows its extents from the managed tensor, which has none of a part's.
  [[nodiscard]] TensorView slice(std::size_t dimension, std::int64_t first, std::int64_t end) const
      requires(Rank != kDynamicRank) {
    if (first < 0 || first > end || end > this->extents_.at(dimension)) {
      detail::refuse_index(first < 0 || first > end ? first : end, dimension,
                           this->extents_[dimension]);
    }
    TensorView part = *this;
    part.data_ = this->stepped(dimension, end == first ? 0 : first);
    part.extents_[dimension] = end - first;
    return part;
  }

  /// The elements as one stretch of memory. Throws ConversionRefused where they have gaps.
  [[nodiscard]] std::span<T> as_span() const {
    if (!this->is_contiguous()) {
      detail::refuse_view("with gaps between its elements", "a std::span has none",
                          detail::kCallForACopy);
    }
    return {this->data_, static_cast<std::size_t>(this->size())};
  }

  /// Goes over the elements in C order, whatever their strides are.
  class Iterator {
   public:
    using value_type = std::remove_const_t<T>;
    using difference_type = std::ptrdiff_t;

    Iterator() = default;
    [[nodiscard]] T& operator*() const noexcept { return *element_; }
    Iterator& operator++() noexcept {
      ++count_;
      // Never a step past the last: the stride of a dimension without a second element may be
      // anything.
      for (std::size_t i = view_->rank(); i-- > 0;) {
        if (++indices_[i] < view_->extents_[i]) {
          element_ += view_->strides_[i];
          return *this;
        }
        element_ -= (indices_[i] - 1) * view_->strides_[i];
        indices_[i] = 0;
      }
      return *this;
    }
    Iterator operator++(int) noexcept {
      Iterator before = *this;
      ++*this;
      return before;
    }
    friend bool operator==(const Iterator& a, const Iterator& b) noexcept {
      return a.count_ == b.count_;
    }

   private:
    friend TensorView;
    Iterator(const TensorView* view, std::int64_t count) noexcept
        : view_(view), element_(view->data_), count_(count) {}

    const TensorView* view_ = nullptr;
    T* element_ = nullptr;
    std::int64_t count_ = 0;
    std::array<std::int64_t, Rank == kDynamicRank ? kMaxDimensions : Rank> indices_{};
  };

  using iterator = Iterator;
  using const_iterator = Iterator;
  /// The view must outlive its iterators.
  [[nodiscard]] Iterator begin() const noexcept { return {this, 0}; }
  [[nodiscard]] Iterator end() const noexcept { return {this, this->size()}; }

 private:
  template <typename, std::size_t>
  friend class TensorView;

  TensorView(T* data, const typename Base::Dimensions& extents,
             const typename Base::Dimensions& strides) noexcept
      : Base(data, extents, strides) {}
};

/// The same for memory of a device, which only a kernel may read: an address, the shape, and the
/// stream that the memory is ordered on. The managed tensor must outlive the view.
template <typename T, std::size_t Rank>
class DeviceView : public detail::Look<T, Rank> {
 public:
  /// Throws ConversionRefused when the tensor is empty, of another type or rank, in host memory
  /// that no device reads, or is read-only while T is not const. `ordered_on`: of a tensor from
  /// another core, as from_python() gives it, the stream that it says.
  explicit DeviceView(const ManagedTensor& tensor, std::optional<Stream> ordered_on = {})
      : detail::Look<T, Rank>(tensor),
        device_(tensor.device()),
        stream_(ordered_on ? *ordered_on : managed_stream(tensor.device())) {
    if (device_.type == kDLCPU) {
      detail::refuse_view("on " + to_string(device_), "the view is of a device's memory",
                          "a TensorView");
    }
  }
  explicit DeviceView(ManagedTensor&&, std::optional<Stream> = {}) = delete;

  [[nodiscard]] Device device() const noexcept { return device_; }
  /// Work on this stream comes after what wrote the memory; work elsewhere has to wait for it.
  [[nodiscard]] Stream stream() const noexcept { return stream_; }

 private:
  Device device_;
  Stream stream_;
};

namespace detail {

template <std::size_t Rank, typename First, typename... Others, typename Visitor>
decltype(auto) visit_as(const ManagedTensor& tensor, Visitor& look) {
  if (tensor.dtype() == dtype_of<First>()) {
    return look(TensorView<const First, Rank>(tensor));
  }
  if constexpr (sizeof...(Others) != 0) {
    return visit_as<Rank, Others...>(tensor, look);
  } else {
    refuse_visit(tensor.dtype());
  }
}

}  // namespace detail

/// Calls `look(view)` with a TensorView<const T, Rank> of the tensor, of the T that it is of: bool,
/// the integers of 8 to 64 bits, float, double and their complex numbers. Returns what that
/// returns, of one type for every T. Throws ConversionRefused for another type or rank, and what
/// the view throws.
template <std::size_t Rank = kDynamicRank, typename Visitor>
decltype(auto) visit(const ManagedTensor& tensor, Visitor&& look) {
  if (!tensor) {
    detail::refuse_empty();
  }
  return detail::visit_as<Rank, float, double, std::int64_t, std::int32_t, std::uint8_t, bool,
                          std::int8_t, std::int16_t, std::uint16_t, std::uint32_t, std::uint64_t,
                          std::complex<float>, std::complex<double>>(tensor, look);
}

}  // namespace dlbridge

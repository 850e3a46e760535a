#include "carry/fit.hpp"

#include <algorithm>
#include <array>
#include <limits>
#include <optional>
#include <utility>

#include "dlbridge/error.hpp"
#include "dlbridge/managed_tensor.hpp"

namespace dlbridge::detail {
namespace {

constexpr std::int64_t least_of(DType dtype) {
  return dtype.is(kDLInt) ? INT64_MIN >> (64 - dtype.bits) : 0;
}

constexpr std::uint64_t most_of(DType dtype) {
  return UINT64_MAX >> (64 - dtype.bits + (dtype.is(kDLInt) ? 1 : 0));
}

/// Reads the integers of a source, widened to 64 bits, in C order.
template <class Wide>
class Scan {
 public:
  explicit Scan(const CopyJob& job) : job_(job), row_(job) {
    row_.ndim = 1;
    row_.shape = &count_;
    row_.source_strides_bytes = job.ndim == 0 ? &kStep : job.source_strides_bytes + job.ndim - 1;
    row_.target = wide_.data();
    row_.target_strides_bytes = &kStep;
    row_.target_dtype = {std::numeric_limits<Wide>::is_signed ? kDLInt : kDLUInt, 64};
    do {
      read_row();
    } while (next_row());
  }

  [[noreturn]] void refuse() const {
    if (!met_) {  // the source was written to meanwhile
      const std::string why = "an integer did not fit, and has been changed since";
      throw ConversionRefused("cannot cast " + to_string(job_.source_dtype) + " to " +
                                  to_string(job_.target_dtype) + ": " + why,
                              {why});
    }
    const auto least =
        std::cmp_greater(least_, INT64_MAX) ? INT64_MAX : static_cast<std::int64_t>(least_);
    const auto most = std::cmp_less(most_, 0) ? 0 : static_cast<std::uint64_t>(most_);
    throw ValueOutOfRange(
        {place_, std::to_string(*met_), job_.source_dtype, job_.target_dtype, least, most});
  }

 private:
  static constexpr std::int64_t kStep = sizeof(Wide);

  void read_row() {
    const std::int64_t length = job_.ndim == 0 ? 1 : job_.shape[job_.ndim - 1];
    const auto* row = static_cast<const std::byte*>(job_.source);
    for (std::int32_t i = 0; i + 1 < job_.ndim; ++i) {
      row += index_[static_cast<std::size_t>(i)] * job_.source_strides_bytes[i];
    }
    for (std::int64_t begin = 0; begin < length; begin += count_) {
      count_ = std::min<std::int64_t>(length - begin, std::ssize(wide_));
      row_.source = row + begin * *row_.source_strides_bytes;
      copy_elements(row_);
      for (std::size_t i = 0; i < static_cast<std::size_t>(count_); ++i) {
        read(wide_[i], begin + static_cast<std::int64_t>(i));
      }
    }
  }

  void read(Wide value, std::int64_t column) {
    least_ = std::min(least_, value);
    most_ = std::max(most_, value);
    if (!met_ && (std::cmp_less(value, least_of(job_.target_dtype)) ||
                  std::cmp_greater(value, most_of(job_.target_dtype)))) {
      met_ = value;
      for (std::int32_t i = 0; i < job_.ndim; ++i) {
        const bool last = i + 1 == job_.ndim;
        place_ += (i == 0 ? "[" : ", ") +
                  std::to_string(last ? column : index_[static_cast<std::size_t>(i)]);
      }
      place_ += place_.empty() ? "" : "]";
    }
  }

  bool next_row() {
    for (std::int32_t i = job_.ndim - 2; i >= 0; --i) {
      std::int64_t& index = index_[static_cast<std::size_t>(i)];
      if (++index < job_.shape[i]) {
        return true;
      }
      index = 0;
    }
    return false;
  }

  const CopyJob& job_;
  CopyJob row_;
  std::int64_t count_ = 0;
  std::array<Wide, 512> wide_;                        // NOLINT: filled as far as used
  std::array<std::int64_t, kMaxDimensions> index_{};  // of the row
  Wide least_ = std::numeric_limits<Wide>::max();
  Wide most_ = std::numeric_limits<Wide>::min();
  std::optional<Wide> met_;
  std::string place_;
};

}  // namespace

void require_held(const CopyJob& job, bool held, CastWarning* warning) {
  if (held) {
    return;
  }
  const bool to_integer = job.target_dtype.kind() == DType::Kind::kInteger;
  if (to_integer && job.source_dtype.is(kDLInt)) {
    Scan<std::int64_t>(job).refuse();
  }
  if (to_integer && job.source_dtype.is(kDLUInt)) {
    Scan<std::uint64_t>(job).refuse();
  }
  if (warning != nullptr) {
    *warning = to_integer ? CastWarning::kInvalid : CastWarning::kOverflow;
  }
}

}  // namespace dlbridge::detail

namespace dlbridge {

DType holder_of(const OutOfRange& met) noexcept {
  const DLDataTypeCode asked = met.to.is(kDLInt) ? kDLInt : kDLUInt;
  for (const int bits : {8, 16, 32, 64}) {
    for (const DLDataTypeCode code : {asked, asked == kDLInt ? kDLUInt : kDLInt}) {
      const DType dtype(code, bits);
      if (met.dtypes.contains(dtype) && met.least >= detail::least_of(dtype) &&
          met.most <= detail::most_of(dtype)) {
        return dtype;
      }
    }
  }
  return {};
}

}  // namespace dlbridge

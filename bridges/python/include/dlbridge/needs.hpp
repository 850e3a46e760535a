#pragma once

// What a function in C++ asks of its argument beyond element type and rank, said in its type.

#include <cstdint>
#include <string_view>
#include <type_traits>
#include <utility>

#include "dlbridge/python.hpp"

namespace dlbridge {

/// A need: changes what the parameter takes, and says so in the signature. Others may be added; a
/// constant policy of one's own is a struct of these two members.
template <typename Need>
concept ParameterNeed = requires(Parameter& parameter) {
  Need::add_to(parameter);
  { Need::kName } -> std::convertible_to<std::string_view>;
};

/// In C order: a copy where it is not, unless it is written to.
struct CContiguous {
  static constexpr std::string_view kName = "C-contiguous";
  static constexpr void add_to(Parameter& parameter) { parameter.c_order = true; }
};

/// Elements of another type are cast to that of the view, in a copy.
struct Casting {
  static constexpr std::string_view kName = "casting";
  static constexpr void add_to(Parameter& parameter) {
    parameter.cast_to = parameter.dtype;
    parameter.dtype = {};
  }
};

/// No other overload is there for what does not fit by type or rank: the TypeError says what was
/// passed and what was wanted, where that of the binder names the object's type alone.
struct Alone {
  static constexpr std::string_view kName = "alone";
  static constexpr void add_to(Parameter& /*parameter*/) {}
};

/// On the first device of that type, a DLDeviceType.
template <std::int32_t kType>
struct OnDevice {
  static constexpr std::string_view kName = "on one device";
  static constexpr void add_to(Parameter& parameter) { parameter.device = Device(kType, 0); }
};

/// Under a preset, whatever block of dlbridge.policy() the caller is in.
struct Strict {
  static constexpr std::string_view kName = "strict";
  static constexpr void add_to(Parameter& parameter) { parameter.policy = Policy::strict(); }
};
struct ZeroCopy {
  static constexpr std::string_view kName = "zero-copy";
  static constexpr void add_to(Parameter& parameter) { parameter.policy = Policy::zero_copy(); }
};
struct Snapshot {
  static constexpr std::string_view kName = "snapshot";
  static constexpr void add_to(Parameter& parameter) { parameter.policy = Policy::snapshot(); }
};

/// A parameter that is a Taken, a ManagedTensor or a view, for which the needs are met:
/// `Needs<TensorView<const float, 2>, CContiguous>`. As a view, it is valid during the call.
template <typename Taken, ParameterNeed... Need>
class Needs : public Taken {
 public:
  explicit Needs(Taken taken) noexcept(std::is_nothrow_move_constructible_v<Taken>)
      : Taken(std::move(taken)) {}
};

}  // namespace dlbridge

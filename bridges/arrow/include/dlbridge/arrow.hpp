#pragma once

// The bridge out of Arrow: columns, by its C data and C stream interfaces. No library of Arrow's is
// needed (https://arrow.apache.org/docs/format/CDataInterface.html, CStreamInterface.html).

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "dlbridge/convert.hpp"

namespace dlbridge {

namespace arrow {

/// The structs as Arrow lays them out; pointers to its own may be cast to these. A struct whose
/// `release` is null was released, or moved elsewhere.
struct Schema {
  const char* format;
  const char* name;
  const char* metadata;
  std::int64_t flags;
  std::int64_t n_children;
  Schema** children;
  Schema* dictionary;
  void (*release)(Schema*);
  void* private_data;
};

struct Array {
  std::int64_t length;
  std::int64_t null_count;  // -1 where nobody has counted
  std::int64_t offset;
  std::int64_t n_buffers;
  std::int64_t n_children;
  const void** buffers;
  Array** children;
  Array* dictionary;
  void (*release)(Array*);
  void* private_data;
};

/// https://arrow.apache.org/docs/format/CDeviceDataInterface.html
struct DeviceArray {
  Array array;
  std::int64_t device_id;
  std::int32_t device_type;  // numbered as DLPack does
  void* sync_event;          // to be waited for; null where nothing is under way
  std::int64_t reserved[3];
};

struct Stream {
  int (*get_schema)(Stream*, Schema* out);
  int (*get_next)(Stream*, Array* out);
  const char* (*get_last_error)(Stream*);
  void (*release)(Stream*);
  void* private_data;
};

/// The values of one column in one chunk, as they lie in memory.
struct Part {
  const std::byte* values;  // of whole bytes: the first one; of bits: the byte where bits begin
  std::int64_t first_bit;   // counted from there
  std::int64_t first_row;   // of the result
  std::int64_t rows;
  std::int64_t column;
};

}  // namespace arrow

/// What an Arrow producer hands out, as one tensor: a column of numbers is one of one dimension,
/// columns of one type side by side (a struct or a table) are one of two, and lists of one length
/// have a dimension more. Nobody writes to such memory. Move-only.
class ArrowColumns {
 public:
  /// Moves both out of their structs, and releases each once: the schema before this returns, the
  /// array when the last user of its memory ends, or before this throws. Throws ConversionRefused
  /// for what contradicts itself, std::bad_alloc.
  [[nodiscard]] static ArrowColumns take(arrow::Schema& schema, arrow::Array& array);

  /// The same of an array that says where it is. Of what the processor cannot read, or not yet,
  /// ConversionRefused, after both were released.
  [[nodiscard]] static ArrowColumns take(arrow::Schema& schema, arrow::DeviceArray& array);

  /// The same of a stream, which is read to its end and released. Its own errors come as
  /// ConversionRefused, in its own words.
  [[nodiscard]] static ArrowColumns take(arrow::Stream& stream);

 private:
  friend struct Arrow;
  friend class ArrowReader;

  // Owner of what has to be released; shared with the views.
  struct Memory;

  ArrowColumns() = default;

  std::shared_ptr<Memory> memory_;
  std::vector<arrow::Part> parts_;
  std::vector<std::int64_t> shape_;
  std::int64_t width_ = 1;  // columns side by side
  std::int64_t inner_ = 1;  // elements of one row of a column
  DType dtype_{kDLUInt, 8};
  bool bits_ = false;  // eight booleans to a byte
  bool nulls_ = false;
  bool mixed_ = false;      // of several types, which `other_type_` names
  bool readonly_ = true;    // not of what was gathered
  std::string other_type_;  // of what no tensor holds, in Arrow's words; empty otherwise
  std::string apart_;       // why no strides reach the values; empty where they do
};

/// The bridge, a producer. A column without gaps is a read-only view; chunks, columns side by side
/// and booleans, which are bits, are gathered into memory of its own; nulls are refused, and so is
/// what holds no numbers.
struct Arrow {
  using Object = ArrowColumns;
  static constexpr Library kLibrary{"Arrow", "Arrow array"};

  static void describe(const ArrowColumns& columns, Source& source);
  [[nodiscard]] static ManagedTensor acquire(const ArrowColumns& columns, const Source& source);
  [[nodiscard]] static ArrowColumns prepare(const ArrowColumns& columns, const Leg& leg);

  /// What acquire() holds, and what ends it: for whoever has to end it in another way. On any
  /// thread.
  [[nodiscard]] static void* hold(const ArrowColumns& columns);
  static void let_go(void* held) noexcept;

  /// What prepare() makes, as it is.
  [[nodiscard]] static ManagedTensor gather(const ArrowColumns& columns);
};

}  // namespace dlbridge

#pragma once

#include <string>
#include <vector>

#include "dlbridge/arrow.hpp"

namespace dlbridge {

namespace detail {

[[noreturn]] void refuse_arrow(const std::string& fault);

}  // namespace detail

struct ArrowColumns::Memory {
  Memory() = default;
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;
  ~Memory();

  std::vector<arrow::Array> arrays;
  ManagedTensor gathered;
};

/// Reads a schema, then chunk by chunk, as hostile: an Arrow array does not say how long its
/// buffers are, so that only what contradicts itself can be found.
class ArrowReader {
 public:
  explicit ArrowReader(const arrow::Schema& schema);

  /// Takes the chunk over, whatever is found in it.
  void keep(arrow::Array& chunk);

  [[nodiscard]] ArrowColumns finish();

 private:
  // A dimension that lists make. Offsets are of so many bytes; of lists of one size there are none.
  struct Level {
    std::int64_t size;  // of every list; -1 while none was met
    int offset_bytes;
  };

  std::string read_type(const arrow::Schema& schema);
  void read_column(const arrow::Array& top, std::int64_t first, std::int64_t count,
                   std::int64_t column);
  std::int64_t enter_list(const arrow::Array& array, Level& level, std::int64_t first,
                          std::int64_t count);
  void look_for_nulls(const arrow::Array& array, std::int64_t first, std::int64_t count);

  ArrowColumns columns_;
  std::vector<Level> levels_;
  std::int64_t rows_ = 0;
  std::int64_t chunks_ = 0;  // that have rows
  bool frame_ = false;
  bool nulls_above_ = false;  // not among the numbers of a column alone: no fill helps with these
};

}  // namespace dlbridge

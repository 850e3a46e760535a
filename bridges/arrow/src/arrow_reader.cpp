#include "arrow_reader.hpp"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <utility>

namespace dlbridge {
namespace {

using detail::refuse_arrow;

struct NumberRow {
  char format;
  DType dtype;
};
constexpr NumberRow kNumbers[] = {
    {'c', {kDLInt, 8}},    {'C', {kDLUInt, 8}},   {'s', {kDLInt, 16}},   {'S', {kDLUInt, 16}},
    {'i', {kDLInt, 32}},   {'I', {kDLUInt, 32}},  {'l', {kDLInt, 64}},   {'L', {kDLUInt, 64}},
    {'e', {kDLFloat, 16}}, {'f', {kDLFloat, 32}}, {'g', {kDLFloat, 64}}, {'b', {kDLBool, 8}},
};

// What else a column may hold, by how its format begins.
struct OtherRow {
  std::string_view format;
  std::string_view name;
};
constexpr OtherRow kOthers[] = {
    {"n", "null"},   {"u", "string"},     {"U", "string"},    {"vu", "string"},   {"z", "binary"},
    {"Z", "binary"}, {"vz", "binary"},    {"w:", "binary"},   {"d:", "decimal"},  {"td", "date"},
    {"tt", "time"},  {"ts", "timestamp"}, {"tD", "duration"}, {"ti", "interval"}, {"+s", "struct"},
    {"+m", "map"},   {"+u", "union"},     {"+r", "run-end"},  {"+vl", "list"},    {"+vL", "list"},
    {"+l", "list"},  {"+L", "list"},      {"+w", "list"},
};

// What an extension of Arrow's types calls itself, or an empty text: its values mean something else
// than the numbers that they are stored as.
std::string extension_of(const arrow::Schema& schema) {
  const char* at = schema.metadata;
  if (at == nullptr) {
    return {};
  }
  const auto number = [&at] {
    std::int32_t value = 0;
    std::memcpy(&value, at, sizeof value);
    at += sizeof value;
    return value < 0 ? 0 : value;
  };
  const auto text = [&] {
    const auto size = static_cast<std::size_t>(number());
    const std::string_view found(at, size);
    at += size;
    return found;
  };
  for (std::int32_t left = number(); left > 0; --left) {
    const std::string_view key = text();
    const std::string_view value = text();
    if (key == "ARROW:extension:name") {
      return std::string(value);
    }
  }
  return {};
}

std::string name_of(const arrow::Schema& schema) {
  const std::string_view format = schema.format;
  if (schema.dictionary != nullptr) {
    return "dictionary";
  }
  for (const OtherRow& row : kOthers) {
    if (format.starts_with(row.format)) {
      return std::string(row.name);
    }
  }
  return std::string(format);
}

void require_format(const arrow::Schema* schema) {
  if (schema == nullptr || schema->format == nullptr || schema->format[0] == '\0') {
    refuse_arrow("its schema has no format");
  }
  if (schema->n_children < 0 || (schema->n_children > 0 && schema->children == nullptr)) {
    refuse_arrow("its schema has no children where it says so");
  }
}

void require_sound(const arrow::Array& array, std::int64_t buffers, std::int64_t children) {
  std::int64_t end = 0;
  if (array.length < 0 || array.offset < 0 ||
      __builtin_add_overflow(array.length, array.offset, &end)) {
    refuse_arrow("its length and offset are no count of elements");
  }
  if (array.n_buffers != buffers || array.n_children != children) {
    refuse_arrow("it has other buffers or children than its format");
  }
  if ((buffers > 0 && array.buffers == nullptr) || (children > 0 && array.children == nullptr)) {
    refuse_arrow("it has no buffers or children where it says so");
  }
  for (std::int64_t i = 0; i < children; ++i) {
    if (array.children[i] == nullptr || array.children[i]->release == nullptr) {
      refuse_arrow("a child of it is NULL, or was released or moved already");
    }
  }
}

// How far the elements of a list reach in its child, which has to have them.
void require_within(const arrow::Array& child, std::int64_t first, std::int64_t count) {
  std::int64_t end = 0;
  if (first < 0 || count < 0 || __builtin_add_overflow(first, count, &end) || end > child.length) {
    refuse_arrow("its child has fewer elements than it says");
  }
}

std::int64_t offset_at(const void* offsets, std::int64_t index, int bytes) {
  std::int32_t narrow = 0;
  std::int64_t wide = 0;
  if (bytes == 4) {
    std::memcpy(&narrow, static_cast<const std::byte*>(offsets) + index * 4, 4);
    return narrow;
  }
  std::memcpy(&wide, static_cast<const std::byte*>(offsets) + index * 8, 8);
  return wide;
}

bool all_set(const std::uint8_t* bits, std::int64_t first, std::int64_t count) {
  std::int64_t i = first;
  const std::int64_t end = first + count;
  while (i < end) {
    if ((i & 7) == 0 && end - i >= 8) {
      if (bits[i >> 3] != 0xff) {
        return false;
      }
      i += 8;
    } else if (((bits[i >> 3] >> (i & 7)) & 1) == 0) {
      return false;
    } else {
      ++i;
    }
  }
  return true;
}

}  // namespace

void detail::refuse_arrow(const std::string& fault) {
  throw ConversionRefused("cannot take this Arrow array in: " + fault, {fault});
}

ArrowColumns::Memory::~Memory() {
  for (arrow::Array& array : arrays) {
    array.release(&array);
  }
}

ArrowReader::ArrowReader(const arrow::Schema& schema) {
  columns_.memory_ = std::make_shared<ArrowColumns::Memory>();
  require_format(&schema);
  frame_ = std::string_view(schema.format) == "+s" && schema.dictionary == nullptr &&
           extension_of(schema).empty();
  if (!frame_) {
    columns_.other_type_ = read_type(schema);
    return;
  }
  columns_.width_ = schema.n_children;
  std::vector<std::string> met;
  bool numbers = schema.n_children > 0;
  for (std::int64_t i = 0; i < schema.n_children; ++i) {
    require_format(schema.children[i]);
    std::string other = read_type(*schema.children[i]);
    numbers = numbers && other.empty();
    std::string name = other.empty() ? to_string(columns_.dtype_) : std::move(other);
    if (std::find(met.begin(), met.end(), name) == met.end()) {
      met.push_back(std::move(name));
    }
  }
  if (numbers && met.size() == 1) {
    return;
  }
  columns_.mixed_ = met.size() > 1;
  for (const std::string& name : met) {
    columns_.other_type_ += (columns_.other_type_.empty() ? "" : ", ") + name;
  }
  if (met.empty()) {
    columns_.other_type_ = "struct";
  }
}

// Finds the type of the elements, and the levels above it; of other types returns the name.
std::string ArrowReader::read_type(const arrow::Schema& schema) {
  const arrow::Schema* at = &schema;
  std::string_view format = at->format;
  if (std::string extension = extension_of(schema); !extension.empty()) {
    return extension;
  }
  while (!frame_ && at->dictionary == nullptr && at->n_children == 1 &&
         levels_.size() + 2 < static_cast<std::size_t>(kMaxDimensions)) {
    if (format.starts_with("+w:")) {
      const std::int64_t size = std::strtoll(at->format + 3, nullptr, 10);
      if (size < 0) {
        refuse_arrow("its lists have a size below 0");
      }
      levels_.push_back({size, 0});
    } else if (levels_.empty() && (format == "+l" || format == "+L")) {
      levels_.push_back({-1, format == "+l" ? 4 : 8});
    } else {
      break;
    }
    at = at->children[0];
    require_format(at);
    format = at->format;
    if (std::string extension = extension_of(*at); !extension.empty()) {
      return extension;
    }
  }
  if (format.size() == 1 && at->dictionary == nullptr) {
    for (const NumberRow& row : kNumbers) {
      if (row.format == format[0]) {
        columns_.dtype_ = row.dtype;
        columns_.bits_ = row.format == 'b';
        return {};
      }
    }
  }
  return name_of(*at);
}

void ArrowReader::keep(arrow::Array& chunk) {
  columns_.memory_->arrays.push_back(chunk);
  chunk.release = nullptr;
  const arrow::Array& array = columns_.memory_->arrays.back();
  if (array.length < 0 || __builtin_add_overflow(rows_, array.length, &rows_)) {
    refuse_arrow("its length is no count of elements");
  }
  if (array.length == 0 || !columns_.other_type_.empty()) {
    return;
  }
  ++chunks_;
  const std::int64_t first_row = rows_ - array.length;
  const std::size_t before = columns_.parts_.size();
  if (frame_) {
    require_sound(array, 1, columns_.width_);
    look_for_nulls(array, 0, array.length);
    for (std::int64_t i = 0; i < columns_.width_; ++i) {
      read_column(*array.children[i], array.offset, array.length, i);
    }
  } else {
    read_column(array, 0, array.length, 0);
  }
  for (std::size_t i = before; i < columns_.parts_.size(); ++i) {
    columns_.parts_[i].first_row = first_row;
    columns_.parts_[i].rows = array.length;
  }
}

// `first` and `count` as elements of `top`, whose own offset comes on top of it.
void ArrowReader::read_column(const arrow::Array& top, std::int64_t first, std::int64_t count,
                              std::int64_t column) {
  const arrow::Array* at = &top;
  for (Level& level : levels_) {
    require_sound(*at, level.offset_bytes == 0 ? 1 : 2, 1);
    require_within(*at, first, count);
    look_for_nulls(*at, first, count);
    const arrow::Array& child = *at->children[0];
    first = enter_list(*at, level, first, count);
    if (!columns_.other_type_.empty()) {
      return;
    }
    if (__builtin_mul_overflow(count, level.size, &count)) {
      refuse_arrow("its lists have more elements than can be counted");
    }
    at = &child;
  }
  require_sound(*at, 2, 0);
  require_within(*at, first, count);
  look_for_nulls(*at, first, count);
  const auto* values = static_cast<const std::byte*>(at->buffers[1]);
  if (values == nullptr && count != 0) {
    refuse_arrow("it has elements and no values");
  }
  const std::int64_t start = at->offset + first;
  const std::int64_t size = columns_.bits_ ? 0 : columns_.dtype_.itemsize();
  columns_.parts_.push_back({values + start * size, columns_.bits_ ? start : 0, 0, 0, column});
}

// Where the elements of the lists begin in their child.
std::int64_t ArrowReader::enter_list(const arrow::Array& array, Level& level, std::int64_t first,
                                     std::int64_t count) {
  const std::int64_t start = array.offset + first;
  if (level.offset_bytes == 0) {
    std::int64_t there = 0;
    if (__builtin_mul_overflow(start, level.size, &there)) {
      refuse_arrow("its lists have more elements than can be counted");
    }
    return there;
  }
  const void* offsets = array.buffers[1];
  if (offsets == nullptr) {
    refuse_arrow("it has lists and no offsets");
  }
  const std::int64_t begin = offset_at(offsets, start, level.offset_bytes);
  std::int64_t before = begin;
  for (std::int64_t i = 1; i <= count; ++i) {
    const std::int64_t after = offset_at(offsets, start + i, level.offset_bytes);
    if (before < 0 || after < before) {
      refuse_arrow("its offsets run backwards");
    }
    level.size = level.size < 0 ? after - before : level.size;
    if (after - before != level.size) {
      columns_.other_type_ = "list (of different lengths)";
      return 0;
    }
    before = after;
  }
  return begin;
}

void ArrowReader::look_for_nulls(const arrow::Array& array, std::int64_t first,
                                 std::int64_t count) {
  if (array.null_count == 0 || array.n_buffers == 0) {
    return;
  }
  const auto* bits = static_cast<const std::uint8_t*>(array.buffers[0]);
  if (bits == nullptr) {
    if (array.null_count > 0) {
      refuse_arrow("it has nulls and does not say which");
    }
    return;
  }
  const bool met = !all_set(bits, array.offset + first, count);
  columns_.nulls_ = columns_.nulls_ || met;
  nulls_above_ = nulls_above_ || (met && (!levels_.empty() || array.n_children != 0));
}

ArrowColumns ArrowReader::finish() {
  std::vector<std::int64_t>& shape = columns_.shape_;
  shape.push_back(rows_);
  if (nulls_above_ && columns_.other_type_.empty()) {
    columns_.other_type_ = frame_ ? "struct (with nulls)" : "list (with nulls)";
  }
  if (!columns_.other_type_.empty()) {
    columns_.nulls_ = false;
    columns_.parts_.clear();
    return std::move(columns_);
  }
  if (frame_) {
    shape.push_back(columns_.width_);
  }
  for (const Level& level : levels_) {
    shape.push_back(level.size < 0 ? 0 : level.size);
    columns_.inner_ *= rows_ == 0 ? 0 : shape.back();
  }
  if (rows_ == 0 || columns_.inner_ == 0) {
    columns_.parts_.clear();
  } else if (columns_.bits_) {
    columns_.apart_ = "its booleans are bits";
  } else if (columns_.width_ > 1) {
    columns_.apart_ = "its " + std::to_string(columns_.width_) + " columns lie apart";
  } else if (chunks_ > 1) {
    columns_.apart_ = "its " + std::to_string(chunks_) + " chunks lie apart";
  }
  return std::move(columns_);
}

}  // namespace dlbridge

#include "dlbridge/arrow.hpp"

#include <algorithm>
#include <array>
#include <cstring>
#include <utility>

#include "arrow_reader.hpp"

namespace dlbridge {
namespace {

// Of a frame this much is gathered at a time, so that rows are still near when the next column
// comes.
constexpr std::int64_t kBlockBytes = 128 * 1024;

// Released once, whoever throws.
template <class Struct>
class Owned {
 public:
  Owned() = default;
  explicit Owned(Struct& from) : value_(std::exchange(from, {})) {}
  Owned(const Owned&) = delete;
  Owned& operator=(const Owned&) = delete;
  ~Owned() {
    if (value_.release != nullptr) {
      value_.release(&value_);
    }
  }
  Struct& operator*() noexcept { return value_; }
  Struct* operator->() noexcept { return &value_; }

 private:
  Struct value_{};
};

void require_ok(int code, arrow::Stream& stream, std::string_view what) {
  if (code == 0) {
    return;
  }
  const char* said = stream.get_last_error == nullptr ? nullptr : stream.get_last_error(&stream);
  detail::refuse_arrow(std::string(what) + " (" +
                       (said == nullptr ? "error " + std::to_string(code) : std::string(said)) +
                       ")");
}

// Eight booleans of a byte each, by the byte that has their bits.
constexpr auto kUnpacked = [] {
  std::array<std::array<std::byte, 8>, 256> all{};
  for (std::size_t bits = 0; bits < all.size(); ++bits) {
    for (std::size_t i = 0; i < 8; ++i) {
      all[bits][i] = static_cast<std::byte>((bits >> i) & 1);
    }
  }
  return all;
}();

void unpack_bits(const std::byte* bits, std::int64_t first, std::int64_t count, std::byte* to,
                 std::int64_t stride) {
  std::int64_t i = 0;
  while (i < count) {
    const std::int64_t bit = first + i;
    const auto& byte = kUnpacked[static_cast<std::size_t>(bits[bit >> 3])];
    if (stride == 1 && (bit & 7) == 0 && count - i >= 8) {
      std::memcpy(to + i, byte.data(), 8);
      i += 8;
    } else {
      to[i * stride] = byte[static_cast<std::size_t>(bit & 7)];
      ++i;
    }
  }
}

// One after the other, `stride` elements apart there.
void copy_elements(const std::byte* from, DType dtype, std::int64_t count, std::byte* to,
                   std::int64_t stride) {
  Source source;
  std::int64_t packed = 1;
  source.tensor = {const_cast<std::byte*>(from), Device{}.dl(), 1, dtype.dl(), &count, &packed, 0};
  DLTensor target = source.tensor;
  target.data = to;
  target.strides = &stride;
  carry_out_into(Leg{Who::kEngine, 0, dtype, Device{}}, source, target);
}

}  // namespace

ArrowColumns ArrowColumns::take(arrow::Schema& schema, arrow::Array& array) {
  Owned<arrow::Schema> type(schema);
  Owned<arrow::Array> values(array);
  if (type->release == nullptr || values->release == nullptr) {
    detail::refuse_arrow("it was released or moved already");
  }
  ArrowReader reader(*type);
  reader.keep(*values);
  return reader.finish();
}

ArrowColumns ArrowColumns::take(arrow::Schema& schema, arrow::DeviceArray& array) {
  const Device device{static_cast<DLDeviceType>(array.device_type),
                      static_cast<std::int32_t>(array.device_id)};
  if (!device.host_accessible() || array.sync_event != nullptr) {
    const Owned<arrow::Schema> type(schema);
    const Owned<arrow::Array> values(array.array);
    detail::refuse_arrow("it is on " + to_string(device) +
                         (device.host_accessible()
                              ? ", and work on it is under way, which nothing here waits for"
                              : ", and columns are read on the host"));
  }
  return take(schema, array.array);
}

ArrowColumns ArrowColumns::take(arrow::Stream& stream) {
  Owned<arrow::Stream> from(stream);
  if (from->release == nullptr || from->get_schema == nullptr || from->get_next == nullptr) {
    detail::refuse_arrow("its stream was released or moved already");
  }
  Owned<arrow::Schema> type;
  require_ok(from->get_schema(&*from, &*type), *from, "its stream gave no schema");
  if (type->release == nullptr) {
    detail::refuse_arrow("its stream gave no schema");
  }
  ArrowReader reader(*type);
  while (true) {
    Owned<arrow::Array> chunk;
    require_ok(from->get_next(&*from, &*chunk), *from, "its stream broke off");
    if (chunk->release == nullptr) {
      return reader.finish();
    }
    reader.keep(*chunk);
  }
}

void Arrow::describe(const ArrowColumns& columns, Source& source) {
  if (source.traits.library == nullptr) {
    source.traits.library = &kLibrary;
  }
  const std::vector<std::int64_t>& shape = columns.shape_;
  DLTensor& tensor = source.tensor;
  tensor.dtype = columns.dtype_.dl();
  tensor.device = Device{}.dl();
  tensor.ndim = static_cast<std::int32_t>(shape.size());
  tensor.shape = const_cast<std::int64_t*>(shape.data());
  tensor.strides = source.room.data();
  fill_c_strides(shape, tensor.strides);
  Conditions& conditions = source.traits.conditions;
  conditions.add_if(columns.readonly_, Condition::kReadOnly);
  conditions.add_if(columns.nulls_, Condition::kNulls);
  if (!columns.other_type_.empty()) {
    conditions.add(columns.mixed_ ? Condition::kMixedTypes : Condition::kInexpressibleDType);
    source.traits.no_numbers = !columns.mixed_;
    source.detail = columns.other_type_;
    tensor.dtype = DLDataType{0, 0, 1};
  } else if (!columns.apart_.empty()) {
    conditions.add(Condition::kScattered);
    source.detail = columns.apart_;
  } else if (!columns.parts_.empty()) {
    tensor.data = const_cast<std::byte*>(columns.parts_.front().values);
  }
}

ManagedTensor Arrow::acquire(const ArrowColumns& columns, const Source& source) {
  return ManagedTensor::own(source.tensor, columns.readonly_ ? DLPACK_FLAG_BITMASK_READ_ONLY : 0,
                            {hold(columns), let_go});
}

void* Arrow::hold(const ArrowColumns& columns) {
  return new std::shared_ptr<ArrowColumns::Memory>(columns.memory_);
}

void Arrow::let_go(void* held) noexcept {
  delete static_cast<std::shared_ptr<ArrowColumns::Memory>*>(held);
}

ManagedTensor Arrow::gather(const ArrowColumns& columns) {
  ManagedTensor made = ManagedTensor::allocate(columns.dtype_, columns.shape_);
  auto* to = static_cast<std::byte*>(made.data());
  const std::int64_t size = columns.dtype_.itemsize();
  const std::int64_t width = columns.width_;
  const std::int64_t inner = columns.inner_;
  const std::int64_t block =
      std::max<std::int64_t>(256, kBlockBytes / std::max<std::int64_t>(width * size, 1));
  const auto copy = [&](const arrow::Part& part, std::int64_t first, std::int64_t rows) {
    std::byte* there = to + ((part.first_row + first) * width * inner + part.column) * size;
    if (columns.bits_) {
      unpack_bits(part.values, part.first_bit + first * inner, rows * inner, there, width);
    } else {
      copy_elements(part.values + first * inner * size, columns.dtype_, rows * inner, there, width);
    }
  };
  const std::vector<arrow::Part>& parts = columns.parts_;  // by chunk, then by column
  for (std::size_t chunk = 0; chunk < parts.size(); chunk += static_cast<std::size_t>(width)) {
    const std::int64_t rows = parts[chunk].rows;
    const std::int64_t step = width == 1 ? rows : block;
    for (std::int64_t first = 0; first < rows; first += step) {
      for (std::size_t i = chunk; i < chunk + static_cast<std::size_t>(width); ++i) {
        copy(parts[i], first, std::min(step, rows - first));
      }
    }
  }
  return made;
}

ArrowColumns Arrow::prepare(const ArrowColumns& columns, const Leg& /*leg*/) {
  ManagedTensor made = gather(columns);
  ArrowColumns gathered;
  gathered.shape_ = columns.shape_;
  gathered.dtype_ = columns.dtype_;
  gathered.readonly_ = false;
  gathered.parts_.push_back({static_cast<const std::byte*>(made.data()), 0, 0, 0, 0});
  gathered.memory_ = std::make_shared<ArrowColumns::Memory>();
  gathered.memory_->gathered = std::move(made);
  return gathered;
}

}  // namespace dlbridge

// Columns as Arrow's C interfaces hand them out, made by hand; and what lies about itself.

#include "dlbridge/arrow.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cerrno>
#include <deque>
#include <limits>
#include <string>
#include <vector>

namespace dlbridge {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::ThrowsMessage;

int released = 0;

void release_schema(arrow::Schema* schema) {
  ++released;
  schema->release = nullptr;
}
void release_array(arrow::Array* array) {
  ++released;
  array->release = nullptr;
}

// Keeps what the structs of a test point to.
class Maker {
 public:
  arrow::Schema schema(const char* format, std::vector<arrow::Schema*> children = {}) {
    auto& kept = schema_children_.emplace_back(std::move(children));
    return {format,      "",      nullptr,        0,      static_cast<std::int64_t>(kept.size()),
            kept.data(), nullptr, release_schema, nullptr};
  }
  arrow::Schema* child(const char* format, std::vector<arrow::Schema*> children = {}) {
    return &schemas_.emplace_back(schema(format, std::move(children)));
  }
  arrow::Array array(std::int64_t length, std::vector<const void*> buffers,
                     std::vector<arrow::Array*> children = {}, std::int64_t offset = 0,
                     std::int64_t nulls = 0) {
    auto& kept = buffers_.emplace_back(std::move(buffers));
    auto& below = array_children_.emplace_back(std::move(children));
    return {length,
            nulls,
            offset,
            static_cast<std::int64_t>(kept.size()),
            static_cast<std::int64_t>(below.size()),
            kept.data(),
            below.data(),
            nullptr,
            release_array,
            nullptr};
  }
  arrow::Array* child_array(std::int64_t length, std::vector<const void*> buffers,
                            std::vector<arrow::Array*> children = {}, std::int64_t offset = 0,
                            std::int64_t nulls = 0) {
    return &arrays_.emplace_back(
        array(length, std::move(buffers), std::move(children), offset, nulls));
  }

 private:
  std::deque<std::vector<arrow::Schema*>> schema_children_;
  std::deque<std::vector<arrow::Array*>> array_children_;
  std::deque<std::vector<const void*>> buffers_;
  std::deque<arrow::Schema> schemas_;
  std::deque<arrow::Array> arrays_;
};

// A stream of arrays that are there already; `fails_at` says which one cannot be had.
struct Chunks {
  arrow::Schema schema;
  std::vector<arrow::Array> arrays;
  std::size_t next = 0;
  std::size_t fails_at = std::numeric_limits<std::size_t>::max();

  arrow::Stream stream() {
    return {[](arrow::Stream* from, arrow::Schema* out) {
              *out = static_cast<Chunks*>(from->private_data)->schema;
              return 0;
            },
            [](arrow::Stream* from, arrow::Array* out) {
              auto& chunks = *static_cast<Chunks*>(from->private_data);
              if (chunks.next == chunks.fails_at) {
                return EIO;
              }
              *out = chunks.next < chunks.arrays.size() ? chunks.arrays[chunks.next++]
                                                        : arrow::Array{};
              return 0;
            },
            [](arrow::Stream*) { return "the disk is full"; },
            [](arrow::Stream* from) {
              ++released;
              from->release = nullptr;
            },
            this};
  }
};

// Of a tensor in C order.
template <class T>
std::vector<T> values_of(const ManagedTensor& tensor) {
  const auto* first = static_cast<const T*>(tensor.data());
  return std::vector<T>(first, first + element_count(tensor.tensor()));
}

class ArrowTest : public ::testing::Test {
 protected:
  void SetUp() override { released = 0; }

  ManagedTensor managed(const ArrowColumns& columns, const Policy& policy = {}) {
    return to_managed<Arrow>(columns, managed_tensor_capabilities(), policy);
  }

  Maker make;
};

TEST_F(ArrowTest, AColumnWithoutGapsIsAReadOnlyViewThatKeepsItsMemory) {
  const std::int64_t numbers[] = {1, 2, 3, 4};
  arrow::Schema schema = make.schema("l");
  arrow::Array array = make.array(3, {nullptr, numbers}, {}, 1);
  ManagedTensor view;
  {
    const ArrowColumns columns = ArrowColumns::take(schema, array);
    EXPECT_EQ(schema.release, nullptr);
    EXPECT_EQ(array.release, nullptr);
    EXPECT_EQ(released, 1);
    view = managed(columns, Policy::zero_copy());
  }
  EXPECT_EQ(released, 1);
  EXPECT_EQ(view.data(), numbers + 1);
  EXPECT_TRUE(view.readonly());
  EXPECT_THAT(view.shape(), ElementsAre(3));
  view = {};
  EXPECT_EQ(released, 2);
}

TEST_F(ArrowTest, ChunksAreGathered) {
  const float first[] = {1, 2};
  const float second[] = {3, 4, 5};
  Chunks chunks{make.schema("f"),
                {make.array(2, {nullptr, first}), make.array(0, {nullptr, nullptr}),
                 make.array(2, {nullptr, second}, {}, 1)}};
  arrow::Stream stream = chunks.stream();
  const ArrowColumns columns = ArrowColumns::take(stream);
  EXPECT_EQ(stream.release, nullptr);
  EXPECT_EQ(released, 2);  // the stream and its schema
  EXPECT_THAT([&] { (void)managed(columns, Policy::zero_copy()); },
              ThrowsMessage<ConversionRefused>(HasSubstr("its 2 chunks lie apart")));
  const ManagedTensor made = managed(columns);
  EXPECT_FALSE(made.readonly());
  EXPECT_THAT(values_of<float>(made), ElementsAre(1, 2, 4, 5));
}

TEST_F(ArrowTest, OneChunkAmongEmptyOnesIsAView) {
  const float only[] = {1, 2};
  Chunks chunks{make.schema("f"),
                {make.array(0, {nullptr, nullptr}), make.array(2, {nullptr, only})}};
  arrow::Stream stream = chunks.stream();
  EXPECT_EQ(managed(ArrowColumns::take(stream), Policy::zero_copy()).data(), only);
  EXPECT_EQ(released, 4);
}

TEST_F(ArrowTest, BooleansAreUnpacked) {
  const std::uint8_t bits[] = {0b10110101, 0b01};
  arrow::Schema schema = make.schema("b");
  arrow::Array array = make.array(7, {nullptr, bits}, {}, 2);
  const ManagedTensor made = managed(ArrowColumns::take(schema, array));
  EXPECT_EQ(made.dtype(), DType(kDLBool, 8));
  EXPECT_THAT(values_of<bool>(made), ElementsAre(true, false, true, true, false, true, true));
}

TEST_F(ArrowTest, ManyBooleansAreUnpackedFromAnyBit) {
  std::vector<std::uint8_t> bits(40);
  for (std::size_t i = 0; i < bits.size(); ++i) {
    bits[i] = static_cast<std::uint8_t>(i * 37 + 11);
  }
  for (std::int64_t offset = 0; offset < 17; ++offset) {
    for (const std::int64_t count : {0, 1, 7, 8, 9, 64, 300}) {
      arrow::Schema schema = make.schema("b");
      arrow::Array array = make.array(count, {nullptr, bits.data()}, {}, offset);
      const auto found = values_of<bool>(managed(ArrowColumns::take(schema, array)));
      for (std::int64_t i = 0; i < count; ++i) {
        const std::int64_t bit = offset + i;
        ASSERT_EQ(found[static_cast<std::size_t>(i)],
                  ((bits[static_cast<std::size_t>(bit / 8)] >> (bit % 8)) & 1) != 0);
      }
    }
  }
}

TEST_F(ArrowTest, ColumnsOfOneTypeAreATwoDimensionalTensorInCOrder) {
  std::vector<double> left(1000);
  std::vector<double> right(1000);
  for (int i = 0; i < 1000; ++i) {
    left[static_cast<std::size_t>(i)] = i;
    right[static_cast<std::size_t>(i)] = -i;
  }
  arrow::Schema schema = make.schema("+s", {make.child("g"), make.child("g")});
  // The struct's own offset comes on top of its children's.
  arrow::Array array = make.array(900, {nullptr},
                                  {make.child_array(990, {nullptr, left.data()}, {}, 10),
                                   make.child_array(1000, {nullptr, right.data()})},
                                  50);
  const ManagedTensor made = managed(ArrowColumns::take(schema, array));
  EXPECT_THAT(made.shape(), ElementsAre(900, 2));
  const auto values = values_of<double>(made);
  for (std::size_t i = 0; i < 900; ++i) {
    ASSERT_EQ(values[2 * i], static_cast<double>(i) + 60);
    ASSERT_EQ(values[2 * i + 1], -static_cast<double>(i) - 50);
  }
}

TEST_F(ArrowTest, ABooleanFrameIsUnpackedByColumn) {
  const std::uint8_t left = 0b101;
  const std::uint8_t right = 0b110;
  arrow::Schema schema = make.schema("+s", {make.child("b"), make.child("b")});
  arrow::Array array =
      make.array(3, {nullptr},
                 {make.child_array(3, {nullptr, &left}), make.child_array(3, {nullptr, &right})});
  EXPECT_THAT(values_of<bool>(managed(ArrowColumns::take(schema, array))),
              ElementsAre(true, false, false, true, true, true));
}

TEST_F(ArrowTest, AFrameOfOneColumnIsAView) {
  const double numbers[] = {1, 2};
  arrow::Schema schema = make.schema("+s", {make.child("g")});
  arrow::Array array = make.array(2, {nullptr}, {make.child_array(2, {nullptr, numbers})});
  const ManagedTensor view = managed(ArrowColumns::take(schema, array), Policy::zero_copy());
  EXPECT_EQ(view.data(), numbers);
  EXPECT_THAT(view.shape(), ElementsAre(2, 1));
}

TEST_F(ArrowTest, ListsOfOneSizeAreAnotherDimension) {
  const std::int16_t numbers[] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11};
  arrow::Schema schema = make.schema("+w:2", {make.child("+w:3", {make.child("s")})});
  arrow::Array array =
      make.array(1, {nullptr},
                 {make.child_array(4, {nullptr}, {make.child_array(12, {nullptr, numbers})})}, 1);
  const ManagedTensor view = managed(ArrowColumns::take(schema, array), Policy::zero_copy());
  EXPECT_THAT(view.shape(), ElementsAre(1, 2, 3));
  EXPECT_EQ(view.data(), numbers + 6);
}

TEST_F(ArrowTest, ListsAreOneTensorWhereAllHaveOneLength) {
  const float numbers[] = {0, 1, 2, 3, 4, 5};
  const std::int32_t even[] = {0, 2, 4, 6};
  const std::int32_t ragged[] = {0, 1, 4, 6};
  arrow::Schema schema = make.schema("+l", {make.child("f")});
  arrow::Array array = make.array(2, {nullptr, even}, {make.child_array(6, {nullptr, numbers})}, 1);
  const ManagedTensor view = managed(ArrowColumns::take(schema, array), Policy::zero_copy());
  EXPECT_THAT(view.shape(), ElementsAre(2, 2));
  EXPECT_EQ(view.data(), numbers + 2);
  schema = make.schema("+l", {make.child("f")});
  array = make.array(3, {nullptr, ragged}, {make.child_array(6, {nullptr, numbers})});
  const ArrowColumns columns = ArrowColumns::take(schema, array);
  EXPECT_THAT([&] { (void)managed(columns); },
              ThrowsMessage<ConversionRefused>(HasSubstr("list (of different lengths)")));
}

TEST_F(ArrowTest, NullsAreRefusedOnlyWhereTheyAreMet) {
  const double numbers[] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12};
  const std::uint8_t all_but_the_first[] = {0xfe, 0xff};
  arrow::Schema schema = make.schema("g");
  arrow::Array array = make.array(12, {all_but_the_first, numbers}, {}, 0, 1);
  const ArrowColumns with = ArrowColumns::take(schema, array);
  EXPECT_THAT([&] { (void)managed(with); },
              ThrowsMessage<ConversionRefused>(HasSubstr("with nulls")));
  schema = make.schema("g");
  array = make.array(11, {all_but_the_first, numbers}, {}, 1, -1);
  EXPECT_EQ(managed(ArrowColumns::take(schema, array), Policy::zero_copy()).data(), numbers + 1);
}

TEST_F(ArrowTest, WhatHoldsNoNumbersIsNamed) {
  for (const auto& [format, name] :
       std::vector<std::pair<const char*, const char*>>{{"u", "string"},
                                                        {"tdD", "date"},
                                                        {"tsu:UTC", "timestamp"},
                                                        {"d:10,2", "decimal"},
                                                        {"+s", "struct"},
                                                        {"n", "null"},
                                                        {"?", "?"}}) {
    arrow::Schema schema = make.schema(format);
    arrow::Array array = make.array(3, {nullptr, nullptr, nullptr});
    const ArrowColumns columns = ArrowColumns::take(schema, array);
    EXPECT_THAT([&] { (void)managed(columns); },
                ThrowsMessage<ConversionRefused>(HasSubstr("of dtype " + std::string(name))));
  }
  arrow::Schema schema =
      make.schema("+s", {make.child("l"), make.child("u"), make.child("l"), make.child("g")});
  arrow::Array array = make.array(3, {nullptr});
  EXPECT_THAT(
      [&] { (void)managed(ArrowColumns::take(schema, array)); },
      ThrowsMessage<ConversionRefused>(HasSubstr("with columns of int64, string, float64")));
}

TEST_F(ArrowTest, AnExtensionOfTheTypesMeansMoreThanItsNumbers) {
  const std::int64_t numbers[] = {1, 2};
  std::string metadata;
  const auto number = [&](std::int32_t value) {
    metadata.append(reinterpret_cast<const char*>(&value), sizeof value);
  };
  number(2);
  for (const std::string text : {"PARQUET:id", "7", "ARROW:extension:name", "pandas.period"}) {
    number(static_cast<std::int32_t>(text.size()));
    metadata += text;
  }
  arrow::Schema schema = make.schema("l");
  schema.metadata = metadata.c_str();
  arrow::Array array = make.array(2, {nullptr, numbers});
  const ArrowColumns columns = ArrowColumns::take(schema, array);
  EXPECT_THAT([&] { (void)managed(columns); },
              ThrowsMessage<ConversionRefused>(HasSubstr("of dtype pandas.period")));
  schema = make.schema("+s", {make.child("l")});
  schema.metadata = metadata.c_str();
  array = make.array(2, {nullptr}, {make.child_array(2, {nullptr, numbers})});
  EXPECT_THAT([&] { (void)managed(ArrowColumns::take(schema, array)); },
              ThrowsMessage<ConversionRefused>(HasSubstr("of dtype pandas.period")));
}

TEST_F(ArrowTest, NullsThatNoNumberCouldFillAreNamedSo) {
  const std::int64_t numbers[] = {1, 2};
  const std::uint8_t second = 0b01;
  arrow::Schema schema = make.schema("+w:1", {make.child("l")});
  arrow::Array array =
      make.array(2, {nullptr}, {make.child_array(2, {&second, numbers}, {}, 0, 1)});
  EXPECT_THAT([&] { (void)managed(ArrowColumns::take(schema, array)); },
              ThrowsMessage<ConversionRefused>(HasSubstr("list (with nulls)")));
  schema = make.schema("+s", {make.child("l")});
  array = make.array(2, {&second}, {make.child_array(2, {nullptr, numbers})}, 0, 1);
  EXPECT_THAT([&] { (void)managed(ArrowColumns::take(schema, array)); },
              ThrowsMessage<ConversionRefused>(HasSubstr("struct (with nulls)")));
}

TEST_F(ArrowTest, NothingIsTakenFromAnEmptyColumn) {
  arrow::Schema schema = make.schema("b");
  arrow::Array array = make.array(0, {nullptr, nullptr});
  EXPECT_THAT(managed(ArrowColumns::take(schema, array)).shape(), ElementsAre(0));
  schema = make.schema("+l", {make.child("l")});
  array = make.array(0, {nullptr, nullptr}, {make.child_array(0, {nullptr, nullptr})});
  EXPECT_THAT(managed(ArrowColumns::take(schema, array)).shape(), ElementsAre(0, 0));
}

// What contradicts itself is refused, and released: schema and array, once each.
TEST_F(ArrowTest, WhatLiesIsRefusedAndReleasedOnce) {
  constexpr std::int64_t kMost = std::numeric_limits<std::int64_t>::max();
  const double numbers[] = {1, 2};
  const std::int32_t backwards[] = {4, 2, 0};
  const auto column = [&](std::int64_t length, std::vector<const void*> buffers,
                          std::int64_t offset = 0, std::int64_t nulls = 0) {
    return std::pair(make.schema("g"), make.array(length, std::move(buffers), {}, offset, nulls));
  };
  const auto no_buffers = [](auto made) {
    made.second.buffers = nullptr;
    return made;
  };
  std::vector<std::pair<arrow::Schema, arrow::Array>> lies{
      column(-1, {nullptr, numbers}),
      column(2, {nullptr, numbers}, -1),
      column(2, {nullptr, numbers}, kMost),
      column(2, {nullptr}),
      column(2, {nullptr, numbers, numbers}),
      column(2, {nullptr, nullptr}),
      column(2, {nullptr, numbers}, 0, 1),
      no_buffers(column(2, {nullptr, numbers})),
      {make.schema(nullptr), make.array(2, {nullptr, numbers})},
      {make.schema(""), make.array(2, {nullptr, numbers})},
      {make.schema("+s", {nullptr}), make.array(2, {nullptr}, {nullptr})},
      {make.schema("+s", {make.child("g")}), make.array(2, {nullptr}, {nullptr})},
      {make.schema("+s", {make.child("g")}), make.array(2, {nullptr})},
      {make.schema("+s", {make.child("g")}),
       make.array(2, {nullptr}, {make.child_array(1, {nullptr, numbers})})},
      {make.schema("+w:-2", {make.child("g")}), make.array(1, {nullptr}, {})},
      {make.schema("+w:2", {make.child("g")}),
       make.array(2, {nullptr}, {make.child_array(2, {nullptr, numbers})})},
      {make.schema("+w:9223372036854775807", {make.child("g")}),
       make.array(2, {nullptr}, {make.child_array(2, {nullptr, numbers})})},
      {make.schema("+l", {make.child("g")}),
       make.array(2, {nullptr, backwards}, {make.child_array(2, {nullptr, numbers})})},
      {make.schema("+l", {make.child("g")}),
       make.array(2, {nullptr, nullptr}, {make.child_array(2, {nullptr, numbers})})},
  };
  for (std::size_t i = 0; i < lies.size(); ++i) {
    SCOPED_TRACE(i);
    released = 0;
    EXPECT_THROW((void)ArrowColumns::take(lies[i].first, lies[i].second), ConversionRefused);
    EXPECT_EQ(released, 2);
    EXPECT_EQ(lies[i].first.release, nullptr);
    EXPECT_EQ(lies[i].second.release, nullptr);
  }
}

TEST_F(ArrowTest, LengthsThatNoMemoryHasAreRefused) {
  const double numbers[] = {1};
  arrow::Schema schema = make.schema("g");
  arrow::Array array = make.array(std::numeric_limits<std::int64_t>::max(), {nullptr, numbers});
  EXPECT_THROW((void)managed(ArrowColumns::take(schema, array)), ConversionRefused);
  EXPECT_EQ(released, 2);
}

TEST_F(ArrowTest, WhatWasReleasedOrMovedIsRefused) {
  arrow::Schema schema{};
  arrow::Array array{};
  arrow::Stream stream{};
  EXPECT_THAT([&] { (void)ArrowColumns::take(schema, array); },
              ThrowsMessage<ConversionRefused>(HasSubstr("released or moved")));
  EXPECT_THAT([&] { (void)ArrowColumns::take(stream); },
              ThrowsMessage<ConversionRefused>(HasSubstr("released or moved")));
}

TEST_F(ArrowTest, AStreamThatBreaksOffSaysWhyAndLeavesNothing) {
  const float first[] = {1, 2};
  Chunks chunks{make.schema("f"), {make.array(2, {nullptr, first})}};
  chunks.fails_at = 1;
  arrow::Stream stream = chunks.stream();
  EXPECT_THAT([&] { (void)ArrowColumns::take(stream); },
              ThrowsMessage<ConversionRefused>(HasSubstr("the disk is full")));
  EXPECT_EQ(released, 3);
}

}  // namespace
}  // namespace dlbridge

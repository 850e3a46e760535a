// Two made-up libraries with bridges of their own, and what crosses between them: Quill makes
// tensors, and some of them sparse or out of reach; Ledger takes them, and cannot always.

#include "dlbridge/convert.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "lib/doubles.hpp"

namespace dlbridge {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::StrEq;
using ::testing::ThrowsMessage;

struct Sheet {  // Quill's tensor
  std::shared_ptr<std::vector<float>> ink;
  std::vector<std::int64_t> shape;
  std::vector<std::int64_t> strides;
  Conditions conditions{};
  Device device{};
};

Sheet sheet(std::vector<float> values = {0, 1, 2, 3, 4, 5}) {
  return {std::make_shared<std::vector<float>>(std::move(values)), {2, 3}, {3, 1}};
}

struct Quill {
  using Object = Sheet;
  static constexpr Library kLibrary{
      .name = "quill", .object = "quill.Sheet", .fixes = {{{Condition::kSparse, "x.filled_in()"}}}};
  static inline int acquired = 0;
  static inline int prepared = 0;
  static inline std::vector<std::int64_t> made_of{};  // another shape than it is asked for

  static void describe(const Sheet& sheet, Source& source) {
    source.traits.library = &kLibrary;
    source.traits.conditions = sheet.conditions;
    source.traits.copies_to_host = true;
    source.tensor.data = sheet.ink->data();
    source.tensor.device = sheet.device.dl();
    source.tensor.dtype = DType(kDLFloat, 32).dl();
    source.tensor.ndim = static_cast<std::int32_t>(sheet.shape.size());
    source.tensor.shape = const_cast<std::int64_t*>(sheet.shape.data());
    source.tensor.strides = const_cast<std::int64_t*>(sheet.strides.data());
  }
  static ManagedTensor acquire(const Sheet& sheet, Source& source) {
    ++acquired;
    auto* held = new std::shared_ptr<std::vector<float>>(sheet.ink);
    return ManagedTensor::own(source.tensor, 0,
                              {held, [](void* context) noexcept {
                                 delete static_cast<std::shared_ptr<std::vector<float>>*>(context);
                               }});
  }
  static Sheet prepare(const Sheet& sheet, const Leg& leg) {
    ++prepared;
    Sheet dense = sheet;
    dense.ink = std::make_shared<std::vector<float>>(*sheet.ink);
    if (!made_of.empty()) {
      dense.shape = made_of;
      dense.strides = {1};
    }
    if (leg.has(Step::kDetach)) {
      dense.conditions.remove(Condition::kInGraph);
    }
    if (leg.has(Step::kDensify)) {
      dense.conditions.remove(Condition::kSparse);
    }
    if (leg.has(Step::kCopyToHost)) {
      dense.device = Device{};
    }
    return dense;
  }
};

// The same tensors from a bridge that can prepare nothing.
struct PlainQuill {
  using Object = Sheet;
  static void describe(const Sheet& sheet, Source& source) { Quill::describe(sheet, source); }
  static ManagedTensor acquire(const Sheet& sheet, Source& source) {
    return Quill::acquire(sheet, source);
  }
};

// One that says of its tensors what it then does not do.
struct CarelessQuill {
  using Object = Sheet;
  static inline ManagedTensor (*acquire_instead)(const DLTensor&) = nullptr;
  static inline std::int32_t ndim = 2;
  static void describe(const Sheet& sheet, Source& source) {
    Quill::describe(sheet, source);
    source.tensor.shape = ndim == 2 ? source.tensor.shape : nullptr;
    source.tensor.ndim = ndim;
  }
  static ManagedTensor acquire(const Sheet& /*sheet*/, Source& source) {
    return acquire_instead(source.tensor);
  }
};

struct Page {  // Ledger's tensor
  ManagedTensor tensor;
  [[nodiscard]] std::vector<float> values() const {
    const auto* first = static_cast<const float*>(tensor.data());
    return {first, first + element_count(tensor.tensor())};
  }
};

struct Ledger {
  using Object = Page;
  static inline bool fails = false;

  static const Capabilities& capabilities(const Source& /*source*/) {
    static constexpr Capabilities kCapabilities{
        .name = "Ledger",
        .result = "ledger.Page",
        .devices = DeviceSet::host(),
        .wants_host = true,
        .dtypes = DTypeSet::of({"float32", "float64"}),
        .strides = StrideSupport::kCompact,
    };
    return kCapabilities;
  }
  static Page deliver(ManagedTensor tensor) {
    if (fails) {
      throw std::length_error("the ledger is full");
    }
    return {std::move(tensor)};
  }
};

static_assert(Producer<Quill> && Preparer<Quill> && !Consumer<Quill>);
static_assert(Producer<PlainQuill> && !Preparer<PlainQuill>);
static_assert(Consumer<Ledger> && !Producer<Ledger>);

// Nearly bridges: each lacks one thing.
struct ReturnsAPointer {
  using Object = Sheet;
  static void describe(const Sheet&, Source&) {}
  static DLManagedTensorVersioned* acquire(const Sheet&, Source&) { return nullptr; }
};
struct NamesNoObject {
  static void describe(const Sheet&, Source&) {}
  static ManagedTensor acquire(const Sheet&, Source&) { return {}; }
};
struct TellsNoCapabilities {
  using Object = Page;
  static Page deliver(ManagedTensor tensor) { return {std::move(tensor)}; }
};
struct DeliversAnotherType {
  using Object = Page;
  static const Capabilities& capabilities(const Source& source) {
    return Ledger::capabilities(source);
  }
  static Sheet deliver(ManagedTensor) { return {}; }
};
static_assert(!Producer<ReturnsAPointer> && !Producer<NamesNoObject> && !Producer<Ledger>);
static_assert(!Consumer<TellsNoCapabilities> && !Consumer<DeliversAnotherType>);

// What must not compile (what a bridge lacks is said in words: tests/house/test_messages.py),
// beside what differs from it in nothing but the mistake.
template <typename From, typename To, typename Object>
concept Converts = requires(Object object) {
  convert<From, To>(object);
};
static_assert(Converts<Quill, Ledger, Sheet>);
static_assert(!Converts<Quill, Ledger, Page>);

class Crossing : public ::testing::Test {
 protected:
  void SetUp() override {
    Quill::acquired = 0;
    Quill::prepared = 0;
    Quill::made_of.clear();
    Ledger::fails = false;
  }
};

TEST_F(Crossing, shares_memory_that_outlives_its_source) {
  Sheet source = sheet();
  const float* ink = source.ink->data();
  const std::weak_ptr<std::vector<float>> watch = source.ink;
  {
    const Page page = convert<Quill, Ledger>(source, Policy::strict());
    EXPECT_EQ(page.tensor.data(), ink);
    EXPECT_FALSE(page.tensor.readonly());
    source = Sheet{};
    EXPECT_THAT(page.values(), ElementsAre(0, 1, 2, 3, 4, 5));
  }
  EXPECT_TRUE(watch.expired());
  EXPECT_EQ(Quill::acquired, 1);
}

TEST_F(Crossing, marks_a_view_read_only_where_the_plan_says_so) {
  Sheet source = sheet();
  source.conditions = {Condition::kInGraph};
  EXPECT_TRUE((convert<Quill, Ledger>(source).tensor.readonly()));
  EXPECT_EQ(source.ink.use_count(), 1);
}

TEST_F(Crossing, copies_without_taking_anything_from_the_source) {
  Sheet source = sheet();
  source.shape = {3, 2};
  source.strides = {1, 3};
  const Page page = convert<Quill, Ledger>(source);
  EXPECT_THAT(page.values(), ElementsAre(0, 3, 1, 4, 2, 5));
  EXPECT_NE(page.tensor.flags() & DLPACK_FLAG_BITMASK_IS_COPIED, 0U);
  EXPECT_EQ(Quill::acquired, 0);
}

TEST_F(Crossing, refuses_with_nothing_taken) {
  Sheet source = sheet();
  source.conditions = {Condition::kSparse};
  const auto crossing = [&] { (void)convert<Quill, Ledger>(source, Policy::strict()); };
  EXPECT_THAT(
      crossing,
      ThrowsMessage<ConversionRefused>(StrEq(
          "cannot view a quill.Sheet with a sparse layout as Ledger (its values do not lie where "
          "shape and strides would say); use Policy::host().with(Field::kLayout, Ruling::kDensify) "
          "to copy, or x.filled_in()")));
  EXPECT_EQ(Quill::acquired + Quill::prepared, 0);
  EXPECT_EQ(source.ink.use_count(), 1);
}

// A bridge that fills in less than it should.
struct Careless {
  using Object = Sheet;
  static inline int acquired = 0;
  static void describe(const Sheet& sheet, Source& source) {
    Quill::describe(sheet, source);
    source.traits.library = nullptr;
    if (sheet.ink->empty()) {
      source.tensor.data = nullptr;
    }
  }
  static ManagedTensor acquire(const Sheet& /*sheet*/, Source& /*source*/) {
    ++acquired;
    return {};
  }
};

const auto cross_carelessly = [](const Sheet& object, const Policy& policy = {}) {
  (void)convert<Careless, Ledger>(object, policy);
};

TEST_F(Crossing, refuses_what_a_bridge_without_words_describes) {
  Sheet in_graph = sheet();
  in_graph.conditions.add(Condition::kInGraph);
  EXPECT_THAT([&] { cross_carelessly(in_graph, Policy::strict()); },
              ThrowsMessage<ConversionRefused>(
                  HasSubstr("a tensor of an unnamed library that requires grad")));
}

TEST_F(Crossing, refuses_elements_at_no_address_before_they_are_acquired) {
  for (const Conditions conditions : {Conditions{}, Conditions{Condition::kReadOnly}}) {
    Sheet nowhere = sheet({});
    nowhere.conditions = conditions;
    EXPECT_THAT([&] { cross_carelessly(nowhere); },
                ThrowsMessage<ConversionRefused>(HasSubstr("NULL")));
    nowhere.strides = {1, 2};
    EXPECT_THROW(cross_carelessly(nowhere), ConversionRefused);
  }
  EXPECT_EQ(Careless::acquired, 0);
}

TEST_F(Crossing, gives_everything_back_when_the_consumer_fails) {
  Sheet source = sheet();
  Ledger::fails = true;
  const auto crossing = [&] { (void)convert<Quill, Ledger>(source); };
  EXPECT_THAT(crossing, ThrowsMessage<std::length_error>(StrEq("the ledger is full")));
  EXPECT_EQ(Quill::acquired, 1);
  EXPECT_EQ(source.ink.use_count(), 1);
}

TEST_F(Crossing, densifies_with_the_librarys_own_means_into_private_memory) {
  Sheet source = sheet();
  source.conditions = {Condition::kSparse};
  const Policy dense = Policy::host().with(Field::kLayout, Ruling::kDensify);
  const Page page = convert<Quill, Ledger>(source, dense);
  EXPECT_EQ(Quill::prepared, 1);
  EXPECT_NE(page.tensor.data(), source.ink->data());
  EXPECT_NE(page.tensor.flags() & DLPACK_FLAG_BITMASK_IS_COPIED, 0U);
  EXPECT_FALSE(page.tensor.readonly());
  EXPECT_EQ(source.ink.use_count(), 1);
}

TEST_F(Crossing, brings_device_memory_to_the_host_and_repacks_it_there) {
  Sheet source = sheet();
  source.device = Device(kDLCUDA, 0);
  source.shape = {3, 2};
  source.strides = {1, 3};
  const Page page = convert<Quill, Ledger>(source);
  EXPECT_EQ(Quill::prepared, 1);
  EXPECT_EQ(page.tensor.device(), Device{});
  EXPECT_THAT(page.values(), ElementsAre(0, 3, 1, 4, 2, 5));
  EXPECT_NE(page.tensor.flags() & DLPACK_FLAG_BITMASK_IS_COPIED, 0U);
}

TEST_F(Crossing, prepares_once_under_a_policy_that_always_copies) {
  Sheet source = sheet();
  source.device = Device(kDLCUDA, 0);
  const Page page = convert<Quill, Ledger>(source, Policy::snapshot());
  EXPECT_EQ(Quill::prepared, 1);
  EXPECT_NE(page.tensor.flags() & DLPACK_FLAG_BITMASK_IS_COPIED, 0U);
}

// What a graph asks of a view holds for no private copy.
TEST_F(Crossing, gives_private_memory_writable_whatever_the_source_was) {
  Sheet source = sheet();
  source.device = Device(kDLCUDA, 0);
  source.conditions = {Condition::kInGraph};
  EXPECT_FALSE((convert<Quill, Ledger>(source).tensor.readonly()));
}

TEST_F(Crossing, never_passes_off_unprepared_memory_as_the_hosts) {
  Sheet source = sheet();
  source.device = Device(kDLCUDA, 0);
  EXPECT_THROW((void)(convert<PlainQuill, Ledger>(source)), ConversionRefused);
  EXPECT_EQ(source.ink.use_count(), 1);
}

TEST_F(Crossing, plans_nothing_that_its_bridge_cannot_prepare) {
  Sheet source = sheet();
  source.conditions = {Condition::kSparse};
  const Policy dense = Policy::host().with(Field::kLayout, Ruling::kDensify);
  const detail::Opened<PlainQuill> door(source);
  const Capabilities& target = Ledger::capabilities(door.source);
  const Plan decided = plan(door.source, target, dense);
  EXPECT_EQ(decided.refused, Conditions{Condition::kSparse});
  EXPECT_EQ(explain(decided, door.source, target, dense).fix, "x.filled_in()");
  EXPECT_FALSE(plan(detail::Opened<Quill>(source).source, target, dense).is_refused());
}

TEST_F(Crossing, refuses_what_was_made_of_another_shape_than_was_asked_for) {
  Sheet source = sheet();
  source.device = Device(kDLCUDA, 0);
  Quill::made_of = {6};
  const auto crossing = [&] { (void)convert<Quill, Ledger>(source); };
  EXPECT_THAT(crossing, ThrowsMessage<ConversionRefused>(
                            HasSubstr("was asked for a plain tensor on cpu, and gave one on cpu of "
                                      "another dtype or shape")));
  EXPECT_EQ(source.ink.use_count(), 1);
}

TEST_F(Crossing, gives_nobody_to_write_to_what_was_described_as_read_only) {
  Sheet source = sheet();
  source.conditions = {Condition::kReadOnly};
  EXPECT_TRUE((convert<Quill, Ledger>(source).tensor.readonly()));
}

TEST_F(Crossing, refuses_what_is_not_acquired_as_it_was_described) {
  using Instead = ManagedTensor (*)(const DLTensor&);
  const Instead nothing = [](const DLTensor&) { return ManagedTensor{}; };
  const Instead integers = [](const DLTensor& tensor) {
    DLTensor other = tensor;
    other.dtype = DType(kDLInt, 32).dl();
    return ManagedTensor::own(other, 0, {});
  };
  const Instead elsewhere = [](const DLTensor& tensor) {
    DLTensor other = tensor;
    other.device = Device(kDLCUDA, 0).dl();
    return ManagedTensor::own(other, 0, {});
  };
  const Instead smaller = [](const DLTensor& tensor) {
    DLTensor other = tensor;
    other.ndim = 1;
    return ManagedTensor::own(other, 0, {});
  };
  const Instead transposed = [](const DLTensor& tensor) {
    std::int64_t strides[] = {1, 2};
    DLTensor other = tensor;
    other.strides = strides;
    return ManagedTensor::own(other, 0, {});
  };
  const Instead frozen = [](const DLTensor& tensor) {
    return ManagedTensor::own(tensor, DLPACK_FLAG_BITMASK_READ_ONLY, {});
  };
  const Sheet source = sheet();
  for (const Instead instead : {nothing, integers, elsewhere, smaller, transposed, frozen}) {
    CarelessQuill::acquire_instead = instead;
    EXPECT_THAT([&] { (void)(convert<CarelessQuill, Ledger>(source)); },
                ThrowsMessage<ConversionRefused>(HasSubstr("its bridge acquired ")));
  }
}

TEST_F(Crossing, refuses_an_address_that_was_corrected_to_one_its_target_cannot_read) {
  static std::array<float, 7> elsewhere;
  CarelessQuill::acquire_instead = [](const DLTensor& tensor) {
    DLTensor moved = tensor;
    moved.data = reinterpret_cast<char*>(elsewhere.data()) + 2;
    return ManagedTensor::own(moved, 0, {});
  };
  EXPECT_THAT([] { (void)(convert<CarelessQuill, Ledger>(sheet())); },
              ThrowsMessage<ConversionRefused>(HasSubstr("Ledger cannot read its elements")));
  Capabilities target = Ledger::capabilities(Source{});
  target.reads_unaligned = true;
  EXPECT_TRUE(to_managed<CarelessQuill>(sheet(), target));
}

TEST_F(Crossing, refuses_a_description_whose_shape_cannot_be_read) {
  for (const std::int32_t ndim : {-1, 3, 1000}) {
    CarelessQuill::ndim = ndim;
    EXPECT_THROW((void)(convert<CarelessQuill, Ledger>(sheet())), MalformedTensor);
  }
  CarelessQuill::ndim = 2;
}

// Also where it is more than any memory of ours has by itself.
TEST_F(Crossing, aligns_a_copy_as_its_target_needs_it) {
  const ManagedTensor tensor = to_managed<Quill>(sheet(), managed_tensor_capabilities());
  Capabilities target = Ledger::capabilities(Source{});
  for (const Request& request : {Request{}, Request{.dtype = dtype_named("float64")}}) {
    for (target.alignment = 64; target.alignment <= 1 << 21;
         target.alignment = 2 * target.alignment) {
      const auto copy = to_managed<DLPack>(tensor, target, Policy::snapshot(), request);
      EXPECT_TRUE(is_aligned(copy.tensor(), target)) << target.alignment;
    }
  }
}

TEST_F(Crossing, takes_a_requested_type) {
  Request request;
  request.dtype = DType(kDLFloat, 64);
  const Page page = convert<Quill, Ledger>(sheet(), Policy::host(), request);
  EXPECT_EQ(page.tensor.dtype(), DType(kDLFloat, 64));
  EXPECT_EQ(static_cast<const double*>(page.tensor.data())[5], 5.0);
  EXPECT_THROW((void)(convert<Quill, Ledger>(sheet(), Policy::zero_copy(), request)),
               ConversionRefused);
}

TEST_F(Crossing, ends_as_a_managed_tensor_that_carries_everything) {
  Sheet source = sheet();
  source.shape = {2, 2};
  source.strides = {1, -1};
  source.device = Device(kDLMetal, 0);
  const ManagedTensor tensor =
      to_managed<Quill>(source, managed_tensor_capabilities(), Policy::strict());
  EXPECT_THAT(tensor.strides(), ElementsAre(1, -1));
  EXPECT_EQ(tensor.device(), Device(kDLMetal, 0));
  EXPECT_EQ(source.ink.use_count(), 2);
}

TEST_F(Crossing, describes_a_managed_tensor_for_another_crossing) {
  Sheet source = sheet();
  ManagedTensor tensor = to_managed<Quill>(source, managed_tensor_capabilities());
  tensor.mark_read_only();
  Source described;
  describe(tensor, Quill::kLibrary, described);
  EXPECT_EQ(described.traits.conditions, Conditions{Condition::kReadOnly});
  EXPECT_EQ(described.traits.library, &Quill::kLibrary);
  EXPECT_EQ(described.tensor.data, source.ink->data());
  EXPECT_EQ(described.tensor.shape, tensor.tensor().shape);
}

TEST_F(Crossing, begins_at_a_managed_tensor_that_is_there) {
  const ManagedTensor tensor = to_managed<Quill>(sheet(), managed_tensor_capabilities());
  const auto view = to_managed<DLPack>(tensor, managed_tensor_capabilities());
  EXPECT_EQ(view.data(), tensor.data());
  const auto copy = to_managed<DLPack>(tensor, managed_tensor_capabilities(), Policy::snapshot());
  EXPECT_NE(copy.data(), tensor.data());
  EXPECT_EQ(copy.flags(), DLPACK_FLAG_BITMASK_IS_COPIED);
}

TEST_F(Crossing, refuses_a_managed_tensor_that_holds_nothing) {
  EXPECT_THAT(
      [] { (void)to_managed<DLPack>(ManagedTensor{}, managed_tensor_capabilities()); },
      ThrowsMessage<ConversionRefused>(HasSubstr("a DLPack tensor that is not initialised")));
}

}  // namespace
}  // namespace dlbridge

// What the NumPy bridge says of an array, what becomes of it under the policy, and what it makes of
// a managed tensor.

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <ostream>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "numpy/python_doubles.hpp"

namespace dlbridge {
namespace {

using doubles::Named;
using doubles::Ref;
using doubles::text_of;
using doubles::value_of;
using doubles::WithPython;

static_assert(PlainProducer<NumPy> && Consumer<NumPy> && !Preparer<NumPy>);

struct Kind {
  std::string name;
  std::string expression;
  Conditions conditions;
  std::string cells;  // for a torch-like target under strict, host, zero_copy, snapshot
};

void PrintTo(const Kind& kind, std::ostream* out) {
  *out << kind.name;
}

std::vector<Kind> kinds() {
  using enum Condition;
  const std::string six = "np.arange(6, dtype='f4').reshape(2, 3)";
  const std::string record = "np.zeros(4, dtype=[('a', 'f4'), ('b', 'i2')])";
  return {
      {"plain", six, {}, "VVVC"},
      {"transposed", six + ".T", {}, "VVVC"},
      {"offset", six + "[1:, 1:]", {}, "VVVC"},
      {"stepped", six + "[:, ::2]", {}, "VVVC"},
      {"fortran", "np.asfortranarray(" + six + ")", {}, "VVVC"},
      {"of_no_dimensions", "np.array(3.0)", {}, "VVVC"},
      {"empty", "np.zeros((0, 3))", {}, "VVVC"},
      {"of_a_plain_subclass", "np.matrix([[1.0, 2.0]])", {}, "VVVC"},
      {"unaligned", "np.zeros(9, 'u1')[1:].view('f4')", {}, "RCRC"},
      {"of_complex_numbers", "np.zeros(3, 'c16')", {}, "VVVC"},
      {"of_long_long", "np.zeros(3, np.ulonglong)", {}, "VVVC"},
      {"reversed", six + "[::-1]", {}, "RCRC"},
      {"reversed_along_one_element", "np.zeros((1, 4), 'f4')[::-1]", {}, "VVVC"},
      {"writable_overlap",
       "np.lib.stride_tricks.as_strided(np.zeros(4), (3, 2), (8, 8))",
       {},
       "VVVC"},
      {"read_only", "np.frombuffer(b'12345678', 'f4')", {kReadOnly}, "RCRC"},
      {"broadcast", "np.broadcast_to(np.zeros(3), (2, 3))", {kReadOnly}, "RCRC"},
      {"byte_swapped",
       "np.arange(3, dtype=np.dtype('f4').newbyteorder('S'))",
       {kSwappedBytes},
       "RCRC"},
      {"a_field_whose_stride_is_whole", record + "['b']", {}, "VVVC"},
      {"a_field_whose_stride_is_not", record + "['a']", {kFractionalStrides}, "RCRC"},
      {"one_element_of_a_field", record + "['a'][:1]", {}, "VVVC"},
      {"no_element_of_a_field", record + "['a'][:0]", {}, "VVVC"},
      {"masked", "np.ma.masked_array([1.0, 2.0], [True, False])", {kMasked}, "RRRR"},
      {"of_objects", "np.array([object()])", {kInexpressibleDType}, "RRRR"},
      {"of_text", "np.array(['a'])", {kInexpressibleDType}, "RRRR"},
      {"of_bytes", "np.array([b'a'])", {kInexpressibleDType}, "RRRR"},
      {"of_void", "np.zeros(2, 'V3')", {kInexpressibleDType}, "RRRR"},
      {"of_dates", "np.array(['2026-01-01'], 'M8[D]')", {kInexpressibleDType}, "RRRR"},
      {"of_time_differences", "np.zeros(2, 'm8[s]')", {kInexpressibleDType}, "RRRR"},
      {"structured", record, {kInexpressibleDType}, "RRRR"},
      {"of_long_double", "np.zeros(2, np.longdouble)", {kInexpressibleDType}, "RRRR"},
      {"of_complex_long_double", "np.zeros(2, np.clongdouble)", {kInexpressibleDType}, "RRRR"},
  };
}

class NoArray : public WithPython {};

TEST_F(NoArray, is_an_error_of_python) {
  for (const char* expression : {"None", "[1.0, 2.0]", "'text'", "np.float32(3)", "np.ndarray"}) {
    const Ref object = value_of(expression);
    Source source;
    EXPECT_THROW(NumPy::describe(object.get(), source), PythonError) << expression;
    EXPECT_NE(PyErr_ExceptionMatches(PyExc_TypeError), 0) << expression;
    PyErr_Clear();
    EXPECT_THROW((void)to_managed<NumPy>(object.get(), cases::kTorchLike), PythonError);
    PyErr_Clear();
  }
}

class Array : public WithPython, public ::testing::WithParamInterface<Kind> {};

TEST_P(Array, has_exactly_its_conditions) {
  const Ref array = value_of(GetParam().expression);
  Source source;
  NumPy::describe(array.get(), source);
  EXPECT_EQ(source.traits.conditions, GetParam().conditions);
  EXPECT_EQ(array.references(), 1);
}

TEST_P(Array, is_the_same_at_a_glance) {
  const std::set<std::string> plain{"plain", "of_no_dimensions", "unaligned", "of_complex_numbers",
                                    "of_long_long"};
  const Ref array = value_of(GetParam().expression);
  DLTensor glance{};
  ASSERT_EQ(NumPy::plain(array.get(), glance),
            plain.contains(GetParam().name) ? Glance::kPlain : Glance::kCloser);
  if (plain.contains(GetParam().name)) {
    Source closely;
    NumPy::describe(array.get(), closely);
    EXPECT_TRUE(closely.traits.conditions.empty());
    EXPECT_EQ(Device(glance.device), Device(closely.tensor.device));
    EXPECT_EQ(glance.data, closely.tensor.data);
    EXPECT_EQ(DType(glance.dtype), DType(closely.tensor.dtype));
    EXPECT_EQ(glance.ndim, closely.tensor.ndim);
    EXPECT_EQ(glance.shape, closely.tensor.shape);
    const auto ndim = static_cast<std::size_t>(glance.ndim);
    std::vector<std::int64_t> strides(ndim);
    fill_c_strides({glance.shape, ndim}, strides.data());
    EXPECT_TRUE(std::equal(strides.begin(), strides.end(), closely.tensor.strides));
  }
}

TEST_P(Array, crosses_as_the_policy_says_and_is_held_by_views_only) {
  for (std::size_t i = 0; i < cases::kPresets.size(); ++i) {
    SCOPED_TRACE(cases::kPresets[i].name);
    const Ref array = value_of(GetParam().expression);
    const char cell = GetParam().cells[i];
    const auto cross = [&] {
      return to_managed<NumPy>(array.get(), cases::kTorchLike, cases::kPresets[i].policy);
    };
    if (cell == 'R') {
      EXPECT_THROW((void)cross(), ConversionRefused);
      EXPECT_EQ(array.references(), 1);
      continue;
    }
    {
      const ManagedTensor tensor = cross();
      EXPECT_EQ(array.references(), cell == 'C' ? 1 : 2);
      EXPECT_FALSE(tensor.readonly());
      EXPECT_EQ((tensor.flags() & DLPACK_FLAG_BITMASK_IS_COPIED) != 0, cell == 'C');
      EXPECT_EQ(std::to_string(element_count(tensor.tensor())), text_of(array, "x.size"));
      // What it holds is what NumPy reads there.
      const Ref back(NumPy::deliver(tensor.share()));
      const Named y("y", back);
      EXPECT_EQ(text_of(array, "np.array_equal(x, y) and x.shape == y.shape"), "True");
    }
    EXPECT_EQ(array.references(), 1);
  }
}

INSTANTIATE_TEST_SUITE_P(Kind, Array, ::testing::ValuesIn(kinds()),
                         [](const auto& test) { return test.param.name; });

using Refusal = WithPython;

std::string refusal_of(const std::string& expression) {
  const Ref array = value_of(expression);
  try {
    (void)to_managed<NumPy>(array.get(), cases::kTorchLike, Policy::strict());
  } catch (const ConversionRefused& refused) {
    return refused.what();
  }
  return "nothing was refused";
}

TEST_F(Refusal, names_the_type_and_what_to_make_of_it) {
  EXPECT_EQ(refusal_of("np.array(['2026-01-01'], 'M8[D]')"),
            "cannot view a numpy.ndarray of dtype datetime64[D] as Flame (DLPack has no such "
            "type); use x.astype(\"int64\") (the unit is lost)");
  EXPECT_EQ(
      refusal_of("np.zeros(2, [('a', 'f4')])"),
      "cannot view a numpy.ndarray of dtype structured [('a', '<f4')] as Flame (DLPack has no such "
      "type); use x[\"a\"] (one of its fields)");
  EXPECT_EQ(refusal_of("np.zeros(2, object)"),
            "cannot view a numpy.ndarray of dtype object as Flame (DLPack has no such type); use "
            "x.astype(\"float64\") (if its items are numbers)");
}

TEST_F(Refusal, names_the_mask_and_the_call_that_fills_it) {
  EXPECT_EQ(refusal_of("np.ma.masked_array([1.0])"),
            "cannot view a numpy.ndarray with a mask as Flame (the mask would be lost); use "
            "x.filled() (the mask is lost)");
}

TEST_F(Refusal, of_read_only_memory_names_both_ways_out) {
  EXPECT_EQ(refusal_of("np.frombuffer(b'1234', 'f4')"),
            "cannot view a numpy.ndarray that nobody may write to as Flame (Flame does not know "
            "read-only memory); use Policy::host() to copy, or x.copy()");
}

// ---- types
// ----------------------------------------------------------------------------------------

using Types = WithPython;

TEST_F(Types, of_numpy_go_out_and_come_back_over_the_same_memory) {
  for (const char* name : {"bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32",
                           "uint64", "float16", "float32", "float64", "complex64", "complex128"}) {
    SCOPED_TRACE(name);
    const Ref array = value_of("np.zeros((2, 3), '" + std::string(name) + "')");
    ManagedTensor tensor = to_managed<NumPy>(array.get(), managed_tensor_capabilities());
    EXPECT_EQ(to_string(tensor.dtype()), name);
    const Ref back(NumPy::deliver(std::move(tensor)));
    EXPECT_EQ(text_of(back, "x.dtype.name"), name);
    EXPECT_EQ(text_of(back, "x.ctypes.data"), text_of(array, "x.ctypes.data"));
  }
}

TEST_F(Types, of_ml_dtypes_go_out_and_come_back_over_the_same_memory) {
  if (text_of(value_of("ml_dtypes"), "x is None") == "True") {
    GTEST_SKIP() << "ml_dtypes is not installed";
  }
  for (const char* name :
       {"bfloat16", "float8_e3m4", "float8_e4m3", "float8_e4m3b11fnuz", "float8_e4m3fn",
        "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz", "float8_e8m0fnu"}) {
    SCOPED_TRACE(name);
    const Ref array = value_of("np.ones((2, 3), ml_dtypes." + std::string(name) + ")");
    ManagedTensor tensor = to_managed<NumPy>(array.get(), managed_tensor_capabilities());
    EXPECT_EQ(to_string(tensor.dtype()), name);
    const Ref back(NumPy::deliver(std::move(tensor)));
    EXPECT_EQ(text_of(back, "x.dtype.name"), name);
    EXPECT_EQ(text_of(back, "x.ctypes.data"), text_of(array, "x.ctypes.data"));
  }
}

// C has more integers than widths: long and long long are of one type, but of two numbers.
TEST_F(Types, of_every_c_type_go_out) {
  for (const char* letter : {"?", "b", "h", "i", "l", "q", "B", "H", "I", "L",
                             "Q", "e", "f", "d", "F", "D", "p", "P", "n", "N"}) {
    SCOPED_TRACE(letter);
    const Ref descriptor = value_of("np.dtype('" + std::string(letter) + "')");
    const auto dtype = NumPy::dtype_of(descriptor.get());
    ASSERT_TRUE(dtype.has_value());
    EXPECT_EQ(to_string(*dtype), text_of(descriptor, "x.name"));
    EXPECT_EQ(text_of(Ref(NumPy::descriptor_of(*dtype)), "x.name"), text_of(descriptor, "x.name"));
  }
  for (const char* letter : {"g", "G", "O", "S3", "U3", "V3", "M8[s]", "m8[s]"}) {
    const Ref descriptor = value_of("np.dtype('" + std::string(letter) + "')");
    EXPECT_EQ(NumPy::dtype_of(descriptor.get()), std::nullopt) << letter;
  }
}

// Its int4 and float4 lie in whole bytes, which is another thing than DLPack's.
TEST_F(Types, of_ml_dtypes_that_are_padded_are_refused) {
  if (text_of(value_of("ml_dtypes"), "x is None") == "True") {
    GTEST_SKIP() << "ml_dtypes is not installed";
  }
  for (const char* name : {"int4", "uint4", "float4_e2m1fn", "float6_e2m3fn"}) {
    const Ref array = value_of("np.ones(3, ml_dtypes." + std::string(name) + ")");
    EXPECT_THROW((void)to_managed<NumPy>(array.get(), managed_tensor_capabilities()),
                 ConversionRefused)
        << name;
  }
}

TEST_F(Types, are_found_for_descriptors_in_native_order_only) {
  EXPECT_EQ(NumPy::dtype_of(value_of("np.dtype('f4')").get()), DType(kDLFloat, 32));
  EXPECT_EQ(NumPy::dtype_of(value_of("np.dtype('f4').newbyteorder('S')").get()), std::nullopt);
  EXPECT_EQ(NumPy::dtype_of(value_of("np.dtype('O')").get()), std::nullopt);
  EXPECT_EQ(text_of(Ref(NumPy::descriptor_of({kDLFloat, 16})), "x.name"), "float16");
  EXPECT_EQ(NumPy::descriptor_of({kDLFloat, 16, 2}), nullptr);
  EXPECT_EQ(NumPy::descriptor_of({kDLFloat, 128}), nullptr);
  EXPECT_EQ(NumPy::descriptor_of({kDLOpaqueHandle, 64}), nullptr);
  const Ref name = value_of("'float32'");
  EXPECT_EQ(text_of(Ref(NumPy::descriptor_from(name.get())), "x.itemsize"), "4");
}

TEST_F(Types, of_an_unknown_name_are_a_python_error) {
  const Ref name = value_of("'no such type'");
  EXPECT_EQ(NumPy::descriptor_from(name.get()), nullptr);
  EXPECT_TRUE(PyErr_ExceptionMatches(PyExc_TypeError));
  PyErr_Clear();
}

// ---- into NumPy
// -----------------------------------------------------------------------------------

using Delivery = WithPython;

TEST_F(Delivery, shares_memory_and_ends_its_lease_once_with_the_last_array) {
  doubles::Versioned producer({2, 3});
  producer.strides = {1, -2};
  producer.tensor().strides = producer.strides.data();
  producer.tensor().byte_offset = 16;
  {
    const Ref array(NumPy::deliver(ManagedTensor::adopt(&producer.managed)));
    EXPECT_EQ(text_of(array, "x.tolist()"), "[[4.0, 2.0, 0.0], [5.0, 3.0, 1.0]]");
    EXPECT_EQ(text_of(array, "x.strides"), "(4, -8)");
    EXPECT_EQ(text_of(array, "x.flags.writeable"), "True");
    EXPECT_EQ(text_of(array, "x.flags.owndata"), "False");
    EXPECT_EQ(text_of(array, "x.__setitem__((0, 0), 40)"), "None");
    EXPECT_EQ(producer.memory[4], 40.0F);
    const Named x("x", array);
    const Ref view = value_of("x[0, 1:]");
    EXPECT_EQ(producer.deleted(), 0);
  }
  EXPECT_EQ(producer.deleted(), 1);
}

TEST_F(Delivery, keeps_the_lease_for_a_view_of_the_array) {
  doubles::Versioned producer({2, 3});
  Ref view(nullptr);
  {
    const Ref array(NumPy::deliver(ManagedTensor::adopt(&producer.managed)));
    const Named x("x", array);
    view = value_of("x[1, 1:]");
  }
  EXPECT_EQ(producer.deleted(), 0);
  EXPECT_EQ(text_of(view, "x.tolist()"), "[4.0, 5.0]");
  view = Ref(nullptr);
  EXPECT_EQ(producer.deleted(), 1);
}

TEST_F(Delivery, of_read_only_memory_cannot_be_made_writable) {
  doubles::Versioned producer({2, 3});
  ManagedTensor tensor = ManagedTensor::adopt(&producer.managed);
  tensor.mark_read_only();
  const Ref array(NumPy::deliver(std::move(tensor)));
  EXPECT_EQ(text_of(array, "x.flags.writeable"), "False");
  EXPECT_EQ(PyObject_SetAttrString(Ref(PyObject_GetAttrString(array.get(), "flags")).get(),
                                   "writeable", Py_True),
            -1);
  EXPECT_TRUE(PyErr_ExceptionMatches(PyExc_ValueError));
  PyErr_Clear();
}

TEST_F(Delivery, of_no_elements_needs_no_address) {
  doubles::Versioned producer({2, 0});
  producer.tensor().data = nullptr;
  const Ref array(NumPy::deliver(ManagedTensor::adopt(&producer.managed)));
  EXPECT_EQ(text_of(array, "x.shape"), "(2, 0)");
}

TEST_F(Delivery, of_no_dimensions_is_one_element) {
  doubles::Versioned producer(std::vector<std::int64_t>{});
  producer.tensor().byte_offset = 12;
  const Ref array(NumPy::deliver(ManagedTensor::adopt(&producer.managed)));
  EXPECT_EQ(text_of(array, "x.ndim, x.item()"), "(0, 3.0)");
}

TEST_F(Delivery, of_a_type_that_numpy_lacks_is_a_buffer_error_with_the_lease_ended) {
  doubles::Versioned producer({2, 3});
  producer.tensor().dtype = DType(kDLOpaqueHandle, 64).dl();
  EXPECT_THROW((void)NumPy::deliver(ManagedTensor::adopt(&producer.managed)), PythonError);
  EXPECT_TRUE(PyErr_ExceptionMatches(PyExc_BufferError));
  PyErr_Clear();
  EXPECT_EQ(producer.deleted(), 1);
}

TEST_F(Delivery, over_a_base_of_the_callers_own_takes_the_base) {
  std::vector<float> memory{1, 2, 3};
  std::vector<std::int64_t> shape{3};
  std::vector<std::int64_t> strides{1};
  DLTensor tensor{};
  tensor.data = memory.data();
  tensor.device = Device{}.dl();
  tensor.ndim = 1;
  tensor.dtype = DType(kDLFloat, 32).dl();
  tensor.shape = shape.data();
  tensor.strides = strides.data();
  const Ref base = value_of("[1, 2, 3]");
  {
    const Ref array(NumPy::array_over(tensor, true, Py_NewRef(base.get())));
    EXPECT_EQ(base.references(), 2);
    EXPECT_EQ(text_of(array, "x.tolist(), x.base, x.flags.writeable"),
              "([1.0, 2.0, 3.0], [1, 2, 3], False)");
  }
  EXPECT_EQ(base.references(), 1);
  tensor.dtype = DType(kDLFloat, 128).dl();
  EXPECT_EQ(NumPy::array_over(tensor, true, Py_NewRef(base.get())), nullptr);
  EXPECT_EQ(base.references(), 1);
  PyErr_Clear();
}

using Scalars = WithPython;

TEST_F(Scalars, become_arrays_of_no_dimensions) {
  const Ref scalar = value_of("np.float32(2.5)");
  EXPECT_TRUE(NumPy::is_scalar(scalar.get()));
  EXPECT_FALSE(NumPy::is_array(scalar.get()));
  const Ref array(NumPy::array_of_scalar(scalar.get()));
  EXPECT_TRUE(NumPy::is_array(array.get()));
  EXPECT_EQ(text_of(array, "x.ndim, x.item()"), "(0, 2.5)");
  EXPECT_FALSE(NumPy::is_array(value_of("[1.0]").get()));
  EXPECT_FALSE(NumPy::is_scalar(value_of("1.0").get()));
}

}  // namespace
}  // namespace dlbridge

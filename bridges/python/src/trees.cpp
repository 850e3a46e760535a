#include "trees.hpp"

#include <string>
#include <vector>

#include "doors/ways.hpp"
#include "registry.hpp"

namespace dlbridge::python {
namespace {

// For containers that are not Python's plain ones: how they come apart and are put together.
PackageAttribute parts_of("dlbridge._containers", "parts_of");

bool is_plain_leaf(PyObject* x) {
  PyTypeObject* type = Py_TYPE(x);
  return x == Py_None || type == &PyUnicode_Type || type == &PyLong_Type || type == &PyFloat_Type ||
         type == &PyBool_Type || type == &PyBytes_Type || PyType_Check(x) != 0;
}

bool is_plain_container(PyObject* x) {
  return PyDict_CheckExact(x) || PyList_CheckExact(x) || PyTuple_CheckExact(x);
}

// Texts, dates and structs of NumPy's are values to their reader, as Python's are.
bool is_number(PyObject* scalar) {
  const Ref array(NumPy::array_of_scalar(scalar));
  Source source;
  NumPy::describe(array.get(), source);
  return !source.traits.no_numbers;
}

// Whether a conversion of a tree converts this leaf.
bool is_tensor(PyObject* x) {
  const Way* way = way_into(x);
  if (way == &kBufferWay) {
    return PyBytes_Check(x) == 0;
  }
  return way == &kNumPyScalarWay ? is_number(x) : way != nullptr;
}

// Whether its library makes a tensor of it, which has no door of its own: a pandas.Index, say, or
// SciPy's dok_array, which is a dict too. Of
// its other objects the library says with a TypeError that they are none; what it refuses is one.
bool is_read_by_library(PyObject* x) {
  const LibraryRow* row = library_known_of(Py_TYPE(x));
  if (row == nullptr || !row->read) {
    return false;
  }
  const Ref readable(PyObject_CallOneArg(row->read.get(), x));
  if (readable) {
    return way_into(readable.get()) != nullptr;
  }
  throw_if_not_of_object();
  const bool refused = PyErr_ExceptionMatches(PyExc_TypeError) == 0;
  forget_error();
  return refused;
}

/// What became of each tensor and each container, so that one that occurs twice is made once and
/// stays shared.
class Made {
 public:
  struct Place {
    Ref given;  // held: another may come to the address of one that was let go
    Ref result;
    std::size_t tensors;  // that are in it
  };

  /// Null where it did not occur yet. Valid until the next is kept.
  [[nodiscard]] const Place* find(PyObject* given) const {
    if (places_.empty()) {
      return nullptr;
    }
    const Place& found = places_[place_of(given)];
    return found.given ? &found : nullptr;
  }

  void keep(PyObject* given, const Ref& result, std::size_t tensors) {
    if (2 * ++count_ >= places_.size()) {
      grow();
    }
    places_[place_of(given)] = {Ref::borrow(given), Ref::borrow(result.get()), tensors};
  }

 private:
  // Where it is, or would be: the table is never full.
  [[nodiscard]] std::size_t place_of(PyObject* given) const {
    const std::size_t mask = places_.size() - 1;
    std::size_t place =
        ((reinterpret_cast<std::uintptr_t>(given) >> 4) * 0x9E3779B97F4A7C15U >> 32) & mask;
    while (places_[place].given && places_[place].given.get() != given) {
      place = (place + 1) & mask;
    }
    return place;
  }

  void grow() {
    std::vector<Place> old(places_.empty() ? 8 : 4 * places_.size());
    std::swap(old, places_);
    for (Place& each : old) {
      if (each.given) {
        places_[place_of(each.given.get())] = std::move(each);
      }
    }
  }

  std::vector<Place> places_;
  std::size_t count_ = 0;
};

enum class Over : std::uint8_t {
  kTensors,  // a conversion: into containers of its own
  kLeaves,   // every leaf; a part in which nothing changed stays the same object
};

// One level of a tree: a cycle ends in a RecursionError.
class Deeper {
 public:
  Deeper() { checked(Py_EnterRecursiveCall(" in a tree of tensors") == 0 ? 0 : -1); }
  ~Deeper() { Py_LeaveRecursiveCall(); }
  Deeper(const Deeper&) = delete;
  Deeper& operator=(const Deeper&) = delete;
};

class Walk {
 public:
  Walk(Over over, const std::function<Ref(PyObject*)>& convert) : over_(over), convert_(convert) {}

  // Null where `x` is no container.
  Ref container(PyObject* x) {
    if (const Made::Place* before = made_.find(x)) {
      tensors_ += before->tensors;
      return Ref::borrow(before->result.get());
    }
    const Deeper deeper;
    const std::size_t before = tensors_;
    Ref made = PyDict_CheckExact(x)    ? of_dict(x)
               : PyList_CheckExact(x)  ? of_list(x)
               : PyTuple_CheckExact(x) ? of_parts(x, index)
                                       : of_container(x);
    if (made) {
      made_.keep(x, made, tensors_ - before);
    }
    return made;
  }

  // Whatever it is.
  Ref any(PyObject* x) {
    if (Py_TYPE(x) == type_before_) {
      return tensor(x);
    }
    if (is_plain_leaf(x)) {
      return leaf(x);
    }
    const bool plain = is_plain_container(x);
    if (!plain && is_tensor(x)) {
      const Way* way = way_into(x);
      const bool every = way == &kTorchWay || way == &kNumPyWay;
      type_before_ = every ? Py_TYPE(x) : nullptr;
      return tensor(x);
    }
    if (!plain && is_read_by_library(x)) {
      return tensor(x);
    }
    Ref made = container(x);
    return made ? std::move(made) : leaf(x);
  }

  [[nodiscard]] bool without_tensors() const { return leaves_ != 0 && tensors_ == 0; }

  [[nodiscard]] bool is_inside() const { return !steps_.empty(); }

  // Where the leaf is that raised, as one would write it: x["layer"][3].
  [[nodiscard]] std::string place() const {
    std::string text = "x";
    for (auto step = steps_.rbegin(); step != steps_.rend(); ++step) {
      text += *step;
    }
    return text;
  }

 private:
  Ref leaf(PyObject* x) {
    ++leaves_;
    return over_ == Over::kLeaves ? convert_(x) : Ref::borrow(x);
  }

  Ref tensor(PyObject* x) {
    ++leaves_;
    ++tensors_;
    if (const Made::Place* before = made_.find(x)) {
      return Ref::borrow(before->result.get());
    }
    Ref made = convert_(x);
    made_.keep(x, made, 1);
    return made;
  }

  // A part of a container; `step` says where it is, if it has to be said.
  template <typename Step>
  Ref part(PyObject* x, Step&& step) {
    try {
      return any(x);
    } catch (ValueOutOfRange& refused) {
      refused.met.place.insert(0, step());
      throw;
    } catch (...) {
      translate_exception();
      steps_.push_back(step());
      throw PythonError();
    }
  }

  static std::string index(Py_ssize_t i) { return "[" + std::to_string(i) + "]"; }
  static std::string key(PyObject* name) {
    return "[" + text_beside_error([&] { return PyObject_Repr(name); }) + "]";
  }
  static std::string place(const Ref& container, Py_ssize_t i) {
    return text_beside_error([&] { return PyObject_CallMethod(container.get(), "place", "n", i); });
  }

  // The text of an object that `make` makes while an error is on its way.
  template <typename Make>
  static std::string text_beside_error(Make&& make) {
    const KeepError keep;  // it comes back in place of what may fail meanwhile
    const Ref made(make());
    const char* bytes =
        made && PyUnicode_Check(made.get()) ? PyUnicode_AsUTF8(made.get()) : nullptr;
    return bytes == nullptr ? "..." : bytes;
  }

  // What was made of the container, or the container itself where that says the same.
  Ref made_or(PyObject* x, Ref made, bool changed) const {
    return changed || over_ == Over::kTensors ? std::move(made) : Ref::borrow(x);
  }

  // Into a copy, whose keys stay: nothing else sees it while a conversion runs Python.
  Ref of_dict(PyObject* x) {
    Ref copy = checked(PyDict_Copy(x));
    bool changed = false;
    PyObject* name = nullptr;
    PyObject* value = nullptr;
    Py_ssize_t position = 0;
    while (PyDict_Next(copy.get(), &position, &name, &value) != 0) {
      const Ref converted = part(value, [&] { return key(name); });
      if (converted.get() != value) {
        changed = true;
        checked(PyDict_SetItem(copy.get(), name, converted.get()));
      }
    }
    return made_or(x, std::move(copy), changed);
  }

  Ref of_list(PyObject* x) {
    Ref copy = checked(PyList_GetSlice(x, 0, PyList_GET_SIZE(x)));
    bool changed = false;
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(copy.get()); ++i) {
      Ref converted = part(PyList_GET_ITEM(copy.get(), i), [&] { return index(i); });
      changed |= converted.get() != PyList_GET_ITEM(copy.get(), i);
      checked(PyList_SetItem(copy.get(), i, converted.release()));
    }
    return made_or(x, std::move(copy), changed);
  }

  // A new tuple, if it has to be one: nobody can write to the old.
  template <typename Step>
  Ref of_parts(PyObject* parts, Step&& step) {
    Ref made = checked(PyTuple_New(PyTuple_GET_SIZE(parts)));
    bool changed = false;
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(parts); ++i) {
      Ref converted = part(PyTuple_GET_ITEM(parts, i), [&] { return step(i); });
      changed |= converted.get() != PyTuple_GET_ITEM(parts, i);
      PyTuple_SET_ITEM(made.get(), i, converted.release());
    }
    return changed ? std::move(made) : Ref::borrow(parts);
  }

  Ref of_container(PyObject* x) {
    const Ref found = checked(PyObject_CallOneArg(parts_of.get(), x));
    if (found.get() == Py_None) {
      return {};
    }
    const Ref parts = checked(PyObject_GetAttrString(found.get(), "parts"));
    const std::size_t before = tensors_;
    const Ref converted = of_parts(parts.get(), [&](Py_ssize_t i) { return place(found, i); });
    // Without a tensor it is a value, as the leaves are.
    if (converted.get() == parts.get() && (over_ == Over::kLeaves || tensors_ == before)) {
      return Ref::borrow(x);
    }
    return checked(PyObject_CallMethod(found.get(), "put_together", "(O)", converted.get()));
  }

  const Over over_;
  const std::function<Ref(PyObject*)>& convert_;
  Made made_;
  std::size_t leaves_ = 0;
  std::size_t tensors_ = 0;
  // Of the tensor before, where all its instances are tensors: mostly the next is of it too.
  PyTypeObject* type_before_ = nullptr;
  std::vector<std::string> steps_;  // innermost first
};

// Adds the place to the error that is on its way (Python 3.11 and later show it). A refusal speaks
// of x, the tree's leaf: its fix is told of the leaf's place in the tree.
void add_place(const std::string& place) {
  KeepError raised;
  raised.normalise();
  for (const auto& [method, told] :
       {std::pair{"add_note", "at " + place}, std::pair{"_move_to", place}}) {
    PyObject* value = raised.value();
    if (value != nullptr && PyObject_HasAttrString(value, method) != 0) {
      const Ref done(PyObject_CallMethod(value, method, "s", told.c_str()));
    }
  }
}

template <typename Action>
Ref with_place(const Walk& walk, Action&& action) {
  try {
    return action();
  } catch (const PythonError&) {
    // A RecursionError would name a place a thousand deep.
    if (walk.is_inside() && PyErr_ExceptionMatches(PyExc_RecursionError) == 0) {
      add_place(walk.place());
    }
    throw;
  }
}

std::function<Ref(PyObject*)> calling(PyObject* function) {
  return [function](PyObject* leaf) { return checked(PyObject_CallOneArg(function, leaf)); };
}

void require_two(Py_ssize_t count, const char* name) {
  if (count != 2) {
    raise(PyExc_TypeError, std::string(name) + "() takes a tree and a function");
  }
}

}  // namespace

Ref map_tree(PyObject* x, const std::function<Ref(PyObject*)>& convert) {
  if (is_plain_leaf(x) || (!is_plain_container(x) && is_read_by_library(x))) {
    return {};
  }
  Walk walk(Over::kTensors, convert);
  Ref result = with_place(walk, [&] { return walk.container(x); });
  if (result && walk.without_tensors()) {
    raise(PyExc_TypeError, std::string("expected an array or tensor, or a tree of them, and there "
                                       "is none in this ") +
                               Py_TYPE(x)->tp_name +
                               "; numpy.asarray(x) makes an array of numbers");
  }
  return result;
}

Ref map_leaves(PyObject* x, const std::function<Ref(PyObject*)>& change) {
  Walk walk(Over::kLeaves, change);
  return with_place(walk, [&] { return walk.any(x); });
}

bool is_array(PyObject* x) {
  const Way* way = way_into(x);
  return way == nullptr ? !is_plain_leaf(x) && is_read_by_library(x)
                        : way != &kBufferWay && way != &kNumPyScalarWay && way != &kCapsuleWay;
}

Ref is_tensor_in_python(PyObject* x) {
  return Ref(PyBool_FromLong(way_into(x) != nullptr ? 1 : 0));
}

Ref is_array_in_python(PyObject* x) {
  return Ref(PyBool_FromLong(is_array(x) ? 1 : 0));
}

Ref map_tree_in_python(PyObject* const* arguments, Py_ssize_t count) {
  require_two(count, "map_tree");
  Ref mapped = map_tree(arguments[0], calling(arguments[1]));
  return mapped ? std::move(mapped) : Ref::borrow(Py_None);
}

Ref map_leaves_in_python(PyObject* const* arguments, Py_ssize_t count) {
  require_two(count, "map_leaves");
  return map_leaves(arguments[0], calling(arguments[1]));
}

}  // namespace dlbridge::python

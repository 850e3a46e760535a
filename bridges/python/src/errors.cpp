#include <new>

#include "ledger.hpp"

namespace dlbridge::python {
namespace {

PackageAttribute conversion_refused("dlbridge._errors", "ConversionRefused");
PackageAttribute plan_type("dlbridge._plan", "Plan");

void set_refused(const std::string& message, PyObject* plan) {
  const Ref error = checked(PyObject_CallFunctionObjArgs(
      conversion_refused.get(), text_object(message).get(), plan, nullptr));
  refused(plan);
  PyErr_SetObject(conversion_refused.get(), error.get());
}

void set_refused(const ConversionRefused& refused) {
  set_refused(refused.what(), plan_object(refused).get());
}

Ref plan_in_words(const Explanation& text, const Plan& plan, const Source& source,
                  const Capabilities& target, const std::vector<std::string>& notes_of_target) {
  const Ref steps = text_tuple(text.steps);
  const Ref reasons = text_tuple(text.reasons);
  // Of some objects nothing is known, not even where they are: there is no device of type 0.
  const bool known = source.tensor.device.device_type != 0;
  const bool shaped = known && (source.tensor.shape != nullptr || source.tensor.ndim == 0);
  const Ref shape = shaped ? shape_tuple(source.tensor) : Ref::borrow(Py_None);
  const Ref fix = text_or_none(text.fix);
  const DType dtype(source.tensor.dtype);
  const std::string source_dtype =
      dtype.bits != 0 ? to_string(dtype) : std::string(known ? source.detail : Text());
  const std::string result_dtype = dtype.bits == 0 ? source_dtype : to_string(plan.dtype);
  std::vector<std::string> told = text.notes;
  told.insert(told.end(), notes_of_target.begin(), notes_of_target.end());
  const Ref notes = text_tuple(told);
  const Ref fields = checked(Py_BuildValue(
      "{sO sO sO sO sL sO sO ss ss sO sO ss sO sO}", "steps", steps.get(), "reasons", reasons.get(),
      "view", plan.view ? Py_True : Py_False, "writable", plan.writable ? Py_True : Py_False,
      "bytes_copied", static_cast<long long>(plan.bytes_copied), "refused",
      plan.is_refused() ? Py_True : Py_False, "fix", fix.get(), "source",
      std::string(source.traits.words().object).c_str(), "result",
      std::string(plan.itself ? source.traits.words().object : target.result).c_str(), "dtype",
      text_object(source_dtype).get(), "result_dtype", text_object(result_dtype).get(), "device",
      known ? to_string(Device(source.tensor.device)).c_str() : "", "shape", shape.get(), "notes",
      notes.get()));
  const Ref nothing = checked(PyTuple_New(0));
  return checked(PyObject_Call(plan_type.get(), nothing.get(), fields.get()));
}

}  // namespace

PyObject* PackageAttribute::get() {
  if (object_ == nullptr) {
    const Ref module = checked(PyImport_ImportModule(module_));
    object_ = checked(PyObject_GetAttrString(module.get(), name_)).release();
  }
  return object_;
}

Ref integer_tuple(std::span<const std::int64_t> numbers) {
  Ref tuple = checked(PyTuple_New(static_cast<Py_ssize_t>(numbers.size())));
  for (std::size_t i = 0; i < numbers.size(); ++i) {
    PyTuple_SET_ITEM(tuple.get(), static_cast<Py_ssize_t>(i),
                     checked(PyLong_FromLongLong(numbers[i])).release());
  }
  return tuple;
}

std::vector<std::int64_t> sizes_in(PyObject* tuple) {
  std::vector<std::int64_t> sizes;
  for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(tuple); ++i) {
    sizes.push_back(integer_of(PyTuple_GET_ITEM(tuple, i)));
  }
  return sizes;
}

Ref plan_object(const Plan& plan, const Source& source, const Capabilities& target,
                const Policy& policy, const Request& request,
                const std::vector<std::string>& notes) {
  return plan_in_words(explain(plan, source, target, policy, request, Dialect::kPython), plan,
                       source, target, notes);
}

Ref plan_object(const ConversionRefused& refused) {
  const Ref reasons = text_tuple(refused.reasons);
  const Ref fix = text_or_none(refused.fix);
  return checked(
      PyObject_CallMethod(plan_type.get(), "of_refusal", "OO", reasons.get(), fix.get()));
}

void raise_refused(const Plan& plan, const Source& source, const Capabilities& target,
                   const Policy& policy, const Request& request, Dialect dialect) {
  Watch::settle();
  const Explanation text = explain(plan, source, target, policy, request, dialect);
  const Ref object = plan_in_words(text, plan, source, target, {});
  set_refused(text.message, object.get());
  throw PythonError();
}

void translate_exception() noexcept {
  try {
    try {
      throw;
    } catch (const PythonError&) {
      // set already
    } catch (const ValueOutOfRange& refused) {
      set_refused(refusal(refused.met, Dialect::kPython));
    } catch (const ConversionRefused& refused) {
      set_refused(refused);
    } catch (const std::bad_alloc&) {
      PyErr_NoMemory();
    } catch (const std::system_error& error) {
      // OSError makes of the number the class that says it: TimeoutError, BrokenPipeError, ...
      const Ref both(Py_BuildValue("(is)", error.code().value(), error.what()));
      if (both) {
        PyErr_SetObject(PyExc_OSError, both.get());
      }
    } catch (const std::invalid_argument& error) {
      PyErr_SetString(PyExc_ValueError, error.what());
    } catch (const std::exception& error) {
      PyErr_SetString(PyExc_RuntimeError, error.what());
    }
  } catch (const PythonError&) {
    // making the error failed: that failure is the error now
  } catch (const std::exception&) {
    PyErr_NoMemory();
  }
}

}  // namespace dlbridge::python

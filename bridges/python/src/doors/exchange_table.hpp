#pragma once

#include "errors.hpp"

namespace dlbridge::python {

/// DLPack's C exchange table of a type: the newest of a major version that we understand, since
/// newer ones point back to older ones. Null, without an error, where there is none. Borrowed from
/// the type for good: a table has to live as long as the process.
[[nodiscard]] const DLPackExchangeAPI* exchange_table_of(PyObject* type);

/// A new object of the table's library over the tensor, or null with Python's error set. Releases
/// the tensor once in either case, though tables differ in what a failure leaves with their caller.
[[nodiscard]] PyObject* deliver_by_table(const DLPackExchangeAPI& table, ManagedTensor tensor);

}  // namespace dlbridge::python

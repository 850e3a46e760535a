// Law 4: references to Python objects are given back on any thread, with or without the GIL, never
// waiting for it, and not at all once the interpreter is gone.

#include <gtest/gtest.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <thread>
#include <utility>
#include <vector>

#include "numpy/python_doubles.hpp"

namespace dlbridge {
namespace {

using doubles::Ref;
using doubles::value_of;
using doubles::WithPython;

using PythonLease = WithPython;

TEST_F(PythonLease, is_given_back_at_once_by_who_holds_the_gil) {
  const Ref list = value_of("[1, 2]");
  const Lease lease = python_lease(Py_NewRef(list.get()));
  EXPECT_EQ(list.references(), 2);
  lease.give_back();
  EXPECT_EQ(list.references(), 1);
}

// The main thread keeps the GIL while it waits: a release that waited for the GIL would never end.
TEST_F(PythonLease, is_put_off_by_a_thread_without_the_gil_and_never_waits) {
  const Ref list = value_of("[1, 2]");
  const Lease lease = python_lease(Py_NewRef(list.get()));
  std::thread([&lease] { lease.give_back(); }).join();
  EXPECT_EQ(list.references(), 2);
  drain_releases();
  EXPECT_EQ(list.references(), 1);
  drain_releases();
  EXPECT_EQ(list.references(), 1);
}

// CPython 3.11 looks for what other threads left when the main thread has taken the GIL anew, as it
// does after anything that waits.
void let_python_run() {
  (void)value_of("__import__('time').sleep(0.001)");
  (void)value_of("[i for i in range(1000)]");
}

TEST_F(PythonLease, that_was_put_off_is_given_back_by_running_python) {
  const Ref list = value_of("[1, 2]");
  const Lease lease = python_lease(Py_NewRef(list.get()));
  std::thread([&lease] { lease.give_back(); }).join();
  let_python_run();
  EXPECT_EQ(list.references(), 1);
}

TEST_F(PythonLease, is_given_back_at_once_by_a_thread_that_took_the_gil) {
  const Ref list = value_of("[1, 2]");
  const Lease lease = python_lease(Py_NewRef(list.get()));
  PyThreadState* state = PyEval_SaveThread();
  std::thread([&lease] {
    const PyGILState_STATE gil = PyGILState_Ensure();
    lease.give_back();
    PyGILState_Release(gil);
  }).join();
  PyEval_RestoreThread(state);
  EXPECT_EQ(list.references(), 1);
}

void give_back_on_a_thread(int leases, const Ref& list, Lease (*lease)(PyObject*) noexcept) {
  std::vector<Lease> held;
  for (int i = 0; i < leases; ++i) {
    held.push_back(lease(Py_NewRef(list.get())));
  }
  std::thread([&held] {
    for (const Lease& each : held) {
      each.give_back();
    }
  }).join();
}

TEST_F(PythonLease, that_is_patient_is_given_back_at_once_by_who_holds_the_gil) {
  const Ref list = value_of("[1, 2]");
  patient_lease(Py_NewRef(list.get())).give_back();
  EXPECT_EQ(list.references(), 1);
}

TEST_F(PythonLease, that_is_patient_waits_for_the_next_call_of_ours) {
  const Ref list = value_of("[1, 2]");
  give_back_on_a_thread(16, list, &patient_lease);
  let_python_run();
  EXPECT_EQ(list.references(), 17);
  drain_releases();
  EXPECT_EQ(list.references(), 1);
}

TEST_F(PythonLease, that_is_patient_waits_with_fifteen_others_at_most) {
  const Ref list = value_of("[1, 2]");
  for (int round = 0; round < 3; ++round) {
    give_back_on_a_thread(17, list, &patient_lease);
    let_python_run();
    EXPECT_EQ(list.references(), 1);
  }
}

TEST_F(PythonLease, that_is_not_patient_takes_those_along_that_are) {
  const Ref list = value_of("[1, 2]");
  give_back_on_a_thread(3, list, &patient_lease);
  give_back_on_a_thread(1, list, &python_lease);
  let_python_run();
  EXPECT_EQ(list.references(), 1);
}

// Whoever drains first leaves nothing to the interpreter, which is asked again the next time.
TEST_F(PythonLease, is_given_back_by_running_python_after_a_call_of_ours_came_first) {
  const Ref list = value_of("[1, 2]");
  for (int round = 0; round < 3; ++round) {
    give_back_on_a_thread(2, list, &python_lease);
    if (round % 2 == 0) {
      drain_releases();
    }
    let_python_run();
    EXPECT_EQ(list.references(), 1);
  }
}

TEST_F(PythonLease, is_given_back_from_many_threads_each_once) {
  constexpr int kThreads = 8;
  constexpr int kLeases = 200;
  const Ref list = value_of("[1, 2]");
  std::vector<std::thread> threads;
  for (int i = 0; i < kThreads; ++i) {
    std::vector<Lease> leases;
    for (int j = 0; j < kLeases; ++j) {
      leases.push_back(python_lease(Py_NewRef(list.get())));
    }
    threads.emplace_back([held = std::move(leases)] {
      for (const auto& lease : held) {
        lease.give_back();
      }
    });
  }
  for (auto& thread : threads) {
    thread.join();
  }
  drain_releases();
  EXPECT_EQ(list.references(), 1);
}

TEST_F(PythonLease, of_an_array_ends_with_a_view_on_another_thread) {
  const Ref array = value_of("np.arange(6.0)");
  ManagedTensor view = to_managed<NumPy>(array.get(), cases::kTorchLike, Policy::strict());
  EXPECT_EQ(array.references(), 2);
  std::thread([moved = std::move(view)]() mutable { moved = ManagedTensor(); }).join();
  EXPECT_EQ(live_managed_tensors(), 0);
  drain_releases();
  EXPECT_EQ(array.references(), 1);
}

TEST_F(PythonLease, keeps_an_array_for_a_view_that_outlives_its_name) {
  Ref array = value_of("np.arange(6.0)");
  const ManagedTensor view = to_managed<NumPy>(array.get(), cases::kTorchLike, Policy::strict());
  array = Ref(nullptr);
  EXPECT_EQ(static_cast<const double*>(view.data())[5], 5.0);
}

TEST_F(PythonLease, leaves_an_error_that_is_on_its_way) {
  const Ref list = value_of("[1, 2]");
  const Lease lease = python_lease(Py_NewRef(list.get()));
  std::thread([&lease] { lease.give_back(); }).join();
  PyErr_SetString(PyExc_KeyError, "on its way");
  drain_releases();
  EXPECT_EQ(list.references(), 1);
  EXPECT_TRUE(PyErr_ExceptionMatches(PyExc_KeyError));
  PyErr_Clear();
  EXPECT_EQ(list.references(), 1);
}

using RunWithGil = WithPython;

TEST_F(RunWithGil, runs_at_once_or_when_drained_and_once_either_way) {
  static std::atomic<int> runs{0};
  runs = 0;
  const auto action = [](void* context) {
    ++runs;
    EXPECT_EQ(*static_cast<int*>(context), 7);
    EXPECT_EQ(PyGILState_Check(), 1);
  };
  int context = 7;
  run_with_gil(&context, action);
  EXPECT_EQ(runs, 1);
  std::thread([&] { run_with_gil(&context, action); }).join();
  EXPECT_EQ(runs, 1);
  drain_releases();
  EXPECT_EQ(runs, 2);
}

TEST_F(RunWithGil, keeps_the_order_in_which_one_thread_asked) {
  static std::vector<int> order;
  order.clear();
  int numbers[] = {1, 2, 3};
  std::thread([&numbers] {
    for (int& number : numbers) {
      run_with_gil(&number, [](void* context) { order.push_back(*static_cast<int*>(context)); });
    }
  }).join();
  drain_releases();
  EXPECT_EQ(order, (std::vector<int>{1, 2, 3}));
}

// An action may release more, and put off more.
TEST_F(RunWithGil, may_be_asked_again_by_what_it_runs) {
  static int runs = 0;
  runs = 0;
  std::thread([] {
    run_with_gil(nullptr, [](void*) {
      ++runs;
      std::thread([] { run_with_gil(nullptr, [](void*) { ++runs; }); }).join();
    });
  }).join();
  drain_releases();
  drain_releases();
  EXPECT_EQ(runs, 2);
}

using GivingBack = WithPython;

DLTensor floats(std::int64_t& count) {
  return {.data = nullptr,
          .device = {kDLCPU, 0},
          .ndim = 1,
          .dtype = {kDLFloat, 32, 1},
          .shape = &count,
          .strides = nullptr,
          .byte_offset = 0};
}

TEST_F(GivingBack, lets_the_gil_go_where_it_takes_long) {
  for (const auto& [count, let_go] : {std::pair<std::int64_t, bool>{1000, false},
                                      {(1 << 18) - 1, false},
                                      {1 << 18, true},
                                      {std::int64_t{1} << 62, true}}) {
    std::int64_t size = count;
    {
      const GivesBack scope(floats(size));
      EXPECT_EQ(PyGILState_Check(), let_go ? 0 : 1) << count;
    }
    EXPECT_EQ(PyGILState_Check(), 1);
  }
}

TEST_F(GivingBack, of_a_small_view_lets_the_gil_go_for_the_large_memory_that_it_was_the_last_of) {
  int held = -1;
  const auto look = [](void* context) { *static_cast<int*>(context) = PyGILState_Check(); };
  std::int64_t size = 1;
  {
    const GivesBack scope(floats(size));
    free_large(&held, look, 1 << 20);
    EXPECT_EQ(held, 0);
    free_large(&held, look, (1 << 20) - 1);
    EXPECT_EQ(held, 1);
    const WithoutGil without_gil;
    free_large(&held, look, 1 << 20);
    EXPECT_EQ(held, 0);
  }
  EXPECT_EQ(PyGILState_Check(), 1);
  free_large(&held, look, 1 << 20);  // where nobody said that it may be let go
  EXPECT_EQ(held, 1);
}

TEST_F(GivingBack, ends_leases_on_python_objects_all_the_same) {
  std::int64_t size = 1 << 20;
  const Ref list = value_of("[1, 2]");
  const Lease soon = python_lease(Py_NewRef(list.get()));
  const Lease patient = patient_lease(Py_NewRef(list.get()));
  {
    const GivesBack scope(floats(size));
    soon.give_back();
    patient.give_back();
    EXPECT_EQ(list.references(), 3);
  }
  EXPECT_EQ(list.references(), 1);
}

using ForeignDeleter = WithPython;

TEST_F(ForeignDeleter, of_a_python_producer_runs_once_and_with_the_gil) {
  doubles::Versioned producer;
  ManagedTensor tensor = ManagedTensor::adopt(&producer.managed, &run_foreign_deleter);
  std::thread([moved = std::move(tensor)]() mutable { moved = ManagedTensor(); }).join();
  EXPECT_EQ(producer.deleted(), 0);
  drain_releases();
  EXPECT_EQ(producer.deleted(), 1);
  EXPECT_EQ(producer.deleted_on(), std::this_thread::get_id());
}

TEST_F(ForeignDeleter, of_a_legacy_producer_runs_once_and_with_the_gil) {
  doubles::Legacy producer;
  ManagedTensor tensor = ManagedTensor::adopt(&producer.managed, true, &run_foreign_legacy_deleter);
  std::thread([moved = std::move(tensor)]() mutable { moved = ManagedTensor(); }).join();
  EXPECT_EQ(producer.deleted(), 0);
  drain_releases();
  EXPECT_EQ(producer.deleted(), 1);
}

TEST_F(ForeignDeleter, that_is_null_is_not_run) {
  doubles::Versioned producer;
  producer.managed.deleter = nullptr;
  { const ManagedTensor tensor = ManagedTensor::adopt(&producer.managed, &run_foreign_deleter); }
  doubles::Legacy legacy;
  legacy.managed.deleter = nullptr;
  {
    const ManagedTensor tensor =
        ManagedTensor::adopt(&legacy.managed, true, &run_foreign_legacy_deleter);
  }
  EXPECT_EQ(producer.deleted() + legacy.deleted(), 0);
}

// Each in a process of its own, whose interpreter ends; what it says last shows that it got there.
class Finalisation : public ::testing::Test {
 protected:
  void SetUp() override { GTEST_FLAG_SET(death_test_style, "threadsafe"); }

  [[noreturn]] static void leave(bool as_expected) {
    std::fputs(as_expected ? "as expected\n" : "something else\n", stderr);
    std::fflush(stderr);
    std::_Exit(as_expected ? 0 : 1);
  }
};

TEST_F(Finalisation, is_survived_by_leases_that_leak_then) {
  EXPECT_EXIT(
      {
        const Ref array = value_of("np.arange(6.0)");
        ManagedTensor here = to_managed<NumPy>(array.get(), cases::kTorchLike, Policy::strict());
        ManagedTensor there = here.share();
        const Lease lease = python_lease(Py_NewRef(array.get()));
        Py_FinalizeEx();
        lease.give_back();
        here = ManagedTensor();
        std::thread([moved = std::move(there)]() mutable { moved = ManagedTensor(); }).join();
        leave(live_managed_tensors() == 0);
      },
      ::testing::ExitedWithCode(0), "as expected");
}

TEST_F(Finalisation, makes_run_with_gil_run_nothing) {
  EXPECT_EXIT(
      {
        Py_FinalizeEx();
        static bool ran = false;
        run_with_gil(nullptr, [](void*) { ran = true; });
        std::thread([] { run_with_gil(nullptr, [](void*) { ran = true; }); }).join();
        leave(!ran);
      },
      ::testing::ExitedWithCode(0), "as expected");
}

TEST_F(Finalisation, ends_arrays_and_their_leases_once) {
  EXPECT_EXIT(
      {
        doubles::Versioned producer;
        // Python's module holds it, so that the end of the interpreter is the end of the array.
        const Ref main = value_of("__import__('__main__')");
        {
          const Ref array(NumPy::deliver(ManagedTensor::adopt(&producer.managed)));
          PyObject_SetAttrString(main.get(), "held", array.get());
        }
        const int before = producer.deleted();
        Py_FinalizeEx();
        leave(before == 0 && producer.deleted() == 1);
      },
      ::testing::ExitedWithCode(0), "as expected");
}

TEST_F(Finalisation, runs_a_foreign_deleter_for_who_certainly_holds_the_gil) {
  EXPECT_EXIT(
      {
        doubles::Versioned kept;
        doubles::Versioned ended;
        ManagedTensor first = ManagedTensor::adopt(&kept.managed, &run_foreign_deleter);
        ManagedTensor second = ManagedTensor::adopt(&ended.managed, &run_foreign_deleter);
        Py_FinalizeEx();
        first = ManagedTensor();
        {
          const GivesBack scope(second.tensor());
          { const GivesBack once_more(second.tensor()); }
          second = ManagedTensor();
        }
        leave(kept.deleted() == 0 && ended.deleted() == 1);
      },
      ::testing::ExitedWithCode(0), "as expected");
}

}  // namespace
}  // namespace dlbridge

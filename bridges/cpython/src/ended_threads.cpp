// How a thread ends that is inside this module when Python goes away.
//
// A daemon thread that asks for the GIL while the interpreter finalises is ended by pthread_exit()
// (CPython before 3.14; python/cpython#87135), which unwinds its stack: through our frames too,
// where destructors would touch Python's objects without the GIL, and `noexcept` would end the
// process. So such a thread sleeps instead, as it does from CPython 3.14 on; the end of the process
// takes it.
//
// Every frame of ours that has anything to clean up asks the personality routine of C++ first. The
// linker puts ours before it (--wrap, in cmake/PythonModule.cmake), for this module only.

#include <Python.h>
#include <unistd.h>
#include <unwind.h>

extern "C" {

_Unwind_Reason_Code __real___gxx_personality_v0(int version, _Unwind_Action actions,
                                                _Unwind_Exception_Class kind,
                                                _Unwind_Exception* exception,
                                                _Unwind_Context* context);

_Unwind_Reason_Code __wrap___gxx_personality_v0(int version, _Unwind_Action actions,
                                                _Unwind_Exception_Class kind,
                                                _Unwind_Exception* exception,
                                                _Unwind_Context* context) {
#if PY_VERSION_HEX >= 0x030D0000
  const bool finalising = Py_IsFinalizing() != 0;
#else
  const bool finalising = _Py_IsFinalizing() != 0;
#endif
  while ((actions & _UA_FORCE_UNWIND) != 0 && (finalising || Py_IsInitialized() == 0)) {
    pause();
  }
  return __real___gxx_personality_v0(version, actions, kind, exception, context);
}

}  // extern "C"

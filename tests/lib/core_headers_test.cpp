// The core stands alone: every header of it in one file, and none brings in a framework.

#include "dlbridge/arriving_tensor.hpp"
#include "dlbridge/capabilities.hpp"
#include "dlbridge/carry.hpp"
#include "dlbridge/condition.hpp"
#include "dlbridge/convert.hpp"
#include "dlbridge/copy.hpp"
#include "dlbridge/device.hpp"
#include "dlbridge/device_runtime.hpp"
#include "dlbridge/dlbridge.h"
#include "dlbridge/dtype.hpp"
#include "dlbridge/element_type.hpp"
#include "dlbridge/error.hpp"
#include "dlbridge/managed_tensor.hpp"
#include "dlbridge/mdspan.hpp"
#include "dlbridge/memory_pool.hpp"
#include "dlbridge/pinned_memory.hpp"
#include "dlbridge/plan.hpp"
#include "dlbridge/policy.hpp"
#include "dlbridge/shared_memory.hpp"
#include "dlbridge/source.hpp"
#include "dlbridge/streams.hpp"
#include "dlbridge/tensor_view.hpp"
#include "dlbridge/threads.hpp"

#if defined(Py_PYTHON_H) || defined(PY_VERSION_HEX)
#error "the core includes Python"
#endif
#if defined(NPY_VERSION) || defined(NPY_ABI_VERSION) || defined(NPY_FEATURE_VERSION)
#error "the core includes NumPy"
#endif
#if defined(TORCH_VERSION) || defined(C10_API) || defined(TORCH_API) || defined(AT_DISPATCH_SWITCH)
#error "the core includes torch"
#endif
#if defined(__CUDACC__) || defined(CUDART_VERSION) || defined(CUDA_VERSION)
#error "the core includes CUDA"
#endif

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "lib/doubles.hpp"

namespace dlbridge {
namespace {

namespace fs = std::filesystem;
using ::testing::IsEmpty;

fs::path core() {
  return fs::path(__FILE__).parent_path().parent_path().parent_path() / "lib";
}

// The names between <> and "" of a file's include lines.
std::vector<std::string> includes_of(const fs::path& file) {
  std::vector<std::string> names;
  std::ifstream text(file);
  for (std::string line; std::getline(text, line);) {
    const auto first = line.find_first_not_of(" \t");
    if (first == std::string::npos || line[first] != '#' ||
        line.find("include") == std::string::npos) {
      continue;
    }
    const auto open = line.find_first_of("<\"");
    const auto close = line.find_last_of(">\"");
    if (open != std::string::npos && close > open) {
      names.push_back(line.substr(open + 1, close - open - 1));
    }
  }
  return names;
}

bool foreign(const std::string& header) {
  constexpr std::string_view kFrameworks[] = {"Python.h", "numpy/", "ATen/", "c10/", "torch/",
                                              "cuda",     "nv",     "hip/",  "rocm"};
  return std::any_of(std::begin(kFrameworks), std::end(kFrameworks),
                     [&](std::string_view start) { return header.starts_with(start); });
}

TEST(CoreHeaders, are_all_included_here) {
  if (!fs::exists(core())) {
    GTEST_SKIP() << "the sources are not where they were compiled";
  }
  std::set<std::string> missing;
  for (const auto& entry : fs::directory_iterator(core() / "include" / "dlbridge")) {
    missing.insert("dlbridge/" + entry.path().filename().string());
  }
  EXPECT_FALSE(missing.empty());
  for (const auto& name : includes_of(__FILE__)) {
    missing.erase(name);
  }
  EXPECT_THAT(missing, IsEmpty());
}

// Under #if as well, where the preprocessor's word above would not reach.
TEST(CoreSources, spell_no_header_of_a_framework) {
  if (!fs::exists(core())) {
    GTEST_SKIP() << "the sources are not where they were compiled";
  }
  EXPECT_TRUE(foreign("ATen/ATen.h"));
  std::vector<std::string> spellers;
  int files = 0;
  for (const auto& entry : fs::recursive_directory_iterator(core())) {
    if (!entry.is_regular_file()) {
      continue;
    }
    ++files;
    for (const auto& name : includes_of(entry.path())) {
      if (foreign(name)) {
        spellers.push_back(entry.path().filename().string() + ": " + name);
      }
    }
  }
  EXPECT_GT(files, 20);
  EXPECT_THAT(spellers, IsEmpty());
}

}  // namespace
}  // namespace dlbridge

#include "c/c_error.hpp"

#include <memory>
#include <new>
#include <vector>

#include "dlbridge/device_runtime.hpp"
#include "dlbridge/error.hpp"

namespace dlbridge::detail {
namespace {

constinit dlbridge_error no_memory{DLBRIDGE_NO_MEMORY, nullptr};

bool is_failure(dlbridge_status status) noexcept {
  return status > DLBRIDGE_OK && status <= DLBRIDGE_INTERNAL;
}

dlbridge_error* new_error(dlbridge_status status, Explanation words) noexcept {
  try {
    auto held = std::make_unique<Explanation>(std::move(words));
    auto* error = new dlbridge_error{status, held.get()};
    (void)held.release();
    return error;
  } catch (const std::bad_alloc&) {
    return &no_memory;
  }
}

Explanation message_alone(const char* message) {
  Explanation words;
  words.message = message;
  return words;
}

Explanation words_of(const ConversionRefused& refused) {
  Explanation words = message_alone(refused.what());
  words.reasons = refused.reasons;
  words.fix = refused.fix;
  return words;
}

struct Told {
  dlbridge_status status;
  Explanation words;
};

Told in_words() {
  try {
    throw;
  } catch (const ValueOutOfRange& refused) {
    return {DLBRIDGE_REFUSED, words_of(refusal(refused.met, Dialect::kC))};
  } catch (const MalformedTensor& malformed) {
    return {DLBRIDGE_MALFORMED, words_of(malformed)};
  } catch (const ConversionRefused& refused) {
    return {DLBRIDGE_REFUSED, words_of(refused)};
  } catch (const CallbackFailed& failed) {
    return {failed.status, failed.words};
  } catch (const UsageError& wrong) {
    return {DLBRIDGE_USAGE, message_alone(wrong.what())};
  } catch (const DeviceError& failed) {
    return {DLBRIDGE_DEVICE, message_alone(failed.what())};
  } catch (const std::bad_alloc&) {
    return {DLBRIDGE_NO_MEMORY, message_alone("there is not enough memory")};
  } catch (const std::exception& other) {
    return {DLBRIDGE_INTERNAL, message_alone(other.what())};
  } catch (...) {
    return {DLBRIDGE_INTERNAL, message_alone("something was thrown that is no std::exception")};
  }
}

}  // namespace

dlbridge_status told(dlbridge_error** error) noexcept {
  try {
    Told all = in_words();
    if (error == nullptr) {
      return all.status;
    }
    *error = new_error(all.status, std::move(all.words));
    return (*error)->status;  // the two agree, also where there is no memory for the words
  } catch (...) {             // there was no memory for the words
    if (error != nullptr) {
      *error = &no_memory;
    }
    return DLBRIDGE_NO_MEMORY;
  }
}

void ErrorOwner::require_success(dlbridge_status status, const char* name) const {
  if (status == DLBRIDGE_OK) {
    return;
  }
  if (!is_failure(status)) {
    throw UsageError(std::string(name) + "() of the source returned " + std::to_string(status) +
                     ", which is no dlbridge_status");
  }
  if (error_ != nullptr && error_->words != nullptr) {
    throw CallbackFailed{status, *error_->words};
  }
  throw CallbackFailed{status,
                       message_alone((std::string(name) + "() of the source failed").c_str())};
}

const char* text_at(const std::vector<std::string>& texts, std::size_t index) noexcept {
  return index < texts.size() ? texts[index].c_str() : nullptr;
}

const char* text_or_null(const std::string& text) noexcept {
  return text.empty() ? nullptr : text.c_str();
}

}  // namespace dlbridge::detail

using namespace dlbridge::detail;  // NOLINT(google-build-using-namespace): C has no namespaces

dlbridge_status dlbridge_error_status(const dlbridge_error* error) {
  return error == nullptr ? DLBRIDGE_OK : error->status;
}

const char* dlbridge_error_message(const dlbridge_error* error) {
  if (error == nullptr) {
    return nullptr;
  }
  return error->words == nullptr ? "there is not enough memory" : error->words->message.c_str();
}

size_t dlbridge_error_reason_count(const dlbridge_error* error) {
  return error == nullptr || error->words == nullptr ? 0 : error->words->reasons.size();
}

const char* dlbridge_error_reason(const dlbridge_error* error, size_t index) {
  return error == nullptr || error->words == nullptr ? nullptr
                                                     : text_at(error->words->reasons, index);
}

const char* dlbridge_error_fix(const dlbridge_error* error) {
  return error == nullptr || error->words == nullptr ? nullptr : text_or_null(error->words->fix);
}

void dlbridge_error_free(dlbridge_error* error) {
  if (error != nullptr && error != &no_memory) {
    delete error->words;
    delete error;
  }
}

dlbridge_error* dlbridge_error_make(dlbridge_status status, const char* message) {
  try {
    return new_error(is_failure(status) ? status : DLBRIDGE_USAGE,
                     message_alone(message == nullptr ? "" : message));
  } catch (const std::bad_alloc&) {
    return &no_memory;
  }
}

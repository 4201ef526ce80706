// What the parts of the C interface share: every exception becomes a code and a text.
#pragma once

#include <string>

#include "mythos_runtime.h"
#include "mythos_runtime.hpp"

struct mythos_model {
  mythos::Model model;
};

namespace mythos::c {

// The calling thread's last error. Its kind is the name of the class, "" of what is none of this library's.
struct Failure {
  std::string text;
  const char* kind = "";
};
inline Failure& last() {
  thread_local Failure failure;
  return failure;
}

template <typename Work>
int guarded(const Work& work) noexcept {
  const auto failed = [](const std::exception& error, const char* kind, int code) {
    last() = {error.what(), kind};
    return code;
  };
  try {
    work();
    return 0;
  } catch (const CapacityError& error) {
    return failed(error, "CapacityError", error.exit_code());
  } catch (const RequestError& error) {
    return failed(error, "RequestError", error.exit_code());
  } catch (const BundleError& error) {
    return failed(error, "BundleError", error.exit_code());
  } catch (const BackendMissing& error) {
    return failed(error, "BackendMissing", error.exit_code());
  } catch (const BackendFailed& error) {
    return failed(error, "BackendFailed", error.exit_code());
  } catch (const ResultError& error) {
    return failed(error, "ResultError", error.exit_code());
  } catch (const std::exception& error) {
    return failed(error, "", 3);
  } catch (...) {
    return failed(std::runtime_error("unknown error"), "", 3);
  }
}

inline void require(bool given, const char* what) {
  if (!given) throw RequestError(what);
}

// Of null: the defaults.
inline LoadOptions load_options(const mythos_load_options* given) {
  LoadOptions options;
  if (!given) return options;
  require(given->verify == MYTHOS_VERIFY_HASHES || given->verify == MYTHOS_VERIFY_SIZES,
          "verify should be MYTHOS_VERIFY_HASHES or MYTHOS_VERIFY_SIZES");
  require(given->verify_weights == MYTHOS_VERIFY_HASHES || given->verify_weights == MYTHOS_VERIFY_SIZES,
          "verify_weights should be MYTHOS_VERIFY_HASHES or MYTHOS_VERIFY_SIZES");
  if (given->verify == MYTHOS_VERIFY_SIZES) options.verify = "sizes";
  options.verify_weights = given->verify_weights == MYTHOS_VERIFY_SIZES ? "sizes" : "hashes";
  if (given->threads != 0) options.threads = given->threads;
  if (given->backend) options.backend = given->backend;
  if (given->provider) options.provider = given->provider;
  if (given->op_library) options.op_library = given->op_library;
  if (given->weights) options.weights = given->weights;
  return options;
}

}  // namespace mythos::c

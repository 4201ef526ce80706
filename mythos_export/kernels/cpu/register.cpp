// The operators of the ONNX domain "mythos", version 1, as ONNX Runtime custom operators.
//
//   options = onnxruntime.SessionOptions()
//   options.register_custom_ops_library("libmythos_ops.so")
//
// Products and attentions are there for float32 and for float16; the state that act_halting reads and what int8 and
// int4 weights are multiplied by is float32. In float16 the weights and the cache stay float16 in memory and are widened
// as they are read; sums, softmax and SiLU are float32.
//
// The library is not linked to ONNX Runtime: all calls go through the table that RegisterCustomOps is given.
#include <mutex>
#include <string>

#include "cpu/attention_ops.h"
#include "cpu/loop_ops.h"
#include "cpu/ort_operator.h"
#include "cpu/paged_ops.h"
#include "cpu/product_ops.h"
#include "cpu/state_ops.h"
#include "onnxruntime_api.h"

namespace mythos {
namespace {

template <class K>
void add_one(Ort::CustomOpDomain& domain) {
  static const Operator<K> op;
  domain.Add(&op);
}

template <template <class> class KernelOf, class... Types>
void add(Ort::CustomOpDomain& domain) {
  (add_one<KernelOf<Types>>(domain), ...);
}

template <template <class> class KernelOf>
void add_columns(Ort::CustomOpDomain& domain) {
  add<KernelOf, Column<float, f32>, Column<uint16_t, f16>, Column<float, int8>, Column<float, int4>>(domain);
}

void add_all(Ort::CustomOpDomain& domain) {
  add_columns<LinearKernel>(domain);
  add_columns<EmbeddingKernel>(domain);
  add_columns<MoeKernel>(domain);
  add<ExpertSumKernel, float>(domain);
  add<MlaKernel, float, uint16_t>(domain);
  add<GqaKernel, float, uint16_t>(domain);
  add<ActKernel, float>(domain);
  add<RoundedLineKernel, float>(domain);
  add<PagedGqaKernel, float, uint16_t, Int8Lines>(domain);
  add<PagedMlaKernel, float, uint16_t, Int8Lines>(domain);
  add<PagedGqaInPlaceKernel, float, uint16_t, Int8Lines>(domain);
  add<PagedMlaInPlaceKernel, float, uint16_t, Int8Lines>(domain);
  add_one<LoopKnobsKernel>(domain);
  add_one<LoopGoesOnKernel>(domain);
}

}  // namespace
}  // namespace mythos

// See describe() of kernels.h; the text lives as long as the library.
extern "C" __attribute__((visibility("default"))) const char* mythos_ops_describe() {
  static const std::string text = mythos::describe();
  return text.c_str();
}

extern "C" __attribute__((visibility("default"))) OrtStatus* ORT_API_CALL RegisterCustomOps(OrtSessionOptions* options,
                                                                                            const OrtApiBase* base) {
  if (OrtStatus* const older = mythos::take_api(base)) return older;
  try {
    static Ort::CustomOpDomain domain{"mythos"};  // sessions keep pointing to it
    static std::once_flag filled;
    std::call_once(filled, [] { mythos::add_all(domain); });
    Ort::UnownedSessionOptions(options).Add(domain);
  } catch (const std::exception& error) {
    return Ort::Status(error.what(), ORT_FAIL).release();
  }
  return nullptr;
}

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
#include <algorithm>
#include <atomic>
#include <deque>
#include <iterator>
#include <mutex>
#include <optional>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <vector>

#include "cpu/ops.h"
#include "cpu/ort_tensors.h"
#include "cpu/paged_ops.h"
#include "cpu/product_ops.h"
#include "onnxruntime_api.h"

namespace mythos {
namespace {

// past, layer, chunk, positions, past_lengths: the inputs from `first` on that both kinds of attention share.
template <class T>
Cache cache_of(const Ort::KernelContext& context, size_t first, size_t B, size_t tokens, size_t C) {
  const Input past(context, first, "past"), layer(context, first + 1, "layer"), chunk(context, first + 2, "chunk");
  const Input positions(context, first + 3, "positions"), past_lengths(context, first + 4, "past_lengths");
  past.rank(4).is({past.dim(0), B, past.dim(2), C});
  layer.is({});
  chunk.is({B, tokens, C});
  positions.is({B, tokens});
  past_lengths.is({B});
  return {B,
          tokens,
          past.dim(0),
          past.dim(2),
          C,
          weights<T>(past, C),
          *layer.data<int64_t>(),
          weights<T>(chunk, C),
          positions.data<int64_t>(),
          past_lengths.data<int64_t>()};
}

// -- the operators: from their tensors to the arguments of ops.h -----------------------------------

template <class T>
struct MlaKernel {
  static constexpr const char* name = "mla_attention";
  static constexpr ONNXTensorElementDataType F = Element<T>::onnx;
  static constexpr ONNXTensorElementDataType inputs[] = {F, F, F, kInt64, F, kInt64, kInt64, F};
  static constexpr ONNXTensorElementDataType outputs[] = {F};
  float scale;
  size_t v;

  explicit MlaKernel(const Ort::ConstKernelInfo& info)
      : scale(checked_scale(info)), v(checked_size(info, "v_head_dim")) {}

  static Shapes output_shapes(Ort::ShapeInferContext& context) {
    const auto& q = context.GetInputShape(0);
    if (q.size() != 4 || !q[2].IsInt() || q[2].AsInt() < 0) return std::nullopt;
    return {{{q[0], q[1], q[2].AsInt() * context.GetAttrInt("v_head_dim")}}};
  }

  void compute(const Kernels& kernels, const Ort::KernelContext& context) const {
    const Input q_nope(context, 0, "q_nope"), q_rope(context, 1, "q_rope"), kv_up(context, 7, "kv_up");
    const size_t B = q_nope.rank(4).dim(0), tokens = q_nope.dim(1), H = q_nope.dim(2), nope = q_nope.dim(3);
    const size_t rope = q_rope.rank(4).dim(3), R = kv_up.rank(2).dim(1);
    q_rope.is({B, tokens, H, rope});
    kv_up.is({H * (nope + v), R});
    const Floats<T> q_nope_floats(kernels, q_nope), q_rope_floats(kernels, q_rope);
    const Cache cache = cache_of<T>(context, 2, B, tokens, R + rope);
    Output<T> y(context, {q_nope.shape()[0], q_nope.shape()[1], static_cast<int64_t>(H * v)});
    mla_attention(
        kernels, OrtParallel(context),
        {cache, H, nope, rope, v, R, scale, q_nope_floats.get(), q_rope_floats.get(), weights<T>(kv_up, R), y.get()});
    y.finish(kernels);
  }
};

template <class T>
struct GqaKernel {
  static constexpr const char* name = "gqa_attention";
  static constexpr ONNXTensorElementDataType F = Element<T>::onnx;
  static constexpr ONNXTensorElementDataType inputs[] = {F, F, kInt64, F, kInt64, kInt64};
  static constexpr ONNXTensorElementDataType outputs[] = {F};
  float scale;
  size_t G;

  explicit GqaKernel(const Ort::ConstKernelInfo& info)
      : scale(checked_scale(info)), G(checked_size(info, "kv_heads")) {}

  static Shapes output_shapes(Ort::ShapeInferContext& context) {
    const auto& q = context.GetInputShape(0);
    if (q.size() != 4 || !q[2].IsInt() || !q[3].IsInt() || q[2].AsInt() < 0 || q[3].AsInt() < 0) return std::nullopt;
    return {{{q[0], q[1], q[2].AsInt() * q[3].AsInt()}}};
  }

  void compute(const Kernels& kernels, const Ort::KernelContext& context) const {
    const Input q(context, 0, "q");
    const size_t B = q.rank(4).dim(0), tokens = q.dim(1), H = q.dim(2), head = q.dim(3);
    if (H % G != 0) {
      throw std::invalid_argument("q has " + std::to_string(H) + " heads, which kv_heads = " + std::to_string(G) +
                                  " does not divide");
    }
    const Floats<T> q_floats(kernels, q);
    const Cache cache = cache_of<T>(context, 1, B, tokens, 2 * G * head);
    Output<T> y(context, {q.shape()[0], q.shape()[1], static_cast<int64_t>(H * head)});
    gqa_attention(kernels, OrtParallel(context), {cache, H, G, head, scale, q_floats.get(), y.get()});
    y.finish(kernels);
  }
};

// Lines are rounded in float32 alone, so T is float.
template <class T>
struct RoundedLineKernel {
  static constexpr const char* name = "rounded_line";
  static constexpr ONNXTensorElementDataType F = Element<T>::onnx;
  static constexpr ONNXTensorElementDataType inputs[] = {F};
  static constexpr ONNXTensorElementDataType outputs[] = {F};
  size_t width;

  explicit RoundedLineKernel(const Ort::ConstKernelInfo& info) : width(checked_size(info, "width")) {}

  static Shapes output_shapes(Ort::ShapeInferContext& context) {
    const auto& x = context.GetInputShape(0);
    if (x.empty()) return std::nullopt;  // rank 0 stands for an unknown one too
    return {{x}};
  }

  void compute(const Kernels& kernels, const Ort::KernelContext& context) const {
    const Input x(context, 0, "x");
    if (x.last() % width) {
      throw std::invalid_argument("x has lines of " + std::to_string(x.last()) + " values, which width = " +
                                  std::to_string(width) + " does not divide");
    }
    Output<T> y(context, x.shape());
    rounded_line(kernels, OrtParallel(context), {x.size() / width, width, x.data<T>(), y.get()});
    y.finish(kernels);
  }
};

// The state is float32 at every precision, so T is float.
template <class T>
struct ActKernel {
  static constexpr const char* name = "act_halting";
  static constexpr ONNXTensorElementDataType F = Element<T>::onnx;
  static constexpr ONNXTensorElementDataType inputs[] = {F, F, F, kBool, kInt32, F, F, F};
  static constexpr ONNXTensorElementDataType outputs[] = {F, F, F, kBool, kInt32, kBool};

  explicit ActKernel(const Ort::ConstKernelInfo&) {}

  static Shapes output_shapes(Ort::ShapeInferContext& context) {
    const auto& h = context.GetInputShape(0);
    if (h.size() < 2) return std::nullopt;  // rank 0 stands for an unknown one too
    const Ort::ShapeInferContext::Shape positions(h.begin(), h.end() - 1);
    return {{positions, h, positions, positions, positions, {}}};
  }

  void compute(const Kernels&, const Ort::KernelContext& context) const {
    const Input h(context, 0, "h"), out(context, 1, "out"), cumulative(context, 2, "cumulative");
    const Input halted(context, 3, "halted"), depth(context, 4, "depth"), weight(context, 5, "weight");
    const Input bias(context, 6, "bias"), threshold(context, 7, "threshold");
    const size_t D = h.last();
    const Shape& positions = cumulative.shape();
    Shape rows = positions;
    rows.push_back(static_cast<int64_t>(D));
    for (const Input* one : {&h, &out}) one->is(rows);
    for (const Input* one : {&halted, &depth}) one->is(positions);
    weight.is({1, D});
    bias.is({1});
    const bool own_threshold = threshold.shape().size() != 0;
    if (own_threshold) threshold.is(positions);
    const auto at = [&](size_t index, const Shape& shape) {
      return context.GetOutput(index, shape.data(), shape.size()).GetTensorMutableRawData();
    };
    act_halting({cumulative.size(), D, h.data<T>(), out.data<T>(), cumulative.data<T>(), halted.data<bool>(),
                 depth.data<int32_t>(), weight.data<T>(), *bias.data<T>(), threshold.data<T>(),
                 own_threshold, static_cast<T*>(at(0, positions)), static_cast<T*>(at(1, h.shape())),
                 static_cast<T*>(at(2, positions)), static_cast<bool*>(at(3, positions)),
                 static_cast<int32_t*>(at(4, positions)), static_cast<bool*>(at(5, {}))});
  }
};

// -- what ONNX Runtime sees ------------------------------------------------------------------------------

template <class K>
OrtStatusPtr failure(const std::exception& error) {
  return Ort::Status((std::string("mythos.") + K::name + ": " + error.what()).c_str(), ORT_INVALID_ARGUMENT).release();
}

// An instance in a session: the instruction set is chosen when the session is made.
template <class K>
struct Instance {
  K op;
  const Kernels& kernels;

  OrtStatusPtr ComputeV2(OrtKernelContext* raw) const {
    try {
      op.compute(kernels, Ort::KernelContext(raw));
      return nullptr;
    } catch (const std::exception& error) {
      return failure<K>(error);
    }
  }
};

// The input whose pages an operator appends to; 0 where it has none.
template <class K, class = void>
constexpr size_t cache_input = 0;
template <class K>
constexpr size_t cache_input<K, std::void_t<decltype(K::cache_input)>> = K::cache_input;

// ONNX Runtime asks the first of the operators that share a name, whatever the types of a node are: an output of the
// compute type gets it from the first input that may have it, which is why the wrapper of CustomOpBase, which cannot
// see it, is not used.
template <class K>
OrtStatusPtr infer_outputs(const OrtCustomOp*, OrtShapeInferContext* raw) {
  try {
    Ort::ShapeInferContext context(&Ort::GetApi(), raw);
    auto shapes = K::output_shapes(context);
    if (!shapes) return nullptr;
    // A size that ONNX Runtime does not know comes as -1, and would go back as a size of -1: two tensors of "size -1"
    // count as equally large then, and share memory. A symbol that no other dimension has says what is meant.
    static std::atomic<unsigned> unknown{0};
    std::deque<std::string> symbols;
    for (auto& shape : *shapes)
      for (auto& dim : shape)
        if (dim.IsInt() && dim.AsInt() < 0)
          dim = symbols.emplace_back(std::string("mythos.") + K::name + "." + std::to_string(unknown++)).c_str();
    const size_t typed_by = std::find(std::begin(K::inputs), std::end(K::inputs), K::F) - std::begin(K::inputs);
    OrtTensorTypeAndShapeInfo* input = nullptr;  // belongs to the context
    ONNXTensorElementDataType compute;
    Ort::ThrowOnError(Ort::GetApi().ShapeInferContext_GetInputTypeShape(raw, typed_by, &input));
    Ort::ThrowOnError(Ort::GetApi().GetTensorElementType(input, &compute));
    if (compute != kFloat16) compute = kFloat32;  // of integer weights
    const auto type_of = [&](size_t i) {
      if constexpr (cache_input<K> != 0) {  // the last output is that cache, of whatever it is made
        if (i + 1 == std::size(K::outputs)) {
          ONNXTensorElementDataType held;
          Ort::ThrowOnError(Ort::GetApi().ShapeInferContext_GetInputTypeShape(raw, cache_input<K>, &input));
          Ort::ThrowOnError(Ort::GetApi().GetTensorElementType(input, &held));
          return held;
        }
      }
      return K::outputs[i] == K::F ? compute : K::outputs[i];
    };
    for (size_t i = 0; i < std::size(K::outputs); ++i)
      Ort::ThrowOnError(context.SetOutputShape(i, (*shapes)[i], type_of(i)));
    return nullptr;
  } catch (const std::exception& error) {
    return failure<K>(error);
  }
}

// Trailing inputs that a node may leave out.
template <class K, class = void>
constexpr size_t optional_inputs = 0;
template <class K>
constexpr size_t optional_inputs<K, std::void_t<decltype(K::optional_inputs)>> = K::optional_inputs;

template <template <class> class KernelOf, class T>
struct Operator : Ort::CustomOpBase<Operator<KernelOf, T>, Instance<KernelOf<T>>, true> {
  using K = KernelOf<T>;

  Operator() { this->InferOutputShapeFn = infer_outputs<K>; }

  OrtStatusPtr CreateKernelV2(const OrtApi&, const OrtKernelInfo* info, void** kernel) const {
    try {
      *kernel = new Instance<K>{K(Ort::ConstKernelInfo(info)), select_kernels()};
      return nullptr;
    } catch (const std::exception& error) {
      return failure<K>(error);
    }
  }
  const char* GetName() const { return K::name; }
  const char* GetExecutionProviderType() const { return "CPUExecutionProvider"; }
  size_t GetInputTypeCount() const { return std::size(K::inputs); }
  ONNXTensorElementDataType GetInputType(size_t i) const { return K::inputs[i]; }
  OrtCustomOpInputOutputCharacteristic GetInputCharacteristic(size_t i) const {
    return i < std::size(K::inputs) - optional_inputs<K> ? INPUT_OUTPUT_REQUIRED : INPUT_OUTPUT_OPTIONAL;
  }
  size_t GetOutputTypeCount() const { return std::size(K::outputs); }
  ONNXTensorElementDataType GetOutputType(size_t i) const { return K::outputs[i]; }
};

template <template <class> class KernelOf, class Type>
void add_one(Ort::CustomOpDomain& domain) {
  static const Operator<KernelOf, Type> op;
  domain.Add(&op);
}

template <template <class> class KernelOf, class... Types>
void add(Ort::CustomOpDomain& domain) {
  (add_one<KernelOf, Types>(domain), ...);
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

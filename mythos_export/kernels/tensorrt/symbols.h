// The shapes of outputs while a network is built: expressions over sizes that are not known yet.
#pragma once

#include <algorithm>
#include <map>
#include <stdexcept>
#include <string>
#include <vector>

#include "cuda/program.h"
#include "tensorrt/api.h"

namespace mythos::tensorrt {

namespace trt = nvinfer1;

class Symbols {
 public:
  explicit Symbols(trt::IExprBuilder& builder) : builder_(builder) {}

  void attribute(const std::string& name, std::int64_t value) { names_[name] = builder_.constant(value); }

  void input(const cuda::Tensor& tensor, const trt::DimsExprs& dims) {
    if (tensor.any_extents || (tensor.or_scalar && dims.nbDims == 0)) return;
    const auto behind = static_cast<std::int32_t>(tensor.extents.size()), lead = dims.nbDims - behind;
    if (lead < 0 || (lead && !tensor.leading))
      throw std::invalid_argument(tensor.name + " has " + std::to_string(dims.nbDims) + " dimensions, expected " +
                                  std::to_string(behind) + (tensor.leading ? " or more" : ""));
    if (tensor.leading) leading_.assign(dims.d, dims.d + lead);
    for (std::int32_t i = 0; i < behind; ++i) names_.emplace(tensor.extents[static_cast<size_t>(i)], dims.d[lead + i]);
  }

  trt::DimsExprs shape(const cuda::Tensor& tensor) const {
    std::vector<const trt::IDimensionExpr*> sizes;
    if (tensor.leading) sizes = leading_;
    for (const cuda::Expression& product : tensor.products)
      sizes.push_back(product.over([&](std::int64_t n) { return builder_.constant(n); },
                                   [&](const std::string& name) { return names_.at(name); },
                                   [&](Kind kind, const trt::IDimensionExpr* a, const trt::IDimensionExpr* b) {
                                     return builder_.operation(operation(kind), *a, *b);
                                   }));
    trt::DimsExprs made{};
    if (sizes.size() > trt::Dims::MAX_DIMS) throw std::invalid_argument(tensor.name + " has too many dimensions");
    made.nbDims = static_cast<std::int32_t>(sizes.size());
    std::copy(sizes.begin(), sizes.end(), made.d);
    return made;
  }

 private:
  using Kind = cuda::Expression::Kind;

  static trt::DimensionOperation operation(Kind kind) {
    switch (kind) {
      case Kind::add: return trt::DimensionOperation::kSUM;
      case Kind::sub: return trt::DimensionOperation::kSUB;
      case Kind::mul: return trt::DimensionOperation::kPROD;
      case Kind::div: return trt::DimensionOperation::kFLOOR_DIV;
      case Kind::cdiv: return trt::DimensionOperation::kCEIL_DIV;
      case Kind::min: return trt::DimensionOperation::kMIN;
      case Kind::max: return trt::DimensionOperation::kMAX;
      case Kind::lt: return trt::DimensionOperation::kLESS;
      case Kind::eq: return trt::DimensionOperation::kEQUAL;
      default: throw std::invalid_argument("a size of an output compares");
    }
  }

  trt::IExprBuilder& builder_;
  std::map<std::string, const trt::IDimensionExpr*> names_;
  std::vector<const trt::IDimensionExpr*> leading_;
};

}  // namespace mythos::tensorrt

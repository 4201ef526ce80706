#include "ports.hpp"

#include <cstdlib>

namespace mythos {

std::size_t dtype_size(const std::string& dtype) {
  if (dtype == "bool") return 1;
  if (dtype == "float16" || dtype == "bfloat16") return 2;
  return dtype == "int64" ? 8 : 4;
}

std::string list_in_words(const std::vector<std::int64_t>& values) {
  std::string text = "[";
  for (std::size_t i = 0; i < values.size(); ++i) text += (i ? ", " : "") + std::to_string(values[i]);
  return text + "]";
}

std::int64_t factor_of(const std::string& symbol) {
  return symbol.size() > 2 ? std::strtoll(symbol.c_str() + 2, nullptr, 10) : 1;
}

std::vector<std::int64_t> shape_of(const Port& port, const Symbols& symbols) {
  std::vector<std::int64_t> shape;
  for (const Dim& dim : port.dims)
    shape.push_back(dim.symbol.empty() ? dim.size : symbols.at(dim.symbol[0]) * factor_of(dim.symbol));
  return shape;
}

void check_outputs(const std::vector<Port>& ports, const std::vector<Tensor>& arrays, const Symbols& symbols) {
  for (std::size_t i = 0; i < ports.size(); ++i) {
    const Port& port = ports[i];
    const Tensor& array = arrays.at(i);
    const std::string start = "the engine's output " + port.name + " ";
    if (array.dtype != port.dtype) throw ResultError(start + "is " + array.dtype + ", expected " + port.words());
    const std::string shape = start + "has shape " + list_in_words(array.shape) + ", expected " + port.words();
    if (array.shape.size() != port.dims.size()) throw ResultError(shape);
    if (array.shape == shape_of(port, symbols)) continue;
    std::string known;
    for (const char symbol : {'B', 'T', 'N'})
      for (const Dim& dim : port.dims)
        if (!dim.symbol.empty() && dim.symbol[0] == symbol) {
          known += (known.empty() ? "'" : ", '") + std::string(1, symbol) + "': " + std::to_string(symbols.at(symbol));
          break;
        }
    throw ResultError(shape + " with {" + known + "}");
  }
}

}  // namespace mythos

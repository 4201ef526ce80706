#include "ports.hpp"

#include <algorithm>

namespace mythos {

std::size_t dtype_size(const std::string& dtype) {
  if (dtype == "bool" || dtype == "int8") return 1;
  if (dtype == "float16" || dtype == "bfloat16") return 2;
  return dtype == "int64" ? 8 : 4;
}

std::string list_in_words(const std::vector<std::int64_t>& values) {
  std::string text = "[";
  for (std::size_t i = 0; i < values.size(); ++i) text += (i ? ", " : "") + std::to_string(values[i]);
  return text + "]";
}

std::vector<std::int64_t> shape_of(const Port& port, const Symbols& symbols) {
  std::vector<std::int64_t> shape;
  for (const Dim& dim : port.dims)
    shape.push_back(dim.symbol.empty() ? dim.size : symbols.at(dim.symbol));
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
    for (const std::string symbol : {"B", "T", "N"})
      if (std::any_of(port.dims.begin(), port.dims.end(), [&](const Dim& dim) { return dim.symbol == symbol; }))
        known += (known.empty() ? "'" : ", '") + symbol + "': " + std::to_string(symbols.at(symbol));
    throw ResultError(shape + " with {" + known + "}");
  }
}

}  // namespace mythos

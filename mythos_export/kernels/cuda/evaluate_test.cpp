// Evaluates what it is asked, for the test that holds it to launch_plan.py's `evaluate`. Lines of the input: an expression,
// a tab, and sizes such as a=3 b=-4; each is answered with the value, or with "error" and why.
#include <iostream>
#include <sstream>
#include <stdexcept>

#include "cuda/expression.h"

int main() {
  using namespace mythos::cuda;
  for (std::string line; std::getline(std::cin, line);) {
    const size_t tab = line.find('\t');
    Names names;
    std::istringstream sizes(tab == std::string::npos ? "" : line.substr(tab + 1));
    for (std::string size; sizes >> size;) {
      const size_t equal = size.find('=');
      names[size.substr(0, equal)] = Value::of(std::stoll(size.substr(equal + 1)));
    }
    try {
      std::cout << Expression(line.substr(0, tab)).integer(names) << std::endl;
    } catch (const std::invalid_argument& error) {
      std::cout << "error " << error.what() << std::endl;
    }
  }
}

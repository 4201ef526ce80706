#include <iostream>
#include <mythos_runtime.hpp>

int main(int, char** arguments) {
  mythos::Model model = mythos::Model::load(arguments[1]);
  mythos::GenerateOptions options;
  options.max_new_tokens = 8;
  for (const auto id : model.generate_all({{1, 2, 3}}, options).tokens[0]) std::cout << id << " ";
  std::cout << "\n";
}

#include <iostream>
#include <mythos_runtime.hpp>

int main(int, char** arguments) {
  mythos::Model model = mythos::Model::load(arguments[1]);
  mythos::GenerateOptions options;
  options.max_new_tokens = 8;
  const mythos::GenerationResult result = model.generate_all({{1, 2, 3}}, options);
  for (const auto id : result.tokens[0]) std::cout << id << " ";
  std::cout << "\n";
}

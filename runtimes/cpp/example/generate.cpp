// generate_cpp BUNDLE: eight tokens after the ids 1, 2 and 3.
#include <iostream>
#include <mythos_runtime.hpp>

int main(int count, char** arguments) {
  if (count != 2) {
    std::cerr << "usage: generate_cpp BUNDLE\n";
    return 2;
  }
  try {
    mythos::Model model = mythos::Model::load(arguments[1]);
    mythos::GenerateOptions options;
    options.max_new_tokens = 8;
    model.generate({{1, 2, 3}}, options, [](const mythos::Step& step) {
      std::cout << step.tokens[0] << " " << std::flush;
      return static_cast<bool>(std::cout);  // false where nobody can read on
    });
    std::cout << std::endl;
    return std::cout ? 0 : 3;
  } catch (const mythos::Error& error) {
    std::cerr << "error: " << error.what() << "\n";  // what was found, what was expected, what to do
    return error.exit_code();
  } catch (const std::exception& error) {
    std::cerr << "error: " << error.what() << "\n";
    return 3;
  }
}

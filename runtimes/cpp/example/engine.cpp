// engine_cpp BUNDLE: two requests of different lengths at once; eight tokens after the ids 1, 2 and 3, and the loops of each.
#include <iostream>
#include <mythos_engine.hpp>

int main(int count, char** arguments) {
  if (count != 2) {
    std::cerr << "usage: engine_cpp BUNDLE\n";
    return 2;
  }
  try {
    mythos::Engine engine = mythos::Engine::open(arguments[1]);
    mythos::Request request;
    request.prompt = {1, 2, 3};
    request.max_new_tokens = 8;
    const auto first = engine.submit(request);
    request.prompt = {4};
    request.max_new_tokens = 40;
    const auto second = engine.submit(request);
    while (engine.busy()) {
      for (const mythos::Token& token : engine.tick())
        if (token.running == first) std::cout << token.id << " " << std::flush;
      if (!first->finished.empty()) engine.cancel(second);  // its memory is free at once
    }
    std::cout << std::endl;
    std::cerr << first->finished << " and " << second->finished << ": " << engine.counts().steps << " loops of rows together for "
              << engine.counts().rows << " rows\n";
    return std::cout ? 0 : 3;
  } catch (const mythos::Error& error) {
    std::cerr << "error: " << error.what() << "\n";  // what was found, what was expected, what to do
    return error.exit_code();
  } catch (const std::exception& error) {
    std::cerr << "error: " << error.what() << "\n";
    return 3;
  }
}

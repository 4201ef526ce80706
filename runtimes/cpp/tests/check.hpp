// What the test programs hold the runtime to.
#pragma once

#include <functional>
#include <iostream>
#include <string>

inline int failures = 0;

inline void check(bool good, const std::string& what) {
  if (good) return;
  std::cerr << "FAILED: " << what << "\n";
  ++failures;
}

template <typename Kind>
void refuses(const std::function<void()>& work, const std::string& text) {
  try {
    work();
    check(false, "no error where one says: " + text);
  } catch (const Kind& error) {
    check(std::string(error.what()).find(text) != std::string::npos, std::string(error.what()) + "; expected " + text);
  }
}

// What `main` returns.
inline int told() {
  std::cout << (failures ? "failed\n" : "passed\n");
  return failures != 0;
}

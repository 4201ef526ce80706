// The engine's parts without a model: pages, who is due, and requests over graphs that only count. `ctest` runs it.
#include "../check.hpp"

void memory_and_pages();
void sequences_and_rows();
void requests();

int main() {
  memory_and_pages();
  sequences_and_rows();
  requests();
  return told();
}

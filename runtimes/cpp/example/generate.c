/* generate_c BUNDLE: eight tokens after the ids 1, 2 and 3, from C. */
#include <inttypes.h>
#include <mythos_runtime.h>
#include <stdio.h>

static int print_step(const mythos_step* step, void* failed) {
  *(int*)failed = printf("%" PRId64 " ", step->rows[0].token) < 0 || fflush(stdout) != 0;
  return *(int*)failed;
}

int main(int count, char** arguments) {
  if (count != 2) {
    fprintf(stderr, "usage: generate_c BUNDLE\n");
    return 2;
  }
  mythos_model* model = NULL;
  int code = mythos_load(arguments[1], NULL, 0, MYTHOS_VERIFY_HASHES, &model), failed = 0;
  if (code == 0) {
    const int64_t prompt[] = {1, 2, 3}, *prompts[] = {prompt};
    const size_t lengths[] = {3};
    mythos_generate_options options = mythos_default_options();
    options.max_new_tokens = 8;
    code = mythos_generate(model, prompts, lengths, 1, &options, print_step, &failed);
  }
  if (code != 0) fprintf(stderr, "error: %s\n", mythos_last_error());
  mythos_free(model);
  return code ? code : failed || printf("\n") < 0 || fflush(stdout) != 0 ? 3 : 0;
}

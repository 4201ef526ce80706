/* engine_c BUNDLE: two requests of different lengths at once; eight tokens after the ids 1, 2 and 3. */
#include <mythos_engine.h>
#include <stdio.h>

static int failed(int code) {
  if (code) fprintf(stderr, "error: %s\n", mythos_last_error()); /* what was found, what was expected, what to do */
  return code;
}

static int submit(mythos_engine* engine, const int64_t* prompt, size_t count, int64_t tokens, uint64_t* number) {
  mythos_request request = mythos_default_request();
  request.prompt = prompt, request.prompt_count = count, request.max_new_tokens = tokens;
  return failed(mythos_engine_submit(engine, &request, number));
}

/* Writes the first request's tokens; the second one ends with it. */
static int run(mythos_engine* engine, uint64_t first, uint64_t second) {
  while (mythos_engine_busy(engine)) {
    mythos_tick* tick = NULL;
    int code = failed(mythos_engine_tick(engine, &tick));
    if (code) return code;
    for (size_t i = 0; !code && i < tick->count; ++i) {
      const mythos_token* token = &tick->tokens[i];
      if (*token->error) {
        fprintf(stderr, "error: %s\n", token->error);
        code = 1;
      } else if (token->request == first) {
        printf("%lld ", (long long)token->id);
        fflush(stdout);
        if (*token->finished) code = failed(mythos_engine_cancel(engine, second)); /* its memory is free at once */
      }
    }
    mythos_tick_free(tick);
    if (code) return code;
  }
  printf("\n");
  return ferror(stdout) ? 3 : 0;
}

int main(int count, char** arguments) {
  if (count != 2) {
    fprintf(stderr, "usage: engine_c BUNDLE\n");
    return 2;
  }
  mythos_engine* engine = NULL;
  int code = failed(mythos_engine_open(arguments[1], NULL, NULL, &engine));
  if (code) return code;
  const int64_t long_prompt[] = {1, 2, 3}, short_prompt[] = {4};
  uint64_t first = 0, second = 0;
  code = submit(engine, long_prompt, 3, 8, &first);
  if (!code) code = submit(engine, short_prompt, 1, 40, &second);
  if (!code) code = run(engine, first, second);
  mythos_engine_free(engine);
  return code;
}

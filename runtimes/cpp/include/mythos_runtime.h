/* The C interface of mythos_runtime, for other languages. No exception crosses it.
 *
 *   mythos_model* model = NULL;
 *   if (mythos_load("bundle", NULL, 0, &model)) { fprintf(stderr, "error: %s\n", mythos_last_error()); return 2; }
 *   mythos_generate_options options = mythos_default_options();
 *   options.max_new_tokens = 16;
 *   int64_t prompt[] = {1, 2, 3};
 *   mythos_generate(model, prompt, 3, &options, print_token, NULL);   (int print_token(int64_t id, int32_t depth, void*))
 *   mythos_free(model);
 *
 * Functions return 0, or the exit code of the error: 1 a result is wrong, 2 the request or the bundle is wrong, 3 this
 * machine lacks something. The text is mythos_last_error(), of the calling thread.
 */
#ifndef MYTHOS_RUNTIME_H
#define MYTHOS_RUNTIME_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct mythos_model mythos_model;

typedef struct mythos_generate_options {
  int64_t max_new_tokens; /* 0: as many as the model allows */
  double temperature;     /* 0: greedy */
  int64_t top_k;          /* 0: off */
  double top_p;           /* 1: off */
  double min_p;           /* 0: off */
  double repetition_penalty; /* 1: off */
  uint64_t seed;
  int64_t eos;            /* -1: none */
  int64_t max_loops;      /* -1: as trained */
  const char* policy;     /* "full" or "last"; NULL: full */
} mythos_generate_options;

/* Called for every token; a value other than 0 ends the generation. */
typedef int (*mythos_on_token)(int64_t id, int32_t depth, void* user);

mythos_generate_options mythos_default_options(void);
/* backend NULL: the first that the bundle has a file for. threads 0: the engine's choice. */
int mythos_load(const char* bundle, const char* backend, int threads, mythos_model** model);
void mythos_free(mythos_model* model);
int64_t mythos_vocab_size(const mythos_model* model); /* 0 for NULL */
int mythos_generate(mythos_model* model, const int64_t* ids, size_t count, const mythos_generate_options* options,
                    mythos_on_token on_token, void* user);
/* Logits of a whole sequence, without a cache: `logits` has room for count * vocab_size floats, `depth` for count. */
int mythos_forward(mythos_model* model, const int64_t* ids, size_t count, float* logits, int32_t* depth);
const char* mythos_last_error(void);

#ifdef __cplusplus
}
#endif
#endif

/* The C interface of mythos_runtime, for other languages. No exception crosses it.
 *
 *   static int print_step(const mythos_step* step, void* user) {
 *     (void)user;
 *     fwrite(step->rows[0].text, 1, step->rows[0].text_bytes, stdout);
 *     return 0;
 *   }
 *
 *   mythos_model* model = NULL;
 *   if (mythos_load("bundle", NULL, 0, MYTHOS_VERIFY_HASHES, &model)) {
 *     fprintf(stderr, "error: %s\n", mythos_last_error());
 *     return 2;
 *   }
 *   mythos_generate_options options = mythos_default_options();
 *   options.max_new_tokens = 16;
 *   const int64_t prompt[] = {1, 2, 3}, *prompts[] = {prompt};
 *   const size_t lengths[] = {3};
 *   if (mythos_generate(model, prompts, lengths, 1, &options, print_step, NULL)) ...
 *   mythos_free(model);
 *
 * Functions return 0, or the exit code of the error: 1 a result is wrong, 2 the request or the bundle is wrong, 3 this
 * machine lacks something. The text is mythos_last_error().
 *
 * Many requests at once: mythos_engine.h.
 *
 * Threads: forward passes, generations and engines of one model may be in several threads at once; a cache is for one of them
 * at a time, and so is all the rest of a model (any thread; hand-overs need no more than a mutex gives). mythos_last_error() is of the calling thread, and its text stays
 * until that thread's next error.
 */
#ifndef MYTHOS_RUNTIME_H
#define MYTHOS_RUNTIME_H

#include <stddef.h>
#include <stdint.h>

#ifndef MYTHOS_API
#define MYTHOS_API __attribute__((visibility("default")))
#endif

#ifdef __cplusplus
extern "C" {
#endif

typedef struct mythos_model mythos_model;
typedef struct mythos_cache mythos_cache;

MYTHOS_API const char* mythos_version(void); /* of this library, such as "0.2.0" */
MYTHOS_API const char* mythos_last_error(void);
/* Of the ONNX Runtime that is found here; an error where there is none. */
MYTHOS_API int mythos_onnxruntime_version(const char** version);
/* What it was: "RequestError", "CapacityError" (tokens do not fit), "BundleError", "BackendMissing", "BackendFailed",
 * "ResultError", as mythos_runtime.hpp and the Python package have them; "" of anything else. */
MYTHOS_API const char* mythos_last_error_kind(void);

/* -- models ------------------------------------------------------------------------------------------------------------ */

enum { MYTHOS_VERIFY_HASHES = 0, MYTHOS_VERIFY_SIZES = 1 }; /* what of the bundle's files is held against its manifest */

/* backend NULL: the first that the bundle has a file for. threads 0: the engine's choice. */
MYTHOS_API int mythos_load(const char* bundle, const char* backend, int threads, int verify, mythos_model** model);
/* The same, with all that can be chosen. */
typedef struct mythos_load_options {
  const char* backend;    /* as above */
  int threads, verify;    /* as above */
  int verify_weights;     /* likewise, of the files that `weights` names */
  const char* provider;   /* of onnxruntime: cpu, cuda (or fail), auto (cuda where it works); NULL: auto */
  const char* op_library; /* native operators: a path, or "none" for the portable bodies; NULL: as installed */
  const char* weights;    /* of a bundle whose weights are in files outside of it: the file, or its folder; NULL: as exported */
} mythos_load_options;
MYTHOS_API mythos_load_options mythos_default_load_options(void);
/* options NULL: the defaults. */
MYTHOS_API int mythos_load_with(const char* bundle, const mythos_load_options* options, mythos_model** model);
MYTHOS_API void mythos_free(mythos_model* model);             /* NULL: nothing */
MYTHOS_API int64_t mythos_vocab_size(const mythos_model* model);    /* 0 for NULL */
MYTHOS_API int64_t mythos_trained_loops(const mythos_model* model); /* the default of max_loops; 0 for NULL */

/* Of the library that runs it, and what runs its operators: "native" or "portable". As long as the model; "" for NULL. */
MYTHOS_API const char* mythos_description(const mythos_model* model);
MYTHOS_API const char* mythos_operators(const mythos_model* model);

/* The ids with which the bundle says that a text ends: *count of them, of which at most `room` are written. */
MYTHOS_API int mythos_eos(const mythos_model* model, int64_t* ids, size_t room, size_t* count);

/* -- text; a tokenizer.json and chat templates need libmythos_tokenizer beside this library (else: an error) -------------- */

/* All set the number of elements to *count, and write at most `room` of them: call twice where the size is not known.
 * Text is UTF-8, without a terminating zero where its length is given. */
MYTHOS_API int mythos_encode(const mythos_model* model, const char* text, size_t bytes, int64_t* ids, size_t room,
                             size_t* count);
/* Of a conversation and the words with which the model's answer begins, by the bundle's chat template: texts end in a zero. */
MYTHOS_API int mythos_encode_chat(const mythos_model* model, const char* const* roles, const char* const* contents,
                                  size_t messages, int64_t* ids, size_t room, size_t* count);
MYTHOS_API int mythos_decode(const mythos_model* model, const int64_t* ids, size_t id_count, char* text, size_t room,
                             size_t* count);

/* -- generation -------------------------------------------------------------------------------------------------------- */

typedef struct mythos_forward_options {
  int64_t max_loops;      /* -1: the cache's, or as trained */
  double halt_threshold;  /* NaN: as trained; infinite: never, or at once, as the exit rule compares */
  uint64_t state_seed;    /* of models that draw a state before the first loop: what it is drawn with, */
  const float* initial_state; /* or, not for mythos_generate, the state itself, [batch, tokens, size]; NULL: drawn */
} mythos_forward_options;

typedef struct mythos_generate_options {
  int64_t max_new_tokens; /* 0: as many as the model allows */
  double temperature;     /* 0: greedy */
  int64_t top_k;          /* 0: off */
  double top_p;           /* 1: off */
  double min_p;           /* 0: off */
  double repetition_penalty; /* 1: off */
  uint64_t seed;
  const int64_t* eos;     /* ids that end a row; NULL: the bundle's */
  size_t eos_count;
  const int64_t* const* stop; /* sequences of ids that end a row, and the length of each */
  const size_t* stop_lengths;
  size_t stop_count;
  mythos_forward_options forward;
  /* At the loops that a token did not run before it halted. "lazy": they are run when a later token needs their cache
   * entries. "full": they are run at once, with the same results. "share": its deepest entry stands for them, which is
   * approximate. NULL: lazy, or, where no row graphs run, full. */
  const char* policy;
  int64_t speculate;      /* loops after which tokens are drafted, to be verified together; -1: as it pays; 0: never */
  double loops_per_token; /* budgets, by which new tokens halt earlier than the model would: on average; 0: none */
  double latency_ms;      /* by what calls of the graphs have taken lately; 0: none */
} mythos_generate_options;

typedef struct mythos_row {
  int64_t token;        /* -1: the row had ended before */
  int32_t depth;        /* loops that the position behind the choice took */
  const char* text;     /* what has become certain of the row's text, not terminated; empty where ids are no text */
  size_t text_bytes;
  int capped;           /* whether a budget kept the position from going deeper */
  const char* finished; /* "eos", "stop" or "length" once the row has ended, else "" */
} mythos_row;

typedef struct mythos_counts { /* of a generation so far; zeros where no row graphs ran */
  int64_t steps;          /* loops of rows that ran together */
  int64_t rows;           /* positions of all of them */
  int64_t late;           /* of these, positions that had halted before, and run for a later one's sake */
  int64_t drafted, accepted; /* tokens that were drafted, and those that were right */
} mythos_counts;

typedef struct mythos_step { /* one token of every row that is still going; valid during the call */
  const mythos_row* rows;
  size_t row_count;
  int64_t loops;          /* the most of any row; where the whole model runs, those that ran */
  double seconds;         /* in the engine since the last step; of the first step, for the whole prompt */
  mythos_counts counts;
} mythos_step;

/* A value other than 0 ends the generation. */
typedef int (*mythos_on_step)(const mythos_step* step, void* user);

MYTHOS_API mythos_forward_options mythos_default_forward_options(void);
MYTHOS_API mythos_generate_options mythos_default_options(void);
/* options NULL: the defaults. */
MYTHOS_API int mythos_generate(mythos_model* model, const int64_t* const* prompts, const size_t* lengths, size_t rows,
                               const mythos_generate_options* options, mythos_on_step on_step, void* user);

/* -- forward passes and caches ------------------------------------------------------------------------------------------- */

/* max_loops -1: as trained. policy: as in mythos_generate_options; NULL: lazy, or, where no row graphs run, full. */
MYTHOS_API int mythos_cache_new(const mythos_model* model, int64_t batch, int64_t capacity, int64_t max_loops,
                                const char* policy, mythos_cache** cache);
/* An independent copy of `count` rows, in that order and more than once where named so; rows NULL: of all. */
MYTHOS_API int mythos_cache_fork(const mythos_cache* cache, const int64_t* rows, size_t count, mythos_cache** copy);
/* Keeps the first lengths[row] tokens of every row. */
MYTHOS_API int mythos_cache_truncate(mythos_cache* cache, const int64_t* lengths);
/* Tokens held, per row: *batch of them, of which at most `room` are written. */
MYTHOS_API int mythos_cache_lengths(const mythos_cache* cache, int64_t* lengths, size_t room, size_t* batch);
MYTHOS_API int mythos_cache_bytes(const mythos_cache* cache, size_t* bytes); /* of what it holds */
/* What a row holds at one loop (-1: around the loop), as pages hold it, [slots, length, line]: Cache::read in
 * mythos_runtime.hpp. *bytes of them; `lines` is NULL, or has room for as many. */
MYTHOS_API int mythos_cache_read(mythos_cache* cache, int64_t row, int64_t loop, void* lines, size_t room, size_t* bytes);
/* Has a row hold `length` tokens of these: Cache::write. */
MYTHOS_API int mythos_cache_write(mythos_cache* cache, int64_t row, int64_t length, const void* around, size_t around_bytes,
                                  const void* loops, size_t loops_bytes);
MYTHOS_API void mythos_cache_free(mythos_cache* cache); /* NULL: nothing. Before or after its model. */

/* Runs new tokens, [batch, tokens]. valid: 0 marks padding; NULL: none is. options NULL: the defaults. cache NULL: the
 * tokens are whole sequences; else it is read, and extended by them. logits has room for [batch, tokens, vocabulary],
 * depth for [batch, tokens]; loops, depth and logits may be NULL. */
MYTHOS_API int mythos_forward(mythos_model* model, const int64_t* ids, const uint8_t* valid, int64_t batch,
                              int64_t tokens, const mythos_forward_options* options, mythos_cache* cache,
                              float* logits, int32_t* depth, int64_t* loops);

#ifdef __cplusplus
}
#endif
#endif

/* The C interface of the engine: many requests at once, of which each call packs tokens of whatever request and loop depth.
 *
 *   mythos_engine* engine = NULL;
 *   if (mythos_engine_open("bundle", NULL, NULL, &engine)) ...
 *   const int64_t prompt[] = {1, 2, 3};
 *   mythos_request request = mythos_default_request();
 *   request.prompt = prompt, request.prompt_count = 3, request.max_new_tokens = 16;
 *   uint64_t number = 0;
 *   if (mythos_engine_submit(engine, &request, &number)) ...
 *   while (mythos_engine_busy(engine)) {
 *     mythos_tick* tick = NULL;
 *     if (mythos_engine_tick(engine, &tick)) ...
 *     for (size_t i = 0; i < tick->count; ++i) printf("%lld\n", (long long)tick->tokens[i].id);
 *     mythos_tick_free(tick);
 *   }
 *   mythos_engine_free(engine);
 *
 * What a request gets depends on it alone: mythos_engine.hpp has the contract. Codes and errors are mythos_runtime.h's. An
 * engine is for one thread at a time; several engines on one model may be in as many threads, and take turns.
 */
#ifndef MYTHOS_ENGINE_H
#define MYTHOS_ENGINE_H

#include "mythos_runtime.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct mythos_engine mythos_engine;

typedef struct mythos_engine_options { /* EngineOptions in mythos_engine.hpp */
  int64_t memory;         /* bytes */
  int64_t max_loops;      /* the most that a request may ask for; -1: as trained */
  int64_t most_rows;      /* of a call */
  int64_t most_running;   /* requests that run at a time */
  int64_t chunk;          /* the most tokens of a prompt that enter at a time */
  double patience;        /* a share of the running requests; NaN: by what calls take */
  int64_t loops_per_call; /* 0: as many as fit 50 ms */
  int64_t max_lag;        /* positions; 0: bounded only by memory */
  double loops_per_token, latency_ms; /* budgets of requests that have none of their own; 0: none */
  int64_t prefixes;       /* ended requests that are kept */
  int64_t speculate;      /* loops after which tokens are drafted; -1: as it pays; 0: never */
} mythos_engine_options;

MYTHOS_API mythos_engine_options mythos_default_engine_options(void);
/* Options NULL: the defaults. */
MYTHOS_API int mythos_engine_open(const char* bundle, const mythos_load_options* load, const mythos_engine_options* options,
                                  mythos_engine** engine);
/* On a model that is loaded already, which it may outlive: Engine::of in mythos_engine.hpp. */
MYTHOS_API int mythos_engine_of(mythos_model* model, const mythos_engine_options* options, mythos_engine** engine);
MYTHOS_API void mythos_engine_free(mythos_engine* engine); /* NULL: nothing */

typedef struct mythos_request { /* Request in mythos_engine.hpp */
  const int64_t* prompt; /* prompt_count ids, one or more */
  size_t prompt_count;
  int64_t max_new_tokens;
  int64_t max_loops;     /* -1: as trained */
  double halt_threshold; /* NaN: as trained; infinite: never, or at once, as the exit rule compares */
  const char* policy;    /* "lazy", "full" or "share"; NULL: lazy */
  double temperature;    /* as in mythos_generate_options */
  int64_t top_k;
  double top_p;
  double min_p;
  double repetition_penalty;
  uint64_t seed;
  uint64_t row;          /* which of a batch's random numbers it draws */
  uint64_t state_seed;
  const int64_t* eos;    /* ids that end it; NULL: none does */
  size_t eos_count;
  const int64_t* const* stop;
  const size_t* stop_lengths;
  size_t stop_count;
  double loops_per_token, latency_ms; /* budgets; 0: none; both NaN: the engine's */
  const int64_t* depths; /* loops of the positions behind its tokens, in place of the exit rule's; NULL: none */
  size_t depth_count;
} mythos_request;

MYTHOS_API mythos_request mythos_default_request(void);
/* Queues a request; *number names it in what ticks give. */
MYTHOS_API int mythos_engine_submit(mythos_engine* engine, const mythos_request* request, uint64_t* number);
/* Ends a request now; its memory is free at once. Nothing happens where it has ended. */
MYTHOS_API int mythos_engine_cancel(mythos_engine* engine, uint64_t number);

typedef struct mythos_token {
  uint64_t request;      /* its number */
  int64_t id;            /* -1: there is none; the request failed, and `error` says why */
  int32_t depth;         /* loops that the position behind the choice took */
  int32_t capped;        /* whether a budget kept that position from going deeper */
  int64_t reused;        /* tokens of the request's prompt whose cache entries were there already */
  const float* logits;   /* [vocabulary], what the choice was made from */
  const char* finished;  /* of a request's last token "eos", "stop" or "length"; of its failure "error"; else "" */
  const char* error;     /* "" but of a failure */
} mythos_token;

typedef struct mythos_tick { /* what one gave, until it is freed: also behind the engine's end */
  size_t count;
  const mythos_token* tokens;
} mythos_tick;

/* At most one call of each graph. An error is of the whole engine; that of a single request is among the tokens. Where a call
 * fails after tokens were chosen, they are told, and the next tick fails, unless one who was there then has ended. */
MYTHOS_API int mythos_engine_tick(mythos_engine* engine, mythos_tick** tick);
MYTHOS_API void mythos_tick_free(mythos_tick* tick); /* NULL: nothing */
MYTHOS_API int mythos_engine_busy(const mythos_engine* engine); /* whether anything is left to do; 0 for NULL */

typedef struct mythos_usage {
  int64_t running, waiting;    /* requests */
  int64_t pages, pages_free;   /* of the caches */
  int64_t states, states_free; /* of positions that lag */
  int64_t prefixes;            /* ended requests that are kept */
  mythos_counts counts;        /* so far; of all engines on the model, where there are several */
} mythos_usage;

MYTHOS_API int mythos_engine_usage(const mythos_engine* engine, mythos_usage* usage);
/* Pages that running requests hold, each once. Looks at every table: not for every tick. */
MYTHOS_API int mythos_engine_pages_running(const mythos_engine* engine, int64_t* pages);

#ifdef __cplusplus
}
#endif
#endif

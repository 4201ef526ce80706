// The C interface: every exception becomes a code and a text here.
#include "mythos_runtime.h"

#include <algorithm>
#include <string>

#include "mythos_runtime.hpp"

struct mythos_model {
  mythos::Model model;
};

namespace {

thread_local std::string last_error;

template <typename Work>
int guarded(const Work& work) noexcept {
  try {
    work();
    return 0;
  } catch (const mythos::Error& error) {
    last_error = error.what();
    return error.exit_code();
  } catch (const std::exception& error) {
    last_error = error.what();
  } catch (...) {
    last_error = "unknown error";
  }
  return 3;
}

}  // namespace

extern "C" {

mythos_generate_options mythos_default_options(void) { return {0, 0.0, 0, 1.0, 0.0, 1.0, 0, -1, -1, nullptr}; }

int mythos_load(const char* bundle, const char* backend, int threads, mythos_model** model) {
  return guarded([&] {
    if (!bundle || !model) throw mythos::RequestError("mythos_load needs a bundle's folder and a place for the model");
    mythos::LoadOptions options;
    if (backend) options.backend = backend;
    if (threads != 0) options.threads = threads;
    *model = new mythos_model{mythos::Model::load(bundle, options)};
  });
}

void mythos_free(mythos_model* model) { delete model; }

int64_t mythos_vocab_size(const mythos_model* model) { return model ? model->model.config().vocab_size : 0; }

int mythos_generate(mythos_model* model, const int64_t* ids, size_t count, const mythos_generate_options* options,
                    mythos_on_token on_token, void* user) {
  return guarded([&] {
    if (!model || !ids || !on_token) throw mythos::RequestError("mythos_generate needs a model, ids and a callback");
    const mythos_generate_options chosen = options ? *options : mythos_default_options();
    mythos::GenerateOptions request;
    if (chosen.max_new_tokens) request.max_new_tokens = chosen.max_new_tokens;
    request.sampling = {chosen.temperature, chosen.top_k, chosen.top_p, chosen.min_p, chosen.repetition_penalty,
                        chosen.seed};
    if (chosen.eos >= 0) request.eos = {chosen.eos};
    if (chosen.max_loops >= 0) request.forward.max_loops = chosen.max_loops;
    if (chosen.policy) request.forward.policy = chosen.policy;
    model->model.generate({{ids, ids + count}}, request, [&](const mythos::Step& step) {
      return on_token(step.tokens[0], step.depth[0], user) == 0;
    });
  });
}

int mythos_forward(mythos_model* model, const int64_t* ids, size_t count, float* logits, int32_t* depth) {
  return guarded([&] {
    if (!model || !ids || !logits || !depth)
      throw mythos::RequestError("mythos_forward needs a model, ids, and memory for logits and depths");
    const mythos::Output out = model->model.forward(mythos::Tokens::rows({{ids, ids + count}}));
    std::copy(out.logits.begin(), out.logits.end(), logits);
    std::copy(out.depth.begin(), out.depth.end(), depth);
  });
}

const char* mythos_last_error(void) { return last_error.c_str(); }

}  // extern "C"

// What the runtime needs to know of a model, read from the manifest's `config` and held against its ports (config.py).
#include "fields.hpp"
#include "manifest.hpp"

namespace mythos {

bool RuntimeConfig::operator==(const RuntimeConfig& o) const {
  return vocab_size == o.vocab_size && max_seq_len == o.max_seq_len && max_loop_iters == o.max_loop_iters &&
         act_threshold == o.act_threshold && max_output_tokens == o.max_output_tokens && layers == o.layers &&
         cache_width == o.cache_width && cache_dtype == o.cache_dtype;
}

RuntimeConfig config_of(const Manifest& manifest, const std::string& where) {
  const Port* past = nullptr;
  for (const Port& port : manifest.ports.inputs)
    if (port.name == "past_loop" && !past) past = &port;
  if (!past || (past->dtype != "float32" && past->dtype != "float16" && past->dtype != "bfloat16"))
    throw BundleError(where + ": the input past_loop " + (past ? "is " + past->dtype : "is missing") +
                      ", expected one of float32, float16, bfloat16");
  Fields fields(*manifest.config, where, "config");
  const auto size = [&](std::u32string_view name, std::int64_t least = 1) {
    return fields.integer(name, least, (std::int64_t{1} << 31) - 1);  // sums and products of a few stay within 64 bits
  };
  RuntimeConfig config;
  config.cache_dtype = past->dtype;
  if (fields.choice(U"attn_type", {"mla", "gqa"}) == "mla") {
    config.cache_width = size(U"kv_lora_rank");
    config.cache_width += size(U"qk_rope_head_dim");
  } else {
    const std::int64_t dim = size(U"dim"), heads = size(U"n_heads");
    if (dim % heads)
      throw fields.fail(U"n_heads", "a divisor of dim (" + std::to_string(dim) + ")", *manifest.config->find(U"n_heads"));
    config.cache_width = 2 * size(U"n_kv_heads") * (dim / heads);
  }
  config.vocab_size = size(U"vocab_size");
  config.max_seq_len = size(U"max_seq_len");
  config.max_loop_iters = size(U"max_loop_iters");
  config.act_threshold = fields.number(U"act_threshold");
  config.max_output_tokens = size(U"max_output_tokens");
  config.layers = size(U"prelude_layers", 0);
  config.layers += size(U"coda_layers", 0);
  const std::string difference = first_difference(model_ports(config), manifest.ports);
  if (!difference.empty())
    throw BundleError(where + ": the ports do not fit this runtime and the configuration: " + difference);
  return config;
}

}  // namespace mythos
